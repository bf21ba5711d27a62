"""The rules behind alerts.price, each for one symbol. Pure: event time only, integers in units of 1e-8.

In: trades, quotes, halts in the order of their partition. Out: :class:`Alert`. The same input always gives the
same alerts with the same ids, and what arrives out of order never moves a rule back in time.

- price_movement: a trade differs from the price five minutes before by 2, 5 or 10 % or more: MEDIUM, HIGH,
  CRITICAL. That price is the first trade of the last five minutes; after an alert, the alert's own trade.
- volume_spike: the volume of a minute exceeds 3 times the mean of the 20 minutes before; once a minute.
- wide_spread: a quote's spread exceeds 5 times the median of the 100 quotes before it (at least 20).
- trading_halt, trading_resume: each one.

Price moves, and wide spreads, of a symbol come at most once in 60 s.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from dataflows.frames import HaltFrame, units
from simulator.events import format_timestamp

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
BASELINE_US = 5 * MINUTE_US
COOLDOWN_US = 60 * SECOND_US
MOVE_PERCENT = ((10, "CRITICAL"), (5, "HIGH"), (2, "MEDIUM"))
VOLUME_FACTOR = 3
VOLUME_WINDOWS = 20
SPREAD_FACTOR = 5
SPREAD_QUOTES = 100
SPREAD_QUOTES_MIN = 20
HALT_LEVELS = {1: (7, "MEDIUM"), 2: (13, "HIGH"), 3: (20, "CRITICAL")}
"""Circuit-breaker level → threshold in percent, severity."""
_NEVER = -(10**18)


class Alert(NamedTuple):
    alert_type: str
    symbol: str
    severity: str
    direction: str | None
    price: int | None
    baseline: int | None
    pct_change: Decimal | None
    threshold: int | None
    time_us: int
    message: str
    cause: str
    """Id of the event that raised it."""

    def record(self) -> dict[str, Any]:
        """The fields of alerts.price; ``alert_id`` is a function of what caused the alert."""
        identity = f"{self.alert_type}|{self.symbol}|{self.time_us}|{self.cause}"
        return {
            "alert_id": blake2b(identity.encode(), digest_size=16).hexdigest(),
            "alert_type": self.alert_type,
            "symbol": self.symbol,
            "severity": self.severity,
            "direction": self.direction,
            "price": _decimal(self.price),
            "baseline_price": _decimal(self.baseline),
            "pct_change": self.pct_change,
            "threshold": self.threshold,
            "triggered_at": format_timestamp(self.time_us),
            "message": self.message,
        }


class Prices(msgspec.Struct):
    """Price moves: the first price of each second of the last five minutes."""

    seconds: list[tuple[int, int]] = []
    """(event time, price), oldest first."""
    last_alert: int = _NEVER

    def trade(self, symbol: str, time_us: int, price: int, cause: str) -> list[Alert]:
        if self.seconds and time_us < self.seconds[-1][0]:
            return []  # out of order: what it would be compared with came later
        stale = bisect_left(self.seconds, (time_us - BASELINE_US, 0))
        if stale:
            del self.seconds[:stale]
        if not self.seconds or time_us // SECOND_US > self.seconds[-1][0] // SECOND_US:
            self.seconds.append((time_us, price))
        baseline = self.seconds[0][1]
        change = price - baseline
        reached = [move for move in MOVE_PERCENT if abs(change) * 100 >= move[0] * baseline]
        if not reached or time_us - self.last_alert < COOLDOWN_US:
            return []
        percent, severity = reached[0]
        self.last_alert = time_us
        self.seconds = [(time_us, price)]
        pct = round(Decimal(change * 100) / baseline, 4)
        direction = "UP" if change > 0 else "DOWN"
        message = f"{symbol} {direction.lower()} {abs(pct):.2f} % within 5 minutes, to {_decimal(price)}"
        return [
            Alert(
                "price_movement",
                symbol,
                severity,
                direction,
                price,
                baseline,
                pct,
                percent,
                time_us,
                message,
                cause,
            )
        ]


class Volumes(msgspec.Struct):
    """Volume spikes: the volumes of the current minute and of the 20 before."""

    minute: int = -1
    volume: int = 0
    before: list[int] = []
    raised: bool = False

    def trade(self, symbol: str, time_us: int, price: int, quantity: int, cause: str) -> list[Alert]:
        minute = time_us // MINUTE_US
        if minute > self.minute:
            self._begin(minute)
        elif minute < self.minute:
            ago = self.minute - minute
            if ago <= len(self.before):
                self.before[-ago] += quantity
            return []
        self.volume += quantity
        if self.raised or len(self.before) < VOLUME_WINDOWS:
            return []
        total = sum(self.before)
        if not total or self.volume * VOLUME_WINDOWS <= VOLUME_FACTOR * total:
            return []
        self.raised = True
        ratio = Decimal(self.volume * VOLUME_WINDOWS) / total
        severity = "CRITICAL" if ratio > 10 else "HIGH" if ratio > 5 else "MEDIUM"
        message = f"{symbol} volume is {ratio:.1f} times its mean of {VOLUME_WINDOWS} minutes"
        pct = round((ratio - 1) * 100, 4)
        return [
            Alert("volume_spike", symbol, severity, "UP", price, None, pct, VOLUME_FACTOR, time_us, message, cause)
        ]

    def _begin(self, minute: int) -> None:
        if self.minute >= 0:
            quiet = min(minute - self.minute - 1, VOLUME_WINDOWS)
            self.before = [*self.before, self.volume, *[0] * quiet][-VOLUME_WINDOWS:]
        self.minute, self.volume, self.raised = minute, 0, False


class Spreads(msgspec.Struct):
    """Wide spreads: those of the last 100 two-sided quotes, in order of arrival and of size."""

    recent: list[int] = []
    ordered: list[int] = []
    last_alert: int = _NEVER

    def quote(self, symbol: str, time_us: int, bid: int, ask: int, cause: str) -> list[Alert]:
        spread = ask - bid
        if spread < 0:
            return []  # crossed: a fault of the feed, not a wide market
        count = len(self.ordered)
        median2 = self.ordered[(count - 1) // 2] + self.ordered[count // 2] if count else 0
        self._remember(spread)
        if count < SPREAD_QUOTES_MIN or not median2 or 2 * spread <= SPREAD_FACTOR * median2:
            return []
        if time_us - self.last_alert < COOLDOWN_US:
            return []
        self.last_alert = time_us
        ratio = Decimal(2 * spread) / median2
        severity = "CRITICAL" if ratio > 20 else "HIGH" if ratio > 10 else "MEDIUM"
        message = f"{symbol} spread {_decimal(spread)} is {ratio:.1f} times its median"
        pct = round((ratio - 1) * 100, 4)
        mid = (bid + ask) // 2
        return [
            Alert("wide_spread", symbol, severity, None, mid, None, pct, SPREAD_FACTOR, time_us, message, cause)
        ]

    def _remember(self, spread: int) -> None:
        if len(self.recent) == SPREAD_QUOTES:
            oldest = self.recent.pop(0)
            del self.ordered[bisect_left(self.ordered, oldest)]
        self.recent.append(spread)
        insort(self.ordered, spread)


class Halts(msgspec.Struct):
    """Halts and resumes, each once: a frame that the wire doubled raises no second alert."""

    last: str = ""

    def event(self, frame: HaltFrame, time_us: int) -> list[Alert]:
        halt = frame.data
        cause = halt.event_id or f"{frame.event_type}@{time_us}"
        if cause == self.last:
            return []
        self.last = cause
        threshold, severity = HALT_LEVELS.get(halt.level, (None, "CRITICAL"))
        if frame.event_type == "TradingResume":
            message = f"{halt.symbol} trades again after a level {halt.level} halt of {halt.halt_duration_secs} s"
            return [
                Alert(
                    *("trading_resume", halt.symbol, severity, None, None, None, None, threshold),
                    *(time_us, message, cause),
                )
            ]
        price = None if halt.trigger_price is None else units(halt.trigger_price)
        reference = None if halt.reference_price is None else units(halt.reference_price)
        pct = None if halt.decline_pct is None else -halt.decline_pct
        direction = "UP" if pct is not None and pct > 0 else "DOWN"
        if halt.reason != "CircuitBreaker":
            threshold = None  # a pause at a price band, which has no level of its own
        message = f"{halt.symbol} halted for {halt.halt_duration_secs} s, level {halt.level}: {halt.reason}"
        return [
            Alert(
                *("trading_halt", halt.symbol, severity, direction, price, reference, pct, threshold),
                *(time_us, message, cause),
            )
        ]


def _decimal(value: int | None) -> Decimal | None:
    return None if value is None else Decimal(value).scaleb(-8).normalize() + 0
