"""Event frames as bytes: one method an event type, formatted by hand because this is the exchange's hot path.

In: integers (ticks, lots, microseconds) and names that are plain ASCII without quotes. Out: frames of the
wire contract, collected in ``pending`` in sequence order. Prices are printed exactly, with two decimals. A
test validates every kind of frame against the contract's models.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from simulator.book import Level, Order, Top
from simulator.events import format_timestamp
from simulator.halts import Halt


def session_prefix(session_id: str) -> str:
    """The part of every id that tells sessions apart: 48 bits, the same for the same session."""
    return blake2b(session_id.encode(), digest_size=6).hexdigest()


def dollars(ticks: int) -> str:
    """18550 → "185.50"."""
    return f"{ticks // 100}.{ticks % 100:02d}"


def _maybe_dollars(ticks: int | None) -> str:
    return "null" if ticks is None else f"{ticks // 100}.{ticks % 100:02d}"


def ten_thousandths(units: int) -> str:
    """1855012 → "185.5012"."""
    return f"{units // 10_000}.{units % 10_000:04d}"


def _side(is_buy: bool) -> str:
    return "Buy" if is_buy else "Sell"


def _levels(levels: Sequence[Level]) -> str:
    return ",".join(
        f'{{"price":{dollars(level.price)},"quantity":{level.quantity},"order_count":{level.order_count}}}'
        for level in levels
    )


class FrameWriter:
    """Numbers, stamps and formats the events of one session."""

    def __init__(self, session_id: str) -> None:
        self.prefix = session_prefix(session_id)
        self.sequence = 0
        """Of the newest frame written."""
        self.pending: list[bytes] = []
        self._second = -1
        self._second_text = ""
        self._stamp = ""

    def at(self, now_us: int) -> None:
        """Set the time of the events that follow."""
        second, micros = divmod(now_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = format_timestamp(second * 1_000_000)[:-7]
        self._stamp = f"{self._second_text}{micros:06d}Z"

    def _write(self, event_type: str, fields: str) -> None:
        self.sequence = sequence = self.sequence + 1
        self.pending.append(
            f'{{"event_type":"{event_type}","data":{{"event_id":"e-{self.prefix}-{sequence}",'
            f'"timestamp":"{self._stamp}","sequence":{sequence},{fields}}}}}'.encode("ascii")
        )

    def order_placed(self, symbol: str, order: Order, agent_type: str) -> None:
        kind = "Market" if order.price is None else "Limit"
        self._write(
            "OrderPlaced",
            f'"order_id":"{order.order_id}","symbol":"{symbol}","side":"{_side(order.is_buy)}",'
            f'"order_type":"{kind}","price":{_maybe_dollars(order.price)},"quantity":{order.quantity},'
            f'"agent_id":"{order.agent_id}","agent_type":"{agent_type}"',
        )

    def order_cancelled(self, symbol: str, order: Order, reason: str) -> None:
        self._write(
            "OrderCancelled",
            f'"order_id":"{order.order_id}","symbol":"{symbol}","side":"{_side(order.is_buy)}",'
            f'"price":{_maybe_dollars(order.price)},"remaining_quantity":{order.quantity},'
            f'"agent_id":"{order.agent_id}","reason":"{reason}"',
        )

    def trade(self, symbol: str, trade_id: str, price: int, quantity: int, taker: Order, maker: Order) -> None:
        buy, sell = (taker, maker) if taker.is_buy else (maker, taker)
        self._write(
            "TradeExecuted",
            f'"trade_id":"{trade_id}","symbol":"{symbol}","price":{dollars(price)},"quantity":{quantity},'
            f'"buy_order_id":"{buy.order_id}","sell_order_id":"{sell.order_id}",'
            f'"buyer_agent_id":"{buy.agent_id}","seller_agent_id":"{sell.agent_id}",'
            f'"is_aggressive_buy":{"true" if taker.is_buy else "false"}',
        )

    def quote(self, symbol: str, top: Top) -> None:
        spread = None if top.bid is None or top.ask is None else top.ask - top.bid
        self._write(
            "QuoteUpdate",
            f'"symbol":"{symbol}","best_bid":{_maybe_dollars(top.bid)},"best_bid_size":{top.bid_size},'
            f'"best_ask":{_maybe_dollars(top.ask)},"best_ask_size":{top.ask_size},'
            f'"spread":{_maybe_dollars(spread)}',
        )

    def snapshot(self, symbol: str, bids: Sequence[Level], asks: Sequence[Level]) -> None:
        self._write(
            "OrderBookSnapshot",
            f'"symbol":"{symbol}","bids":[{_levels(bids)}],"asks":[{_levels(asks)}],'
            f'"sequence_number":{self.sequence + 1}',
        )

    def stats(
        self, symbol: str, prices: tuple[int, int, int, int], volume: int, trade_count: int, vwap_units: int
    ) -> None:
        """``prices`` are open, high, low, close in ticks; ``vwap_units`` ten-thousandths of a dollar."""
        first, high, low, last = map(dollars, prices)
        self._write(
            "MarketStats",
            f'"symbol":"{symbol}","open":{first},"high":{high},"low":{low},"close":{last},'
            f'"volume":{volume},"trade_count":{trade_count},"vwap":{ten_thousandths(vwap_units)}',
        )

    def trading_halt(self, symbol: str, halt: Halt) -> None:
        self._write(
            "TradingHalt",
            f'"symbol":"{symbol}","reason":"CircuitBreaker","level":{halt.level},'
            f'"trigger_price":{dollars(halt.trigger_price)},"reference_price":{dollars(halt.reference_price)},'
            f'"decline_pct":{halt.decline_pct()},"halt_duration_secs":{halt.seconds}',
        )

    def trading_resume(self, symbol: str, halted_at_us: int, halt: Halt) -> None:
        self._write(
            "TradingResume",
            f'"symbol":"{symbol}","halted_at":"{format_timestamp(halted_at_us)}",'
            f'"halt_duration_secs":{halt.seconds},"level":{halt.level}',
        )

    def agent_action(
        self, symbol: str, agent_id: str, agent_type: str, action: str, factors: Sequence[str]
    ) -> None:
        self._write(
            "AgentAction",
            f'"agent_id":"{agent_id}","agent_type":"{agent_type}","symbol":"{symbol}","action":"{action}",'
            f'"decision_factors":[{",".join(f"{chr(34)}{factor}{chr(34)}" for factor in factors)}]',
        )
