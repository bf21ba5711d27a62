"""Apache Kafka itself as the local broker: one KRaft node or three, no containers, files under the data directory.

In: Java 17+ and, the first time, Maven on the PATH (43 MB of jars, pinned by `kafka_jars/pom.xml`, each checked
against `kafka_jars/jars.sha256`). Out: for each node a formatted log directory, a `server.properties`, and the
command to run.

On a crash: an acknowledged record is in the operating system's page cache, so it survives the death of the
broker (SIGKILL included) but, without fsync per record, not the loss of power. Of three nodes two hold each
acknowledged record at the least, and go on alone when the third dies. Formatting is repeated safely, and a
download that was cut short is never used.

`python -m deploy.local.kafka lock` writes the checksums anew after a change of version.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from deploy.local.errors import LaunchError

POM = Path(__file__).parent / "kafka_jars" / "pom.xml"
LOCK = Path(__file__).parent / "kafka_jars" / "jars.sha256"
OLDEST_JAVA = 17  # the brokers of Kafka 4 do not run on an older one
MAVEN_SECONDS = 600

JVM = [
    # 128 MB of live data at 20k events/s; with the JVM's own parts about 300 MB resident.
    "-Xms128m",
    "-Xmx320m",
    "-XX:MaxDirectMemorySize=64m",
    "-XX:+UseSerialGC",  # on two cores the smallest footprint, pauses of a few ms
    "-XX:TieredStopAtLevel=1",  # a broker mostly copies bytes: C1 code is enough, and starts a third faster
    "-Xshare:auto",
    "-XX:+ExitOnOutOfMemoryError",  # the supervisor restarts a dead broker, not a stuck one
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Duser.timezone=UTC",
]


def version() -> str:
    """The pinned version of Kafka, from the pom.

    Raises:
        LaunchError: the pom names no Kafka.
    """
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    for dependency in ElementTree.parse(POM).iterfind(".//m:dependency", namespace):  # noqa: S314 - our own file
        if dependency.findtext("m:artifactId", None, namespace) == "kafka_2.13":
            return str(dependency.findtext("m:version", None, namespace))
    raise LaunchError(f"{POM} names no kafka_2.13: restore the file.")


def java_major() -> int:
    """Major version of the `java` on the PATH, 0 when there is none that runs."""
    java = shutil.which("java")
    return 0 if java is None else _major(java)


@cache
def _major(java: str) -> int:
    shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', shown)
    return int(found.group(1)) if found else 0


def checksums() -> dict[str, str]:
    """Locked sha256 of each jar by file name (the file is in the format of `sha256sum`)."""
    lines = (line.split() for line in LOCK.read_text().splitlines() if line.strip())
    return {name: digest for digest, name in lines}


def jars_directory(cache: Path) -> Path:
    """Where the jars of the pinned version are kept."""
    return cache / f"kafka-{version()}"


def cached(cache: Path) -> bool:
    """Whether the jars are there; they are put there in one move, only after they were verified."""
    return jars_directory(cache).is_dir()


def fetch(cache: Path) -> Path:
    """Return the directory of the verified jars, downloading them with Maven the first time.

    Raises:
        LaunchError: no Maven, the download failed, or a jar differs from its locked checksum.
    """
    home = jars_directory(cache)
    if not home.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".kafka-") as temporary:
            download = Path(temporary) / "jars"
            _copy_dependencies(download)
            _verify(download)
            try:
                download.rename(home)
            except OSError:  # another launcher was faster; what it left is verified below all the same
                if not home.is_dir():
                    raise
    _verify(home)
    return home


def _copy_dependencies(into: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise LaunchError(
            "Kafka's jars are not here yet and `mvn` is not on the PATH: install Maven (only needed once), "
            "or start with `just up broker=embedded`."
        )
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
    done = subprocess.run(
        [*command, "-DincludeScope=runtime", f"-DoutputDirectory={into}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=MAVEN_SECONDS,
    )
    if done.returncode != 0:
        reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr.strip())
        raise LaunchError(
            f"Maven could not download Kafka {version()}: {reason} - "
            "check the network and try again, or start with `just up broker=embedded`."
        )


def _digests(directory: Path) -> dict[str, str]:
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in sorted(directory.glob("*.jar"))}


def _verify(directory: Path) -> None:
    found, locked = _digests(directory), checksums()
    wrong = sorted(name for name in found.keys() | locked.keys() if found.get(name) != locked.get(name))
    if wrong:
        raise LaunchError(
            f"{', '.join(wrong)} in {directory} differ from {LOCK.name}: remove {directory} and start again."
        )


class Ports(NamedTuple):
    """Of one node."""

    broker: int
    controller: int


def server_properties(log_dir: Path, node: int, ports: Sequence[Ports]) -> str:
    """Configuration of one of `len(ports)` nodes (from 1), each broker and controller, on loopback only."""
    port, controller_port = ports[node - 1]
    copies = str(len(ports))
    enough = str(max(1, len(ports) - 1))
    lines = {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(
            f"{number}@127.0.0.1:{each.controller}" for number, each in enumerate(ports, 1)
        ),
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(log_dir),
        # A record is acknowledged once all nodes but one have it: any one may die.
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": enough,
        # A node that is silent for so long is dead, and its partitions get other leaders. The default is 9 s.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        # All nodes stop together, so there is nobody left to hand leaders over to; waiting for it takes minutes.
        "controlled.shutdown.enable": "false",
        # 50 partitions each is the default, sized for a cluster: here it is only open files and start time.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "auto.create.topics.enable": "false",  # a misspelt topic must be an error
        "group.initial.rebalance.delay.ms": "0",  # 3 s for members of a cluster to gather
        "log.segment.bytes": str(64 << 20),  # retention removes whole segments
        "num.network.threads": "2",
        "num.io.threads": "4",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def prepare(jars: Path, data_dir: Path, ports: Sequence[Ports]) -> list[list[str]]:
    """Write each node's configuration, format its directory if it is new, and return the nodes' command lines.

    The directories are `<data_dir>/kafka`, `<data_dir>/kafka-2` and so on.

    Raises:
        LaunchError: Kafka refused to format a directory.
    """
    classpath = ":".join(str(jars / name) for name in sorted(checksums()))
    java = ["java", *JVM, "-cp", classpath]
    homes = [data_dir / (f"kafka-{node}" if node > 1 else "kafka") for node in range(1, len(ports) + 1)]
    cluster = _cluster_id(homes[0]) or base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    commands = []
    for node, home in enumerate(homes, 1):
        home.mkdir(parents=True, exist_ok=True)
        properties = home / "server.properties"
        properties.write_text(server_properties(home / "logs", node, ports))
        if _cluster_id(home) is None:
            _format(java, properties, cluster)
        commands.append([*java, "kafka.Kafka", str(properties)])
    return commands


def _cluster_id(home: Path) -> str | None:
    """Of a directory that is formatted, None of one that is not."""
    meta = home / "logs" / "meta.properties"
    found = re.search(r"^cluster\.id=(.+)$", meta.read_text(), re.MULTILINE) if meta.exists() else None
    return found.group(1) if found else None


def _format(java: list[str], properties: Path, cluster: str) -> None:
    # --ignore-formatted: a format cut short left some of its files, and doing it again completes them.
    arguments = ["format", f"--cluster-id={cluster}", "--ignore-formatted", f"--config={properties}"]
    done = subprocess.run(
        [*java, "kafka.tools.StorageTool", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise LaunchError(
            f"Kafka could not format {properties.parent}: {''.join(reason)} - `just reset` starts afresh."
        )


def lock() -> None:
    """Download the jars of the pom and write their checksums to `jars.sha256`."""
    with tempfile.TemporaryDirectory() as temporary:
        download = Path(temporary) / "jars"
        _copy_dependencies(download)
        LOCK.write_text("".join(f"{digest}  {name}\n" for name, digest in _digests(download).items()))


if __name__ == "__main__":
    if sys.argv[1:] != ["lock"]:
        raise SystemExit("usage: python -m deploy.local.kafka lock")
    lock()
