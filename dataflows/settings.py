"""Settings of the bridge and the dataflows: environment variables ``TICKHOUSE_<FIELD>``, see each field's line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class StreamSettings(BaseSettings):
    """Read once per process; every process of this package takes the same class."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", extra="ignore")

    data_dir: Path = Field(
        default=Path(".tickhouse"), description="Folder that everything lives under: state, tables, logs."
    )

    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="Address of the Kafka broker(s).")
    kafka_config: dict[str, str] = Field(
        default_factory=dict, description='Extra librdkafka properties as JSON, e.g. {"security.protocol":"SSL"}.'
    )
    kafka_replication: int = Field(default=1, ge=1, description="Replication factor of topics created here.")
    kafka_retention_bytes: int = Field(
        default=-1, ge=-1, description="retention.bytes of a raw or derived partition; -1 keeps all of its time."
    )

    ws_url: str = Field(default="ws://127.0.0.1:8765", description="WebSocket address of the exchange.")
    bridge_pending_max: int = Field(
        default=20_000,
        ge=1,
        description="Frames sent to Kafka and not acknowledged at which the bridge stops reading the socket.",
    )

    source_batch: int = Field(
        default=8192, ge=1, description="Messages a dataflow takes from a partition at once, at most."
    )
    idle_close_seconds: float = Field(
        default=10.0, gt=0, description="Wall-clock silence after which open windows are published early."
    )
    window_keep_seconds: int = Field(
        default=3600, ge=60, description="Event time for which a closed window can still be corrected."
    )
    window_ahead_seconds: float = Field(
        default=300.0, gt=0, description="A trade further ahead of the others and of Kafka's clock is refused."
    )
    dimension_refresh_seconds: float = Field(
        default=30.0, gt=0, description="How often enrichment looks for a newer dim_symbol."
    )
    bronze_commit_seconds: float = Field(
        default=5.0, gt=0, description="Longest wait between two Iceberg commits of a bronze table."
    )

    bridge_metrics_port: int = Field(default=9102, description="Port of the bridge's /metrics.")
    bronze_metrics_port: int = Field(default=9103, description="Port of the bronze flow's /metrics.")
    enrichment_metrics_port: int = Field(default=9104, description="Port of the enrichment flow's /metrics.")
    vwap_metrics_port: int = Field(default=9105, description="Port of the vwap flow's /metrics.")
    alerts_metrics_port: int = Field(default=9106, description="Port of the alerts flow's /metrics.")
    orderbook_metrics_port: int = Field(default=9107, description="Port of the orderbook flow's /metrics.")

    def kafka(self) -> dict[str, str | int | float | bool]:
        """Properties that every librdkafka client of this package starts from."""
        return {"bootstrap.servers": self.kafka_bootstrap, "log.connection.close": False, **self.kafka_config}
