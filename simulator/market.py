"""The market's own configuration: ``config.toml`` → checked models.

Prices are read as :class:`~decimal.Decimal` and must be whole ticks of one cent, so nothing is rounded on the
way in.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TICKS_PER_DOLLAR = 100

Rate = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Interval = Annotated[int, Field(ge=10, le=3_600_000)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class MarketConfigError(ValueError):
    """config.toml is missing, is no TOML, or breaks a rule; the message says which."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Simulation(_Table):
    snapshot_interval_ms: Interval = 1000
    stats_interval_ms: Interval = 1000
    snapshot_levels: Annotated[int, Field(ge=1, le=100)] = 10
    explain_rate: Rate = 0.25


class AgentCounts(_Table):
    retail_traders: Count = 200
    institutional_investors: Count = 5
    market_makers: Count = 10
    hft_traders: Count = 15
    noise_traders: Count = 20
    informed_traders: Count = 8


class Waits(_Table):
    """Mean seconds between two decisions of one agent."""

    retail_traders: Positive
    institutional_investors: Positive
    market_makers: Positive
    hft_traders: Positive
    noise_traders: Positive
    informed_traders: Positive


class Value(_Table):
    volatility_scale: Positive = 1.0
    half_life_minutes: Positive = 20.0
    news_per_hour: Annotated[float, Field(ge=0, le=3600)] = 0.0
    news_move: Annotated[float, Field(ge=0, le=1)] = 0.0
    calm: Annotated[float, Field(ge=0.01, le=1)] = 1.0
    burst_interval_seconds: Annotated[float, Field(ge=1, le=86_400)] = 20.0
    burst_half_life_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 2.0


class Sessions(_Table):
    """The phases of a market day, in seconds; the next day follows at once on the one before."""

    pre_open_seconds: Annotated[float, Field(ge=0, le=86_400)] = 1.0
    """Orders rest unmatched; then the opening auction."""
    trading_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """0: trading never ends."""
    closing_call_seconds: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Orders rest unmatched; then the closing auction."""
    closed_seconds: Annotated[float, Field(gt=0, le=604_800)] = 60.0


class Halts(_Table):
    price_bands_percent: Literal[0, 5, 10] = 0
    """Limit-up/limit-down; 0: none."""


class DataQuality(_Table):
    duplicate_rate: Rate = 0.0
    out_of_order_rate: Rate = 0.0
    missing_data_rate: Rate = 0.0
    malformed_rate: Rate = 0.0
    late_rate: Rate = 0.0
    late_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    one_sided_rate: Rate = 0.0


class SymbolConfig(_Table):
    ticker: Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9.-]{0,15}$")]
    name: str
    initial_price: Annotated[Decimal, Field(gt=0, lt=1_000_000)]
    volatility: Annotated[float, Field(gt=0, le=5)]
    market_cap_category: Literal["large", "mid", "small"]

    @model_validator(mode="after")
    def _whole_ticks(self) -> Self:
        if self.initial_price * TICKS_PER_DOLLAR % 1:
            raise ValueError(f"initial_price {self.initial_price} is not a whole number of cents")
        return self

    @property
    def initial_ticks(self) -> int:
        return int(self.initial_price * TICKS_PER_DOLLAR)


class MarketConfig(_Table):
    simulation: Simulation
    agents: AgentCounts
    waits: Waits
    value: Value
    sessions: Sessions = Sessions()
    halts: Halts = Halts()
    data_quality: DataQuality = DataQuality()
    symbols: Annotated[list[SymbolConfig], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _tickers_differ(self) -> Self:
        tickers = [symbol.ticker for symbol in self.symbols]
        if len(set(tickers)) != len(tickers):
            raise ValueError("a ticker is listed twice")
        return self


DEFAULT_CONFIG = Path(__file__).with_name("config.toml")


def load_market(path: Path = DEFAULT_CONFIG) -> MarketConfig:
    """Read and check one file.

    Raises:
        MarketConfigError: with the file's path and what to correct.
    """
    try:
        text: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        return MarketConfig.model_validate(text)
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise MarketConfigError(f"market configuration {path}: {error}") from error
