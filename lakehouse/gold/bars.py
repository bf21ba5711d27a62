"""One-minute bars of a UTC day's trades, in one compiled pass; trades that come later are added. Pure.

In: batches of trades in any order. Out: a row for each symbol and minute with trades, with exact sums.

Open and close follow (timestamp, sequence), no sequence before any; the trade id decides between trades that agree
on both. Ids are the widest column and hardly ever needed, so they are read, in a second pass, only where the first
or the last trade of a bar is such a one.

Amounts are integers that count the last decimal, sums of them 128 bits wide in two halves; nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse.buffers import decimal_column, halves_added, micros, units
from lakehouse.compiled import compiled
from lakehouse.texts import Codes, Integers

MINUTE_US = 60_000_000
MINUTES = 1440
COLUMNS = (
    *("symbol", "timestamp", "sequence", "price", "quantity", "is_aggressive_buy"),
    *("company_name", "sector", "buyer_agent_id", "seller_agent_id"),
)
AGENTS = ("buyer_agent_id", "seller_agent_id")
TIED = ("symbol", "timestamp", "sequence", "trade_id", "price", "company_name", "sector")
STRINGS = ("symbol", "company_name", "sector", *AGENTS)
"""Of these, those that may come as dictionaries."""
_PRICE, _VOLUME = pa.decimal128(18, 8), pa.decimal128(28, 8)
_LOW, _SIGN = (1 << 32) - 1, -(1 << 63)
_MOST = 10**38 >> 64
"""Above it in the upper half, a number has more than 38 digits."""
_BAR = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("symbol", "minute", "open_time", "open_sequence", "open", "close_time", "close_sequence", "close"),
            *("high", "low", "trades", "volume_above", "volume_below", "buy_above", "buy_below"),
            *("value_high", "value_low", "open_tied", "close_tied", "close_row", "company", "sector"),
        )
    ]
)
"""Strings are numbered; sums have an upper and a lower part. ``_tied``: whether another trade has the same time
and sequence; ``close_row``: place of the last trade in its batch, -1 where that is not the one at hand."""

Trades = Callable[[Sequence[str]], Iterable[pa.RecordBatch]]
"""Names of columns → those of all trades of the day, in batches."""


def minute_bars(day: date, trades: Trades) -> pa.Table:
    """The bars of a day. ``company`` is that of a bar's last trade; ``agents`` says how many traded on the day.

    Raises:
        ValueError: a trade is of another day.
        OverflowError: the sum of a bar's prices times quantities does not fit 38 digits.
    """
    bars = DayBars(day)
    bars.add(trades(COLUMNS))
    bars.settle(trades)
    return bars.table()


class DayBars:
    """The bars of a day so far, see ``_BAR``, in the order of their first trades."""

    def __init__(self, day: date) -> None:
        self._first_minute = (day - date(1970, 1, 1)).days * MINUTES
        self._symbols, self._companies, self._sectors = (Codes[str | None]() for _ in range(3))
        self._place = np.full((0, MINUTES), -1, np.int32)
        """By symbol and minute, which bar."""
        self._bars = np.zeros(0, _BAR)
        self._count = 0
        self._agents = set[str]()

    def add(self, trades: Iterable[pa.RecordBatch]) -> None:
        """Add trades, :data:`COLUMNS` of them. Raises: see :func:`minute_bars`; the bars are of no use then."""
        for batch in trades:
            self._add(batch)

    def _add(self, trades: pa.RecordBatch) -> None:
        symbol, time = _coded(trades["symbol"], self._symbols), micros(trades["timestamp"])
        self._make_room(len(trades))
        self._of("close_row")[:] = -1
        self._count, wrong = _sum_up(
            *(symbol, time, _numbers(trades["sequence"]), units(trades["price"]), units(trades["quantity"])),
            trades["is_aggressive_buy"].fill_null(False).to_numpy(zero_copy_only=False),
            *(self._first_minute, self._place, self._bars, self._count),
        )
        if wrong >= 0:
            name, at = trades["symbol"][wrong], trades["timestamp"][wrong]
            if 0 <= at.value // MINUTE_US - self._first_minute < MINUTES:
                raise OverflowError(f"price x quantity of {name}'s minute of {at} comes to more than 38 digits")
            raise ValueError(f"a trade of {name} at {at} is in the file of another day: rebuild that of silver")
        for name in AGENTS:
            self._agents.update(pc.unique(trades[name]).to_pylist())
        closes = self._of("close_row")
        changed = np.flatnonzero(closes >= 0)
        last = trades.select(["company_name", "sector"]).take(pa.array(closes[changed]))
        self._of("company")[changed] = _coded(last["company_name"], self._companies)
        self._of("sector")[changed] = _coded(last["sector"], self._sectors)

    def _make_room(self, trades: int) -> None:
        """For the symbols, and for as many bars as the trades can add."""
        if len(self._place) < len(self._symbols):
            more = np.full((len(self._symbols) - len(self._place), MINUTES), -1, np.int32)
            self._place = np.concatenate([self._place, more])
        needed = min(self._count + trades, self._place.size)
        if len(self._bars) < needed:
            roomier = np.zeros(min(2 * needed, self._place.size), _BAR)
            roomier[: self._count] = self._bars[: self._count]
            self._bars = roomier

    def settle(self, trades: Trades) -> None:
        """Let trade ids decide where they have to, which is where trades agree that came since the last time.

        Args:
            trades: all that were added.
        """
        bars = {end: np.flatnonzero(self._of(f"{end}_tied")) for end in ("open", "close")}
        times = np.unique(np.concatenate([self._of(f"{end}_time")[tied] for end, tied in bars.items()]))
        if not len(times):
            return
        rows = pa.concat_tables(self._at(pa.array(times), batch) for batch in trades(TIED))
        rows = rows.sort_by([(name, "ascending") for name in ("symbol", "time", "sequence", "trade_id")])
        found = list(zip(rows["symbol"].to_pylist(), rows["time"].to_pylist(), strict=True))
        first = {key: row for row, key in reversed(list(enumerate(found)))}
        last = {key: row for row, key in enumerate(found)}
        for end, places, fields in (("open", first, ()), ("close", last, ("company", "sector"))):
            tied = bars[end]
            keys = zip(self._of("symbol")[tied].tolist(), self._of(f"{end}_time")[tied].tolist(), strict=True)
            settled = rows.take(pa.array([places[key] for key in keys], pa.int64()))
            self._of(end)[tied] = settled["price"].to_numpy()
            for field in fields:
                self._of(field)[tied] = settled[field].to_numpy()
            self._of(f"{end}_tied")[tied] = 0

    def _at(self, times: pa.Array, trades: pa.RecordBatch) -> pa.Table:
        """The trades of these times, as numbers: files may differ in how they keep strings."""
        trades = trades.filter(pc.is_in(trades["timestamp"].cast(pa.int64()), times))
        return pa.table(
            {
                "symbol": _coded(trades["symbol"], self._symbols),
                "time": micros(trades["timestamp"]),
                "sequence": _numbers(trades["sequence"]),
                "trade_id": trades["trade_id"],
                "price": units(trades["price"]),
                "company": _coded(trades["company_name"], self._companies),
                "sector": _coded(trades["sector"], self._sectors),
            }
        )

    def table(self) -> pa.Table:
        """See :func:`minute_bars`; what is added afterwards changes nothing in it."""
        of = self._of
        volume, bought = ((of(f"{name}_above"), of(f"{name}_below")) for name in ("volume", "buy"))
        sold = tuple(all_ - part for all_, part in zip(volume, bought, strict=True))
        companies = [_strings(self._companies, of("company")), _strings(self._sectors, of("sector"))]
        return pa.table(
            {
                "symbol": _strings(self._symbols, of("symbol")),
                "minute": self._first_minute + of("minute"),
                **{f"{name}_price": decimal_column(_PRICE, of(name)) for name in ("open", "high", "low", "close")},
                "total_volume": halves_added(_VOLUME, *volume),
                "value_exact": decimal_column(pa.decimal128(38, 16), of("value_low"), high=of("value_high")),
                "trade_count": of("trades").copy(),
                "buy_volume": halves_added(_VOLUME, *bought),
                "sell_volume": halves_added(_VOLUME, *sold),
                "company": pa.StructArray.from_arrays(companies, ["name", "sector"]),
                "agents": pa.repeat(len(self._agents), self._count),
            }
        )

    def _of(self, name: str) -> Integers:
        """A field of all bars, to be changed in place."""
        return self._bars[name][: self._count]


def _coded(strings: pa.Array, codes: Codes[str | None]) -> Integers:
    """A number for each string, and for null."""
    encoded = strings if pa.types.is_dictionary(strings.type) else pc.dictionary_encode(strings)
    known = [codes[string] for string in encoded.dictionary.to_pylist()]
    places = encoded.indices
    if places.null_count:
        places = places.fill_null(len(known))
        known.append(codes[None])
    coded: Integers = np.array(known, np.int64)[places.to_numpy()]
    return coded


def _strings(codes: Codes[str | None], coded: Integers) -> pa.Array:
    return pa.array(list(codes), pa.string()).take(pa.array(coded))


def _numbers(sequence: pa.Array) -> Integers:
    """None comes before any."""
    numbers: Integers = sequence.fill_null(np.iinfo(np.int64).min).to_numpy()
    return numbers


@compiled
def _sum_up(
    symbol: Integers,
    time: Integers,
    sequence: Integers,
    price: Integers,
    quantity: Integers,
    buy: NDArray[np.bool_],
    first_minute: int,
    place: NDArray[np.int32],
    bars: NDArray[np.void],
    count: int,
) -> tuple[int, int]:
    """Add trades to the bars → their number, and the first trade that is of another day, or with which a value has
    more than 38 digits; -1 without such."""
    for i in range(len(time)):
        t, s, p, q = time[i], sequence[i], price[i], quantity[i]
        minute = t // MINUTE_US - first_minute
        if minute < 0 or minute >= MINUTES:
            return count, i
        at = place[symbol[i], minute]
        if at < 0:
            at = place[symbol[i], minute] = count
            count += 1
            bar = bars[at]
            bar["symbol"], bar["minute"] = symbol[i], minute
            bar["open_time"], bar["open_sequence"], bar["open"] = t, s, p
            bar["close_time"], bar["close_sequence"], bar["close"], bar["close_row"] = t, s, p, i
            bar["high"] = bar["low"] = p
        else:
            bar = bars[at]
            if t < bar["open_time"] or (t == bar["open_time"] and s < bar["open_sequence"]):
                bar["open_time"], bar["open_sequence"], bar["open"], bar["open_tied"] = t, s, p, 0
            elif t == bar["open_time"] and s == bar["open_sequence"]:
                bar["open_tied"] = 1
            if t > bar["close_time"] or (t == bar["close_time"] and s > bar["close_sequence"]):
                bar["close_time"], bar["close_sequence"], bar["close"], bar["close_row"] = t, s, p, i
                bar["close_tied"] = 0
            elif t == bar["close_time"] and s == bar["close_sequence"]:
                bar["close_tied"] = 1
            bar["high"] = max(bar["high"], p)
            bar["low"] = min(bar["low"], p)
        bar["trades"] += 1
        bar["volume_above"] += q >> 32
        bar["volume_below"] += q & _LOW
        if buy[i]:
            bar["buy_above"] += q >> 32
            bar["buy_below"] += q & _LOW
        # The product has 128 bits. Multiplying 64 wraps, which leaves the low half right.
        middle = (p >> 32) * (q & _LOW) + (p & _LOW) * (q >> 32)
        least = (p & _LOW) * (q & _LOW)
        low = p * q
        high = (p >> 32) * (q >> 32) + (middle >> 32) + _less(low, least)
        total = bar["value_low"] + low
        bar["value_high"] += high + _less(total, low)
        bar["value_low"] = total
        if not -_MOST < bar["value_high"] < _MOST:
            return count, i
    return count, -1


@compiled
def _less(one: int, other: int) -> int:
    """Whether it is, as a number without sign."""
    return int((one ^ _SIGN) < (other ^ _SIGN))
