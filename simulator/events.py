"""The wire contract: what the exchange prints, one JSON object per event.

In: one frame, ``{"event_type": "<one of nine>", "data": {...}}`` as UTF-8 JSON.
Out: a validated :data:`MarketEvent`, or :class:`pydantic.ValidationError` that says which rule broke.

These models are the contract that every other part of the system validates against. A frame of an older
exchange, without ``sequence`` and ``event_id``/``timestamp`` on halts, is valid too: fields added later have
defaults. Unknown fields are ignored, so that a newer exchange does not break an older reader.

Prices and quantities are :class:`~decimal.Decimal`: whole shares from the exchange, fractions from the feeds of
markets that trade them. Times are aware datetimes in UTC, microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)

from simulator.book import TimeInForce

MAX_FRAME_BYTES = 1_000_000
"""Frames above this are refused before they are parsed; Kafka's own default limit for a message is 1 MiB."""


class Side(StrEnum):
    BUY = "Buy"
    SELL = "Sell"


class OrderType(StrEnum):
    MARKET = "Market"
    LIMIT = "Limit"


class AgentType(StrEnum):
    """How an agent announces itself; noise and informed traders look like retail traders from outside."""

    RETAIL = "RetailTrader"
    INSTITUTIONAL = "InstitutionalInvestor"
    MARKET_MAKER = "MarketMaker"
    HIGH_FREQUENCY = "HighFrequencyTrader"


class CircuitBreakerLevel(IntEnum):
    """7, 13 and 20 % below the reference price."""

    LEVEL_1 = 1
    LEVEL_2 = 2
    LEVEL_3 = 3


def _no_number(value: Any) -> Any:
    """Times on the wire are text: Pydantic alone would also take a number as seconds since the epoch."""
    if isinstance(value, (int, float)):
        raise ValueError("a timestamp is an RFC 3339 text, not a number")
    return value


Symbol = Annotated[str, Field(min_length=1, max_length=32)]
Id = Annotated[str, Field(min_length=1, max_length=128)]
Price = Annotated[Decimal, Field(gt=0, lt=Decimal(10) ** 10, allow_inf_nan=False)]
Quantity = Annotated[Decimal, Field(gt=0, lt=Decimal(10) ** 10, allow_inf_nan=False)]
QuantityOrZero = Annotated[Decimal, Field(ge=0, lt=Decimal(10) ** 10, allow_inf_nan=False)]
Timestamp = Annotated[AwareDatetime, BeforeValidator(_no_number)]
Sequence = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Event(_Model):
    event_id: Id
    timestamp: Timestamp
    """Event time, UTC, microseconds."""
    sequence: Sequence | None = None
    """Position in the exchange session, +1 per event; None from an exchange that does not number its events."""


class OrderPlaced(_Event):
    order_id: Id
    symbol: Symbol
    side: Side
    order_type: OrderType
    price: Price | None = None
    """None for a market order."""
    quantity: Quantity
    agent_id: Id
    agent_type: AgentType
    time_in_force: TimeInForce | None = None
    """None: until cancelled; a market order: immediate or cancel, but it waits for an auction."""
    replaces: Id | None = None
    """The order, just cancelled as Replaced, whose place this one takes."""

    @model_validator(mode="after")
    def _limit_has_price(self) -> Self:
        if self.order_type is OrderType.LIMIT and self.price is None:
            raise ValueError("a limit order needs a price")
        return self


class OrderCancelled(_Event):
    order_id: Id
    symbol: Symbol
    side: Side
    price: Price | None = None
    """None for a market order."""
    remaining_quantity: QuantityOrZero
    """What is taken out of the order: all that was left, or a part of it (Reduced, SelfTradePrevention)."""
    agent_id: Id
    reason: Annotated[str, Field(max_length=128)]
    """AgentCancelled, Expired, TradingHalt, SelfTradePrevention, Reduced, Replaced, Unfilled, PostOnly …"""


class TradeExecuted(_Event):
    trade_id: Id
    symbol: Symbol
    price: Price
    quantity: Quantity
    buy_order_id: Id
    sell_order_id: Id
    buyer_agent_id: Id
    seller_agent_id: Id
    is_aggressive_buy: Annotated[bool, Field(strict=True)]
    """True when the buyer was the aggressor (taker)."""


class QuoteUpdate(_Event):
    """Top of book; a side without orders has price None and size 0."""

    symbol: Symbol
    best_bid: Price | None = None
    best_bid_size: QuantityOrZero = Decimal(0)
    best_ask: Price | None = None
    best_ask_size: QuantityOrZero = Decimal(0)
    spread: Annotated[Decimal, Field(allow_inf_nan=False)] | None = None


class PriceLevel(_Model):
    price: Price
    quantity: Quantity
    order_count: Annotated[int, Field(ge=0)] = 0


