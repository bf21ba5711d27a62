"""Settings of the API: environment variables ``TICKHOUSE_…`` in, one checked object out."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIN_KEY_CHARACTERS = 16
"""Shorter keys can be guessed over the network."""


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses: nobody but this machine can connect."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class ApiSettings(BaseSettings):
    """What the API listens on, whom it serves and how much a single request may ask for."""

    model_config = SettingsConfigDict(env_prefix="TICKHOUSE_", env_file=None, extra="ignore", frozen=True)

    data_dir: Path = Field(default=Path(".tickhouse"), description="Directory everything is kept under.")
    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka brokers, HOST:PORT, comma separated."
    )
    kafka_config: dict[str, str] = Field(
        default={}, description="JSON object of extra librdkafka properties, e.g. security.protocol."
    )
    api_host: str = Field(
        default="127.0.0.1", description="Address the API binds to; others need TICKHOUSE_API_KEYS."
    )
    api_port: int = Field(default=8000, ge=1, le=65535, description="Port of the API and the live page.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(), description="Keys accepted in the header X-API-Key, comma separated, 16 characters or more."
    )
    api_allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Further host names browsers may use for this API, comma separated."
    )
    api_threads: int = Field(default=16, ge=1, le=256, description="Requests answered at the same time.")
    api_live_streams: int = Field(default=64, ge=1, le=1000, description="Live streams open at the same time.")
    api_live_queue: int = Field(
        default=5000, ge=10, description="Events a live stream may lag behind before it is cut off."
    )
    api_live_warmup: int = Field(
        default=5000, ge=0, description="Messages read back per partition at start, to fill the live page."
    )
    api_body_bytes: int = Field(default=64_000, ge=1000, description="Largest request body, bytes.")
    api_query_depth: int = Field(default=8, ge=1, description="Deepest GraphQL selection that is answered.")
    api_query_seconds: float = Field(
        default=10.0, gt=0, description="Longest time a single query may take, seconds."
    )

    @field_validator("api_keys", "api_allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """``a,b`` → two entries, so that no JSON has to be written into an environment variable."""
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @model_validator(mode="after")
    def _keys_guard_open_addresses(self) -> Self:
        if any(len(key.get_secret_value()) < MIN_KEY_CHARACTERS for key in self.api_keys):
            raise ValueError(
                f"TICKHOUSE_API_KEYS has a key of fewer than {MIN_KEY_CHARACTERS} characters; "
                'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        if not self.api_keys and not is_loopback(self.api_host):
            raise ValueError(
                f"TICKHOUSE_API_HOST={self.api_host} is reachable from other machines, but TICKHOUSE_API_KEYS is "
                "empty; set at least one key, or bind to 127.0.0.1"
            )
        return self
