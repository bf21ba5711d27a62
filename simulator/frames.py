"""Event frames as bytes: one method an event type, formatted by hand because this is the exchange's hot path.

In: integers (ticks, lots, microseconds) and names that are plain ASCII without quotes. Out: frames of the
wire contract, collected in ``pending`` in sequence order. Prices are printed exactly, with two decimals. A
test validates every kind of frame against the contract's models.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from simulator.book import Level, Order, TimeInForce, Top
from simulator.events import format_timestamp
from simulator.halts import Halt

_GTC = TimeInForce.GTC


def session_prefix(session_id: str) -> str:
    """The part of every id that tells sessions apart: 48 bits, the same for the same session."""
    return blake2b(session_id.encode(), digest_size=6).hexdigest()


# A price is printed many times: looking it up costs a quarter of formatting it.
@lru_cache(maxsize=1 << 14)
def dollars(ticks: int | None) -> str:
    """18550 → "185.50", None → "null"."""
    return "null" if ticks is None else f"{ticks // 100}.{ticks % 100:02d}"


def ten_thousandths(units: int) -> str:
    """1855012 → "185.5012"."""
    return f"{units // 10_000}.{units % 10_000:04d}"


def _levels(levels: Sequence[Level]) -> str:
    return ",".join(
        f'{{"price":{dollars(price)},"quantity":{quantity},"order_count":{count}}}'
        for price, quantity, count in levels
    )


class FrameWriter:
    """Numbers, stamps and formats the events of one session."""

    def __init__(self, session_id: str) -> None:
        self.prefix = session_prefix(session_id)
        self.sequence = 0
        """Of the newest frame written."""
        self.pending: list[bytes] = []
        self._middle = f'","data":{{"event_id":"e-{self.prefix}-'
        self._order_id = f'"order_id":"o-{self.prefix}-'
        self._second = -1
        self._second_text = ""
        self._stamp = ""

    def at(self, now_us: int) -> None:
        """Set the time of the events that follow."""
        second, micros = divmod(now_us, 1_000_000)
        if second != self._second:
            self._second = second
            self._second_text = f'","timestamp":"{format_timestamp(second * 1_000_000)[:-7]}'
        self._stamp = f'{self._second_text}{micros:06d}Z","sequence":'

    def _write(self, event_type: str, fields: str) -> None:
        self.sequence = sequence = self.sequence + 1
        self.pending.append(
            f'{{"event_type":"{event_type}{self._middle}{sequence}{self._stamp}{sequence},{fields}}}}}'.encode()
        )

    def order_placed(self, symbol: str, order: Order, replaces: int = 0) -> None:
        """``replaces`` is the number of the order that this one takes the place of; 0: none."""
        owner, price, tif = order.owner, order.price, order.tif
        kind = "Limit" if price is not None else "Market"
        extra = "" if tif is _GTC else f',"time_in_force":"{tif}"'
        if replaces:
            extra += f',"replaces":"o-{self.prefix}-{replaces}"'
        self._write(
            "OrderPlaced",
            f'{self._order_id}{order.number}","symbol":"{symbol}","side":"{"Buy" if order.is_buy else "Sell"}",'
            f'"order_type":"{kind}","price":{dollars(price)},"quantity":{order.quantity},'
            f'"agent_id":"{owner.agent_id}","agent_type":"{owner.agent_type}"{extra}',
        )

    def order_cancelled(self, symbol: str, order: Order, quantity: int, reason: str) -> None:
        """``quantity`` lots are taken out of the order: all that was left of it, or a part."""
        self._write(
            "OrderCancelled",
            f'{self._order_id}{order.number}","symbol":"{symbol}","side":"{"Buy" if order.is_buy else "Sell"}",'
            f'"price":{dollars(order.price)},"remaining_quantity":{quantity},'
            f'"agent_id":"{order.owner.agent_id}","reason":"{reason}"',
        )

    def trade(self, symbol: str, number: int, price: int, quantity: int, taker: Order, maker: Order) -> None:
        is_buy = taker.is_buy
        buy, sell = (taker, maker) if is_buy else (maker, taker)
        prefix = self.prefix
        self._write(
            "TradeExecuted",
            f'"trade_id":"t-{prefix}-{number}","symbol":"{symbol}","price":{dollars(price)},"quantity":{quantity},'
            f'"buy_order_id":"o-{prefix}-{buy.number}","sell_order_id":"o-{prefix}-{sell.number}",'
            f'"buyer_agent_id":"{buy.owner.agent_id}","seller_agent_id":"{sell.owner.agent_id}",'
            f'"is_aggressive_buy":{"true" if is_buy else "false"}',
        )

    def quote(self, symbol: str, top: Top) -> None:
        bid, bid_size, ask, ask_size = top
        spread = None if bid is None or ask is None else ask - bid
        self._write(
            "QuoteUpdate",
            f'"symbol":"{symbol}","best_bid":{dollars(bid)},"best_bid_size":{bid_size},'
            f'"best_ask":{dollars(ask)},"best_ask_size":{ask_size},"spread":{dollars(spread)}',
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
            f'"symbol":"{symbol}","reason":"{halt.reason}","level":{halt.level},'
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
        listed = '","'.join(factors)
        self._write(
            "AgentAction",
            f'"agent_id":"{agent_id}","agent_type":"{agent_type}","symbol":"{symbol}","action":"{action}",'
            f'"decision_factors":[{f"{chr(34)}{listed}{chr(34)}" if factors else ""}]',
        )