class OrderBookSnapshot(_Event):
    symbol: Symbol
    bids: Annotated[list[PriceLevel], Field(max_length=1000)]
    """Best (highest) first."""
    asks: Annotated[list[PriceLevel], Field(max_length=1000)]
    """Best (lowest) first."""
    sequence_number: Sequence | None = None

    @model_validator(mode="after")
    def _levels_sorted(self) -> Self:
        if any(a.price <= b.price for a, b in zip(self.bids, self.bids[1:], strict=False)):
            raise ValueError("bids must fall strictly from the best price down")
        if any(a.price >= b.price for a, b in zip(self.asks, self.asks[1:], strict=False)):
            raise ValueError("asks must rise strictly from the best price up")
        return self


class MarketStats(_Event):
    """Session statistics of one symbol."""

    symbol: Symbol
    open: Price
    high: Price
    low: Price
    close: Price
    volume: QuantityOrZero
    trade_count: Annotated[int, Field(ge=0)]
    vwap: Price


class TradingHalt(_Model):
    event_id: Id | None = None
    timestamp: Timestamp | None = None
    sequence: Sequence | None = None
    symbol: Symbol
    reason: Annotated[str, Field(max_length=128)]
    level: CircuitBreakerLevel
    trigger_price: Price
    reference_price: Price
    decline_pct: Annotated[Decimal, Field(allow_inf_nan=False)]
    """Percent, 7.0 is seven percent."""
    halt_duration_secs: Annotated[int, Field(ge=0)]


class TradingResume(_Model):
    event_id: Id | None = None
    timestamp: Timestamp | None = None
    sequence: Sequence | None = None
    symbol: Symbol
    halted_at: Timestamp
    halt_duration_secs: Annotated[int, Field(ge=0)]
    level: CircuitBreakerLevel


class AgentAction(_Event):
    """Why an agent did what it did."""

    agent_id: Id
    agent_type: AgentType
    symbol: Symbol
    action: Annotated[str, Field(max_length=128)]
    decision_factors: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=64)]


class _Envelope(_Model):
    timestamp: Timestamp | None = None
    """Some older frames carry the time here instead of inside ``data``."""

    @model_validator(mode="before")
    @classmethod
    def _lift_timestamp(cls, value: Any) -> Any:
        """An envelope-level timestamp counts where ``data`` has none."""
        if isinstance(value, dict) and value.get("timestamp") is not None:
            data = value.get("data")
            if isinstance(data, dict) and data.get("timestamp") is None:
                return {**value, "data": {**data, "timestamp": value["timestamp"]}}
        return value


class OrderPlacedFrame(_Envelope):
    event_type: Literal["OrderPlaced"]
    data: OrderPlaced


class OrderCancelledFrame(_Envelope):
    event_type: Literal["OrderCancelled"]
    data: OrderCancelled


class TradeExecutedFrame(_Envelope):
    event_type: Literal["TradeExecuted"]
    data: TradeExecuted


class QuoteUpdateFrame(_Envelope):
    event_type: Literal["QuoteUpdate"]
    data: QuoteUpdate


class OrderBookSnapshotFrame(_Envelope):
    event_type: Literal["OrderBookSnapshot"]
    data: OrderBookSnapshot


class MarketStatsFrame(_Envelope):
    event_type: Literal["MarketStats"]
    data: MarketStats


class TradingHaltFrame(_Envelope):
    event_type: Literal["TradingHalt"]
    data: TradingHalt


class TradingResumeFrame(_Envelope):
    event_type: Literal["TradingResume"]
    data: TradingResume


class AgentActionFrame(_Envelope):
    event_type: Literal["AgentAction"]
    data: AgentAction


MarketEvent = Annotated[
    OrderPlacedFrame
    | OrderCancelledFrame
    | TradeExecutedFrame
    | QuoteUpdateFrame
    | OrderBookSnapshotFrame
    | MarketStatsFrame
    | TradingHaltFrame
    | TradingResumeFrame
    | AgentActionFrame,
    Field(discriminator="event_type"),
]

EVENT_TYPES = (
    "OrderPlaced",
    "OrderCancelled",
    "TradeExecuted",
    "QuoteUpdate",
    "OrderBookSnapshot",
    "MarketStats",
    "TradingHalt",
    "TradingResume",
    "AgentAction",
)

_ADAPTER: TypeAdapter[MarketEvent] = TypeAdapter(MarketEvent)


def parse_frame(frame: bytes | str) -> MarketEvent:
    """Validate one frame.

    Raises:
        pydantic.ValidationError: not JSON, not an object, an unknown ``event_type``, or a broken rule.
    """
    return _ADAPTER.validate_json(frame)


def format_timestamp(epoch_us: int) -> str:
    """Microseconds since the epoch → RFC 3339 UTC with exactly six decimals, as every event carries it."""
    seconds, micros = divmod(epoch_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC).strftime('%Y-%m-%dT%H:%M:%S')}.{micros:06d}Z"
