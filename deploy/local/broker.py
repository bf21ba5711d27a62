"""Which Kafka-speaking broker runs here, how it is started, and what it promises.

In: the setting `broker` (auto, kafka, embedded or HOST:PORT). Out: an address, and for a broker of our own the
command that runs it in the foreground. The rest of the system only ever sees the address.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from deploy.local import kafka
from deploy.local.errors import LaunchError

_ADDRESS = re.compile(r"^[^\s:,]+:\d{1,5}(,[^\s:,]+:\d{1,5})*$")


@dataclass(frozen=True)
class Broker:
    """A broker that is chosen."""

    kind: str
    """kafka, embedded or external."""
    address: str
    """Bootstrap servers, HOST:PORT[,HOST:PORT…]; those of `commands` in the same order."""
    promise: str
    """One sentence on what an acknowledgement is worth."""
    commands: list[list[str]] = field(default_factory=list)
    """One for each process of it; none when it runs elsewhere."""


def resolve(wanted: str, cache: Path) -> str:
    """Turn `auto` into `kafka` (Java 17+ and either the jars or Maven) or `embedded`; check the rest.

    Raises:
        LaunchError: the choice is not understood, or this machine cannot run it.
    """
    if wanted == "auto":
        can_fetch = kafka.cached(cache) or shutil.which("mvn") is not None
        return "kafka" if can_fetch and kafka.java_major() >= kafka.OLDEST_JAVA else "embedded"
    if wanted == "kafka" and kafka.java_major() < kafka.OLDEST_JAVA:
        raise LaunchError(
            f"broker=kafka needs Java {kafka.OLDEST_JAVA} or newer on the PATH "
            f"(found {kafka.java_major() or 'none'}): install one, or use broker=embedded."
        )
    if wanted in ("kafka", "embedded") or _ADDRESS.match(wanted):
        return wanted
    raise LaunchError(f"broker={wanted} is not understood: use auto, kafka, embedded or HOST:PORT.")


def prepare(wanted: str, cache: Path, data_dir: Path, ports: Sequence[kafka.Ports]) -> Broker:
    """Fetch and format what the chosen broker needs, and say how to run it: one node for each of `ports`.

    Raises:
        LaunchError: as `resolve`, a download or a format failed, or only Apache Kafka runs as several nodes.
    """
    kind = resolve(wanted, cache)
    if kind == "kafka":
        address = ",".join(f"127.0.0.1:{each.broker}" for each in ports)
        commands = kafka.prepare(kafka.fetch(cache), data_dir, ports)
        nodes = "one node" if len(ports) == 1 else f"{len(ports)} nodes, any one of which may die meanwhile"
        promise = (
            f"Apache Kafka {kafka.version()}, {nodes}: what it acknowledged survives the death of any process; "
            "only a power cut or a broken disk can lose it."
        )
        return Broker("kafka", address, promise, commands)
    if len(ports) > 1:
        raise LaunchError(
            f"brokers={len(ports)} are nodes of Apache Kafka, and the broker here is {kind}: "
            "start with broker=kafka, or with brokers=1."
        )
    if kind == "embedded":
        promise = (
            "noida-db, for development only: it acknowledges before it writes, so killing it loses recent "
            "messages; install Java 17 and Maven for Apache Kafka itself."
        )
        port = ports[0].broker
        return Broker("embedded", f"127.0.0.1:{port}", promise, [_noida_command(data_dir, port)])
    return Broker("external", kind, f"the broker at {kind} runs elsewhere: its own settings decide what it keeps.")


def _noida_command(data_dir: Path, port: int) -> list[str]:
    package = importlib.util.find_spec("noida_db")
    if package is None or package.origin is None:
        raise LaunchError("the package noida-db is not installed: run `uv sync`, or use broker=HOST:PORT.")
    # The binary itself, not the Python script around it: signals must reach the broker.
    binary = Path(package.origin).parent / "noida-db"
    binary.chmod(0o755)  # the wheel does not mark it as executable
    home = data_dir / "kafka-embedded"
    home.mkdir(parents=True, exist_ok=True)
    where = ["--host", "127.0.0.1", "--kafka-port", str(port), "--data-dir", str(home)]
    return [str(binary), "start", "--only", "kafka", *where]


def answers(address: str, timeout: float = 2.0) -> bool:
    """Whether a broker at `address` answers within `timeout` seconds, and has all that it is to have a copy of."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 2000})
    try:
        cluster = admin.list_topics(timeout=timeout)
    except KafkaException:  # not reachable yet: that is the answer
        return False
    port = int(address.rpartition(":")[2])
    own = {node.id for node in cluster.brokers.values() if node.port == port}
    partitions = [part for topic in cluster.topics.values() for part in topic.partitions.values()]
    return bool(own) and all(own & set(part.replicas) <= set(part.isrs) for part in partitions)
