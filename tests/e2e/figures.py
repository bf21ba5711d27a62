"""What is compared: totals of trades, and bars of a minute; exact, and how they differ in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)


class Totals(NamedTuple):
    """Number of trades, and the sum of their quantities."""

    trades: int
    quantity: Decimal


class Bar(NamedTuple):
    """One minute of one symbol."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trade_count: int
    vwap: Decimal


def vwap(notional: Decimal, volume: Decimal) -> Decimal:
    """Volume-weighted average price, rounded half-even to 8 decimals."""
    return _EXACT.divide(notional, volume).quantize(Decimal("1e-8"), context=_EXACT)


def differences(expected: Mapping[datetime, Bar], found: Mapping[datetime, Bar]) -> list[str]:
    """One line for each minute, or field of a minute, in which the two differ; none when they are equal."""
    lines = [f"{start:%H:%M}: missing" for start in sorted(expected.keys() - found.keys())]
    lines += [f"{start:%H:%M}: not in the source" for start in sorted(found.keys() - expected.keys())]
    for start in sorted(expected.keys() & found.keys()):
        for name, wanted, got in zip(Bar._fields, expected[start], found[start], strict=True):
            if wanted != got:
                lines.append(f"{start:%H:%M}: {name} is {got}, and {wanted} in the source")
    return lines
