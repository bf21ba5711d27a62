"""Settings of the local launcher: where data lives, which broker, and every port.

In: environment variables `TICKHOUSE_…` (and `.env` through `just`). Out: one immutable object that the
launcher turns into the environment of each service, so that what `just up` prints is what the services use.

Each port has its own setting. `TICKHOUSE_PORT_BASE` moves all of them at once, so that a second instance
(with its own `TICKHOUSE_DATA_DIR`) can run beside the first; a port set by hand still wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_PORTS: dict[str, int] = {
    "api_port": 8000,
    "prefect_port": 4200,
    "prometheus_port": 9099,  # 9090 is where a distribution starts its own
    "exchange_port": 8765,
    "kafka_port": 9092,
    "kafka_controller_port": 9094,
    "exchange_metrics_port": 9101,
    "bridge_metrics_port": 9102,
    "bronze_metrics_port": 9103,
    "enrichment_metrics_port": 9104,
    "vwap_metrics_port": 9105,
    "alerts_metrics_port": 9106,
    "orderbook_metrics_port": 9107,
    "flows_metrics_port": 9108,
    "kafka_2_port": 9095,
    "kafka_3_port": 9096,
    "kafka_2_controller_port": 9097,
    "kafka_3_controller_port": 9098,
    "s3_port": 8333,
    "iceberg_port": 8181,
    "seaweed_master_port": 9333,
    "seaweed_volume_port": 9340,
    "seaweed_filer_port": 8888,
    "seaweed_admin_port": 23646,
}
"""Port of each setting when nothing is said, in the order used with `port_base` (base + 0, base + 1, …)."""


def _port(name: str, what: str) -> Any:
    return Field(default=DEFAULT_PORTS[name], ge=1, le=65535, description=what)


def kafka_port_names(node: int) -> tuple[str, str]:
    """Settings of the ports of a Kafka node (from 1): the broker's and the controller's."""
    prefix = "kafka" if node == 1 else f"kafka_{node}"
    return f"{prefix}_port", f"{prefix}_controller_port"


class LocalSettings(BaseSettings):
    """What the launcher needs to know. Every field is an environment variable `TICKHOUSE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", env_ignore_empty=True, frozen=True)

    data_dir: Path = Field(default=Path(".tickhouse"), description="Directory of all data, logs and state.")
    cache_dir: Path | None = Field(
        default=None, description="Directory of downloaded jars; <data_dir>/cache when unset."
    )
    broker: str = Field(
        default="auto", description="kafka, embedded, HOST:PORT, or auto (Kafka where Java is installed)."
    )
    brokers: Annotated[Literal[1, 3], BeforeValidator(int)] | None = Field(
        default=None,
        description="Nodes of Apache Kafka that the launcher starts: 1 or 3. Unset: as before, or 1.",
    )
    kafka_bootstrap: str | None = Field(
        default=None, description="Address of a running Kafka cluster; used when broker is auto."
    )
    storage: Literal["files", "s3"] | None = Field(
        default=None,
        description="Where tables are: files, or s3 (SeaweedFS, started here). Unset: as before, or files.",
    )
    start_seconds: float = Field(
        default=180.0, gt=0, description="How long `just up` waits for all services to be ready, in seconds."
    )
    drain_seconds: float = Field(
        default=60.0, ge=0, description="How long `just down` waits for the flows to catch up, in seconds."
    )
    port_base: int | None = Field(
        default=None, ge=1024, le=65500, description="First port of a block that holds every port."
    )

    api_port: int = _port("api_port", "Port of the API and the live page.")
    prefect_port: int = _port("prefect_port", "Port of Prefect's server and UI.")
    prometheus_port: int = _port("prometheus_port", "Port of Prometheus, where it is installed.")
    exchange_port: int = _port("exchange_port", "Port of the exchange's WebSocket.")
    kafka_port: int = _port("kafka_port", "Port of the broker that the launcher starts.")
    kafka_controller_port: int = _port("kafka_controller_port", "Port of the Kafka node's own controller.")
    exchange_metrics_port: int = _port("exchange_metrics_port", "Port of the exchange's metrics.")
    bridge_metrics_port: int = _port("bridge_metrics_port", "Port of the bridge's metrics.")
    bronze_metrics_port: int = _port("bronze_metrics_port", "Port of the bronze flow's metrics.")
    enrichment_metrics_port: int = _port("enrichment_metrics_port", "Port of the enrichment flow's metrics.")
    vwap_metrics_port: int = _port("vwap_metrics_port", "Port of the vwap flow's metrics.")
    alerts_metrics_port: int = _port("alerts_metrics_port", "Port of the alerts flow's metrics.")
    orderbook_metrics_port: int = _port("orderbook_metrics_port", "Port of the order book flow's metrics.")
    flows_metrics_port: int = _port("flows_metrics_port", "Port of the batch flows' metrics.")
    kafka_2_port: int = _port("kafka_2_port", "Port of the second of three brokers.")
    kafka_3_port: int = _port("kafka_3_port", "Port of the third.")
    kafka_2_controller_port: int = _port("kafka_2_controller_port", "Port of the second node's own controller.")
    kafka_3_controller_port: int = _port("kafka_3_controller_port", "Port of the third node's.")
    s3_port: int = _port("s3_port", "Port of S3, with storage=s3.")
    iceberg_port: int = _port("iceberg_port", "Port of the Iceberg REST catalog, with storage=s3.")
    seaweed_master_port: int = _port("seaweed_master_port", "Inner port of SeaweedFS; so are the next three.")
    seaweed_volume_port: int = _port("seaweed_volume_port", "Port of its volume server.")
    seaweed_filer_port: int = _port("seaweed_filer_port", "Port of its filer.")
    seaweed_admin_port: int = _port("seaweed_admin_port", "Port of its maintenance.")

    @model_validator(mode="before")
    @classmethod
    def _ports_from_base(cls, values: dict[str, Any]) -> dict[str, Any]:
        base = values.get("port_base")
        if base in (None, ""):
            return values
        block = {name: int(str(base)) + k for k, name in enumerate(DEFAULT_PORTS)}
        return {**block, **values}

    @property
    def root(self) -> Path:
        """Absolute data directory."""
        return self.data_dir.expanduser().resolve()

    @property
    def run_dir(self) -> Path:
        """Generated configuration and process state; worth nothing once the system is down."""
        return self.root / "run"

    @property
    def log_dir(self) -> Path:
        """One log file per service."""
        return self.root / "logs"

    @property
    def cache(self) -> Path:
        """Downloads that a reset keeps."""
        return (self.cache_dir or self.root / "cache").expanduser().resolve()

    def ports(self) -> dict[str, int]:
        """Every port by the name of its setting, in a fixed order."""
        return {name: int(getattr(self, name)) for name in DEFAULT_PORTS}

    def port_environment(self) -> dict[str, str]:
        """The ports as every package reads its own."""
        return {f"TICKHOUSE_{name.upper()}": str(port) for name, port in self.ports().items()}
