"""Column types, and the columns that several tables share.

Money and quantities are decimals, never floats: price decimal(18,8), volume decimal(28,8), value decimal(38,8).
Times are timestamptz in microseconds, UTC; a trading date is the UTC date of the event.
"""

from __future__ import annotations

from dataclasses import replace

from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestamptzType,
)

from lakehouse.spec import Column

TEXT, LONG, INT, BOOL, DOUBLE = StringType(), LongType(), IntegerType(), BooleanType(), DoubleType()
TIME, DATE = TimestamptzType(), DateType()
PRICE = DecimalType(18, 8)
VOLUME = DecimalType(28, 8)
VALUE = DecimalType(38, 8)
# The ids below are placeholders: a table's ids are assigned afresh, in order.
LEVELS = ListType(
    1,
    StructType(
        NestedField(2, "price", PRICE, required=True, doc="Limit price"),
        NestedField(3, "quantity", PRICE, required=True, doc="Quantity resting at the price"),
        NestedField(4, "order_count", LONG, required=True, doc="Orders resting at the price; 0 where not told"),
    ),
    element_required=True,
)
LOTS = ListType(
    1,
    StructType(
        NestedField(
            2, "quantity", PRICE, required=True, doc="What is left of it; below 0 where it was sold short"
        ),
        NestedField(3, "price", PRICE, required=True, doc="Price it was opened at"),
        NestedField(4, "opened_at", TIME, required=True, doc="Time of the trade that opened it"),
    ),
    element_required=True,
)
TEXTS = ListType(1, TEXT, element_required=True)


def optional(*columns: Column) -> tuple[Column, ...]:
    """The same columns, nullable."""
    return tuple(replace(c, required=False) for c in columns)


EVENT = (
    Column("event_id", TEXT, "Id of the event, unique across sessions", distinct=True),
    Column("timestamp", TIME, "Event time"),
    Column("sequence", LONG, "Position in the exchange session", required=False),
)
SYMBOL = Column("symbol", TEXT, "Ticker")
SIDE = Column("side", TEXT, "Buy or Sell")
AGENT = Column("agent_id", TEXT, "Agent")
LEVEL = Column("level", INT, "Circuit breaker: 1, 2 or 3")
KAFKA_KEY = ("_kafka_topic", "_kafka_partition", "_kafka_offset")
KAFKA = (
    Column("_kafka_topic", TEXT, "Topic the frame was read from"),
    Column("_kafka_partition", INT, "Partition of the topic"),
    Column("_kafka_offset", LONG, "Offset in the partition"),
    Column("_kafka_timestamp", TIME, "Kafka's time of the message", required=False),
    Column("_received_at", TIME, "When the bridge received the frame", required=False),
    Column("_ingested_at", TIME, "When the row was written"),
)
TRADE = (
    *EVENT,
    Column("trade_id", TEXT, "Id of the trade, unique across sessions", distinct=True),
    SYMBOL,
    Column("price", PRICE, "Price of one share"),
    Column("quantity", PRICE, "Quantity traded"),
    Column("buy_order_id", TEXT, "Order of the buyer", distinct=True),
    Column("sell_order_id", TEXT, "Order of the seller", distinct=True),
    Column("buyer_agent_id", TEXT, "Agent that bought"),
    Column("seller_agent_id", TEXT, "Agent that sold"),
    Column("is_aggressive_buy", BOOL, "True when the buyer was the aggressor"),
)
TRADERS = ("buyer_agent_id", "seller_agent_id")
QUOTE = (
    *EVENT,
    SYMBOL,
    Column("best_bid", PRICE, "Highest bid; null on an empty side", required=False),
    Column("best_bid_size", PRICE, "Quantity at the best bid"),
    Column("best_ask", PRICE, "Lowest ask; null on an empty side", required=False),
    Column("best_ask_size", PRICE, "Quantity at the best ask"),
    Column("spread", PRICE, "Best ask minus best bid", required=False),
)
ORDER = (
    Column("event_type", TEXT, "OrderPlaced or OrderCancelled"),
    *EVENT,
    Column("order_id", TEXT, "Id of the order", distinct=True),
    SYMBOL,
    SIDE,
    *optional(
        Column("order_type", TEXT, "Market or Limit; null on a cancellation"),
        Column("price", PRICE, "Limit price; null for a market order"),
        Column("quantity", PRICE, "Quantity ordered; null on a cancellation"),
        Column("remaining_quantity", PRICE, "Quantity cancelled; null on a placement"),
    ),
    Column("agent_id", TEXT, "Agent whose order it is"),
    *optional(
        Column("agent_type", TEXT, "Kind of agent; null on a cancellation"),
        Column("reason", TEXT, "Why it was cancelled; null on a placement"),
        Column("time_in_force", TEXT, "How long it stands; null: until cancelled, and on a cancellation"),
        Column("replaces", TEXT, "Order, just cancelled as Replaced, whose place it takes; mostly null"),
    ),
)
COMPANY = optional(
    Column("company_name", TEXT, "Company, as of the event; null for an unknown symbol"),
    Column("sector", TEXT, "Sector, as of the event; null for an unknown symbol"),
)
CAP = Column("market_cap_category", TEXT, "large, mid or small; null for an unknown symbol", required=False)
PROCESSED = Column("_processed_at", TIME, "When the row was written")
AGGREGATED = Column("_aggregated_at", TIME, "When the row was computed")
TRADING_DATE = Column("trading_date", DATE, "UTC date of the events")
OHLC = (
    Column("open_price", PRICE, "First price, by (timestamp, sequence)"),
    Column("high_price", PRICE, "Highest price"),
    Column("low_price", PRICE, "Lowest price"),
    Column("close_price", PRICE, "Last price, by (timestamp, sequence)"),
    Column("vwap", PRICE, "Volume-weighted average price: total_value / total_volume, half-even"),
)
FLOW = (
    Column("total_volume", VOLUME, "Sum of quantity"),
    Column("total_value", VALUE, "Sum of price times quantity"),
    Column("trade_count", LONG, "Number of trades"),
    Column("buy_volume", VOLUME, "Volume of aggressive buys"),
    Column("sell_volume", VOLUME, "Volume of aggressive sells"),
)
SIDES = (
    Column("buy_count", LONG, "Fills as the buyer"),
    Column("sell_count", LONG, "Fills as the seller"),
    Column("buy_volume", VOLUME, "Quantity bought"),
    Column("sell_volume", VOLUME, "Quantity sold"),
    Column("buy_value", VALUE, "Paid for what was bought, half-even"),
    Column("sell_value", VALUE, "Received for what was sold, half-even"),
)
BREADTH = (
    Column("advancing", LONG, "Symbols that closed above their open"),
    Column("declining", LONG, "Symbols that closed below their open"),
    Column("unchanged", LONG, "Symbols that closed at their open"),
)
