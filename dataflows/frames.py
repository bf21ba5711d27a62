"""Decoding what the hot flows need of a frame, fast and exact.

In: frames of raw.trades, raw.quotes … as bytes. Out: typed structs; amounts become integers in units of 1e-8,
times integers in microseconds. The bridge has validated the frames; what does not decode all the same raises
:class:`FrameError` and ends in the dead letters.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Literal

import msgspec

DECIMALS = 8
UNIT = 100_000_000
"""Prices and quantities are counted in units of 1e-8."""
_MAX_UNITS = 10**18
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


REFUSED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes it cannot take; the last for brackets nested too deep."""


class FrameError(ValueError):
    """A frame that does not say what a flow needs; the message is the reason that goes into the dead letter."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    trade_id: str
    symbol: str
    price: Decimal
    quantity: Decimal
    buy_order_id: str
    sell_order_id: str
    buyer_agent_id: str
    seller_agent_id: str
    is_aggressive_buy: bool
    timestamp: datetime | None = None
    sequence: int | None = None


class TradeFrame(msgspec.Struct, frozen=True, gc=False):
    data: Trade
    timestamp: datetime | None = None
    """Of older frames, where ``data`` has none."""


_TRADE = msgspec.json.Decoder(TradeFrame)


def decode_trade(frame: bytes) -> tuple[Trade, int]:
    """A trade and its event time in µs.

    Raises:
        FrameError: not a trade.
    """
    try:
        decoded = _TRADE.decode(frame)
    except REFUSED as error:
        raise FrameError(str(error)) from error
    return decoded.data, event_time(decoded.data.timestamp, decoded.timestamp)


SEQUENCES = 1 << 37
"""A smaller sequence leaves room for the time in a trade's identity."""
DOUBLES_BELOW = 2e7
"""Below it doubles are closer to each other than 0.5e-8, so at most one multiple of 1e-8 is a given double."""


class _Print(msgspec.Struct, frozen=True, gc=False):
    """What the windows need of a trade, as nearly all frames have it."""

    symbol: str
    timestamp: datetime
    sequence: Annotated[int, msgspec.Meta(ge=0, lt=SEQUENCES)]
    price: float
    quantity: float
    is_aggressive_buy: bool


class _PrintFrame(msgspec.Struct, frozen=True, gc=False):
    data: _Print


_PRINT = msgspec.json.Decoder(_PrintFrame)


class _NotExactError(Exception):
    """A double does not tell which amount is meant."""


class _Amounts(dict[float, int]):
    """A double → the units of 1e-8 that it stands for. A market has few prices and sizes at a time."""

    def __missing__(self, value: float) -> int:
        whole = round(value * UNIT) if 0 < value < DOUBLES_BELOW else 0
        if not whole or whole / UNIT != value:
            raise _NotExactError
        if len(self) >= _AMOUNTS_MAX:
            self.clear()
        self[value] = whole
        return whole


_AMOUNTS_MAX = 65_536
_AMOUNTS = _Amounts()


Print = tuple[str, int, int, int, int, bool, int, int]
"""symbol, event time µs, sequence (0 = none), price, quantity, aggressive buy, identity, place among the frames

The identity is the same for copies of a frame: from sequence and time, or from the trade's id where an exchange
does not number its events. Two trades have one in common by chance with a probability of 2**-63."""


def decode_prints(frames: Iterable[bytes], begin: int = 0) -> tuple[list[Print], dict[int, str]]:
    """The trades among some frames as they are printed on the tape, and why the others are none, by place.

    Amounts are exact. One with so many digits that as a double it cannot be told from one with eight decimals is
    taken for that.

    Args:
        begin: place of the first.
    """
    prints: list[Print] = []
    reasons: dict[int, str] = {}
    decode, amounts, epoch, append = _PRINT.decode, _AMOUNTS, _EPOCH, prints.append
    for place, frame in enumerate(frames, begin):
        try:
            trade = decode(frame).data
            since = trade.timestamp - epoch
            time_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            price, quantity, sequence = amounts[trade.price], amounts[trade.quantity], trade.sequence
            identity = sequence << 26 ^ time_us
            append((trade.symbol, time_us, sequence, price, quantity, trade.is_aggressive_buy, identity, place))
        except (*REFUSED, TypeError, _NotExactError):  # TypeError: a time without a zone
            try:
                append(_print(frame, place))
            except FrameError as error:
                reasons[place] = str(error)
    return prints, reasons


