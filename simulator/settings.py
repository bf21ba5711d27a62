"""Settings of the exchange process, from environment variables that start with ``TICKHOUSE_``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]


class ExchangeSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", env_ignore_empty=True, frozen=True)

    data_dir: Path = Field(Path(".tickhouse"), description="Where everything is kept; the journal in exchange/.")
    exchange_host: str = Field("127.0.0.1", description="Address the exchange listens on.")
    exchange_port: Port = Field(8765, description="WebSocket port of the exchange.")
    exchange_metrics_port: Port = Field(9101, description="Prometheus port of the exchange.")
    exchange_feed: Literal["simulated", "replay"] = Field(
        "simulated", description="What the exchange prints: its own market, or a recorded one."
    )
    exchange_config: Path | None = Field(
        None, description="Market configuration (symbols, agents), TOML; unset: simulator/config.toml."
    )
    exchange_symbols: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Symbols of the market that trade, with commas between; unset: all."
    )
    exchange_seed: int = Field(1, description="Seed of the simulated market, together with the start time.")
    exchange_activity: float = Field(
        1.0, gt=0, le=100, description="Multiplies how often agents act; 1 is about 1,050 events a second."
    )
    exchange_speed: float = Field(
        1.0, ge=0, description="Market seconds a second of the simulated market; 0 = as fast as it goes."
    )
    exchange_duration_seconds: float = Field(
        0, ge=0, description="Market seconds after which the simulated market ends; 0 = never."
    )
    exchange_halt_scale: float = Field(
        1.0, gt=0, description="Multiplies how long circuit breakers halt trading (300, 600, 900 s)."
    )
    exchange_max_clients: int = Field(100, ge=1, description="Clients served at once; others get HTTP 503.")
    exchange_send_timeout_seconds: float = Field(
        30, gt=0, description="A client that takes nothing for this long is disconnected; it can resume."
    )
    exchange_journal_max_mb: int = Field(
        1024,
        ge=16,
        description="Limit of the journal on disk, MiB; a market with an end is kept whole.",
    )
    replay_file: Path | None = Field(None, description="Recorded market to replay.")
    replay_speed: float = Field(1.0, ge=0, description="Speed of the replay; 0 = as fast as it goes.")

    @field_validator("exchange_symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _feed_is_complete(self) -> Self:
        if self.exchange_feed == "replay" and self.replay_file is None:
            raise ValueError("a replay needs TICKHOUSE_REPLAY_FILE (or --file)")
        if self.exchange_feed == "simulated" and not self.exchange_speed and not self.exchange_duration_seconds:
            raise ValueError("speed 0 needs an end: set TICKHOUSE_EXCHANGE_DURATION_SECONDS (or --duration)")
        return self

    @property
    def journal_dir(self) -> Path:
        return self.data_dir / "exchange" / "journal"

    @property
    def feed_ends(self) -> bool:
        """Whether the feed is finite; then its journal is kept whole."""
        return self.exchange_feed == "replay" or self.exchange_duration_seconds > 0

    @property
    def speed(self) -> float:
        """Of the chosen feed."""
        return self.replay_speed if self.exchange_feed == "replay" else self.exchange_speed
