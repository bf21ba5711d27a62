"""The messages of a recorded Binance USD-M futures capture, under readable names.

In: one line, ``<local time, ns> <JSON>``: a message of the combined stream (``{"stream": …, "data": {…}}``) or the
answer of the REST depth endpoint. Out: one of four typed messages; decimals stay the venue's text. No state.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from simulator.capture import OtherStream
from simulator.venue_book import Level

_KNOWN = ("trade", "bookTicker", "depthUpdate")


_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""Since the epoch, to the end of the year 9999."""
_Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
_VenueId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Trade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    trade_id: _VenueId = msgspec.field(name="t")
    price: str = msgspec.field(name="p")
    quantity: str = msgspec.field(name="q")
    buyer_is_maker: bool = msgspec.field(name="m")
    """True when the seller was the aggressor."""


class BookTicker(msgspec.Struct, tag_field="e", tag="bookTicker", gc=False):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    bid: str = msgspec.field(name="b")
    bid_size: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: str = msgspec.field(name="A")


class DepthUpdate(msgspec.Struct, tag_field="e", tag="depthUpdate"):
    symbol: _Symbol = msgspec.field(name="s")
    time_ms: _Milliseconds = msgspec.field(name="T")
    first: _VenueId = msgspec.field(name="U")
    last: _VenueId = msgspec.field(name="u")
    previous: _VenueId = msgspec.field(name="pu")
    bids: list[Level] = msgspec.field(name="b")
    asks: list[Level] = msgspec.field(name="a")


class _StreamLine(msgspec.Struct):
    data: Trade | BookTicker | DepthUpdate


class Snapshot(msgspec.Struct):
    last_update_id: _VenueId = msgspec.field(name="lastUpdateId")
    time_ms: _Milliseconds = msgspec.field(name="T")
    bids: list[Level]
    asks: list[Level]


_decode_stream = msgspec.json.Decoder(_StreamLine).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode


def parse_line(line: bytes) -> Trade | BookTicker | DepthUpdate | Snapshot:
    """One line of a capture, with or without the local time before the JSON.

    Raises:
        OtherStream: a sound line of a stream that has no event here.
        msgspec.DecodeError: not JSON, or (ValidationError) not what the venue documents for its stream.
        UnicodeDecodeError: a text is not UTF-8.
        RecursionError: nested deeper than any message of the venue.
    """
    payload = line if line.startswith(b"{") else line[line.find(b" ") + 1 :]
    if b'"lastUpdateId"' in payload[:64]:
        return _decode_snapshot(payload)
    try:
        return _decode_stream(payload).data
    except msgspec.ValidationError:
        name = _event_name(payload)
        if name is None or name in _KNOWN:
            raise
        raise OtherStream(name) from None


def _event_name(payload: bytes) -> str | None:
    line: Any = msgspec.json.decode(payload)
    data = line.get("data") if isinstance(line, dict) else None
    name = data.get("e") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None