def _print(frame: bytes, place: int) -> Print:
    """A trade of any form.

    Raises:
        FrameError: not a trade, or an amount that is not exact in units of 1e-8.
    """
    trade, time_us = decode_trade(frame)
    price, quantity, sequence = units(trade.price), units(trade.quantity), trade.sequence
    if sequence is not None and not -(1 << 63) <= sequence < 1 << 63:
        raise FrameError(f"sequence {sequence} does not fit 64 bits")
    if sequence is not None and 0 <= sequence < SEQUENCES:
        identity = sequence << 26 ^ time_us
    else:
        digest = blake2b(f"{trade.symbol}|{trade.trade_id}".encode(), digest_size=8).digest()
        identity = ~(int.from_bytes(digest, "big") >> 1)  # negative, so that it is none of the others
    return trade.symbol, time_us, sequence or 0, price, quantity, trade.is_aggressive_buy, identity, place


def event_time(inner: datetime | None, outer: datetime | None = None) -> int:
    """Microseconds since the epoch; of two times the one inside ``data`` counts.

    Raises:
        FrameError: neither is there, or it has no time zone.
    """
    moment = inner if inner is not None else outer
    if moment is None:
        raise FrameError("no timestamp")
    if moment.tzinfo is None:
        raise FrameError("the timestamp has no time zone")
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def units(amount: Decimal) -> int:
    """An amount in units of 1e-8, exactly.

    Raises:
        FrameError: not a positive number below 1e10, or it has more than 8 decimals.
    """
    if not amount.is_finite():
        raise FrameError(f"{amount} is not a finite number")
    whole = int(amount.scaleb(8)) if -9 < amount.adjusted() < 11 else 0  # scaling may overflow beyond
    if not 0 < whole < _MAX_UNITS:
        raise FrameError(f"{amount} is not between 1e-8 and 1e10")
    if Decimal(whole).scaleb(-8) != amount:  # compares exactly, while the scaling above may have rounded
        raise FrameError(f"{amount} has more than 8 decimals")
    return whole


_SHORT_FROM, _SHORT_BELOW = 10**4, 10**15
"""The shortest decimal that is read as the same double is the number itself where it has at most 15 digits (David
Gay, 1990); below 1e-4 Python prints an exponent."""


def number(value: int, decimals: int = 8) -> str:
    """``value * 10**-decimals`` as a JSON number without trailing zeros, exactly."""
    if decimals == DECIMALS and _SHORT_FROM <= value < _SHORT_BELOW:
        return repr(value / UNIT).removesuffix(".0")
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**decimals)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{decimals}d}".rstrip("0")


def encode(record: Any) -> bytes:
    """JSON with exact numbers."""
    return _ENCODER.encode(record)


_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Quote(msgspec.Struct, frozen=True, gc=False):
    event_id: str
    symbol: str
    best_bid: Decimal | None = None
    best_ask: Decimal | None = None
    timestamp: datetime | None = None


class QuoteFrame(msgspec.Struct, frozen=True, gc=False):
    data: Quote
    timestamp: datetime | None = None


class Halt(msgspec.Struct, frozen=True, gc=False):
    """The fields of TradingHalt and TradingResume together; of a resume the prices are None."""

    symbol: str
    level: int
    halt_duration_secs: int
    event_id: str | None = None
    reason: str | None = None
    trigger_price: Decimal | None = None
    reference_price: Decimal | None = None
    decline_pct: Decimal | None = None
    halted_at: datetime | None = None
    timestamp: datetime | None = None


class HaltFrame(msgspec.Struct, frozen=True, gc=False):
    event_type: Literal["TradingHalt", "TradingResume"]
    data: Halt
    timestamp: datetime | None = None


_QUOTE = msgspec.json.Decoder(QuoteFrame)
_HALT = msgspec.json.Decoder(HaltFrame)


def decode_quote(frame: bytes) -> tuple[Quote, int]:
    """A quote and its event time in µs.

    Raises:
        FrameError: not a quote.
    """
    try:
        decoded = _QUOTE.decode(frame)
    except REFUSED as error:
        raise FrameError(str(error)) from error
    return decoded.data, event_time(decoded.data.timestamp, decoded.timestamp)


def decode_halt(frame: bytes, written_ms: int) -> tuple[HaltFrame, int]:
    """A halt or resume and its event time in µs; ``written_ms`` stands in where an older exchange sends none.

    Raises:
        FrameError: neither.
    """
    try:
        decoded = _HALT.decode(frame)
    except REFUSED as error:
        raise FrameError(str(error)) from error
    if decoded.data.timestamp is None and decoded.timestamp is None:
        return decoded, written_ms * 1000
    return decoded, event_time(decoded.data.timestamp, decoded.timestamp)
