"""What each layer of a running instance holds, read the way any other program would read it.

Tables come through pyiceberg, topics through a plain consumer, candles over HTTP: none of the project's own
readers stands between the data and the comparison.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from pyiceberg.catalog import Catalog

from tests.e2e.figures import Bar, Totals

SILENCE_SECONDS = 30.0
"""A broker that gives neither a message nor the end of a partition for so long is not readable."""


def _query(table: pa.Table, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        connection.register("rows", table)
        return connection.execute(sql).fetchall()


def trades(catalog: Catalog, table: str, symbol: str | None = None) -> Totals:
    """Totals of ``bronze.trades`` or ``silver.trades``.

    Raises:
        AssertionError: a trade stands in the table twice.
    """
    fields = ("trade_id", "symbol", "quantity")
    rows = catalog.load_table(table).scan(selected_fields=fields).to_arrow()
    where = "true" if symbol is None else "symbol = '" + symbol.replace("'", "''") + "'"
    [(count, distinct, quantity)] = _query(
        rows,
        "select count(*), count(distinct trade_id), coalesce(sum(quantity::decimal(38, 8)), 0)::decimal(38, 8) "
        f"from rows where {where}",
    )
    assert count == distinct, f"{table}: {count:,} rows hold {distinct:,} trades"
    return Totals(count, quantity)


BRONZE_EVENTS = {
    "bronze.trades": ("TradeExecuted",),
    "bronze.orders": ("OrderPlaced", "OrderCancelled"),
    "bronze.quotes": ("QuoteUpdate",),
    "bronze.orderbook_snapshots": ("OrderBookSnapshot",),
    "bronze.market_stats": ("MarketStats",),
    "bronze.trading_halts": ("TradingHalt", "TradingResume"),
    "bronze.agent_actions": ("AgentAction",),
}


TABLE_OF_TOPIC = {f"raw.{table.partition('.')[2].replace('_', '-')}": table for table in BRONZE_EVENTS}


def offsets(catalog: Catalog, table: str) -> dict[int, tuple[int, int, int, int]]:
    """Kafka partition → rows, distinct offsets, lowest and highest offset of a table of bronze."""
    rows = catalog.load_table(table).scan(selected_fields=("_kafka_partition", "_kafka_offset")).to_arrow()
    found = _query(
        rows,
        "select _kafka_partition, count(*), count(distinct _kafka_offset), min(_kafka_offset), max(_kafka_offset) "
        "from rows group by all",
    )
    return {number: (count, distinct, low, high) for number, count, distinct, low, high in found}


def bronze_differences(catalog: Catalog, printed: dict[str, int]) -> list[str]:
    """One line for each table of bronze that does not hold every event of its kind, exactly once."""
    lines = []
    for table, kinds in BRONZE_EVENTS.items():
        wanted = sum(printed.get(kind, 0) for kind in kinds)
        rows = catalog.load_table(table).scan(selected_fields=("event_id",)).to_arrow()
        [(count, distinct)] = _query(rows, "select count(*), count(distinct event_id) from rows")
        if count != wanted or distinct != wanted:
            lines.append(f"{table}: {count:,} rows of {distinct:,} events, and {wanted:,} were printed")
    return lines


def gold(catalog: Catalog, table: str) -> Totals:
    """Totals of ``gold.minute_bars`` or ``gold.daily_trading_summary``."""
    rows = catalog.load_table(table).scan(selected_fields=("trade_count", "total_volume")).to_arrow()
    [(count, quantity)] = _query(
        rows,
        "select coalesce(sum(trade_count), 0)::bigint, coalesce(sum(total_volume), 0)::decimal(38, 8) from rows",
    )
    return Totals(count, quantity)


def gold_bars(catalog: Catalog, symbol: str) -> dict[datetime, Bar]:
    """Start of the minute → bar of ``gold.minute_bars``.

    Raises:
        AssertionError: a minute stands in the table twice.
    """
    found: dict[datetime, Bar] = {}
    for row in catalog.load_table("gold.minute_bars").scan().to_arrow().to_pylist():
        if row["symbol"] != symbol:
            continue
        start = row["bar_start"].astimezone(UTC)
        assert start not in found, f"gold.minute_bars: {symbol} {start} twice"
        found[start] = Bar(
            row["open_price"], row["high_price"], row["low_price"], row["close_price"],
            row["total_volume"], row["trade_count"], row["vwap"],
        )  # fmt: skip
    return found


def dead_letters(bootstrap: str) -> int:
    """Messages in dlq.raw and dlq.processing."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "e2e-reader"})
    try:
        ends = [consumer.get_watermark_offsets(TopicPartition(f"dlq.{kind}", 0)) for kind in ("raw", "processing")]
    finally:
        consumer.close()
    return sum(high - low for low, high in ends)


def values(bootstrap: str, topic: str) -> Iterator[tuple[int, bytes]]:
    """(partition, value) of every message of a topic as it stands now; tombstones are passed over.

    Raises:
        KafkaException: the broker cannot be read.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "e2e-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "receive.message.max.bytes": 1_000_000_000,
        }
    )
    try:
        partitions = list(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        waiting = set(partitions)
        heard = time.monotonic()
        while waiting:
            batch = consumer.consume(5_000, timeout=0.2)  # it waits for all 5,000, or so long
            if batch:
                heard = time.monotonic()
            elif time.monotonic() > heard + SILENCE_SECONDS:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: silence"))
            for message in batch:
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    waiting.discard(message.partition())
                elif (value := message.value()) is not None:
                    yield message.partition(), value
    finally:
        consumer.close()


def messages(bootstrap: str, topic: str) -> Iterator[dict[str, Any]]:
    """Every message of a topic as it stands now, JSON with exact numbers.

    Raises:
        KafkaException: the broker cannot be read.
    """
    for _, value in values(bootstrap, topic):
        yield json.loads(value, parse_float=Decimal)


def windows(bootstrap: str, window: str = "1m") -> dict[tuple[str, datetime], Bar]:
    """(symbol, start of the window) → latest revision in ``processed.vwap``."""
    found: dict[tuple[str, datetime], tuple[int, Bar]] = {}
    for row in messages(bootstrap, "processed.vwap"):
        key = (row["symbol"], datetime.fromisoformat(row["window_start"]))
        if row["window"] == window and row["revision"] >= found.get(key, (-1, None))[0]:
            bar = Bar(
                Decimal(row["open"]), Decimal(row["high"]), Decimal(row["low"]), Decimal(row["close"]),
                Decimal(row["volume"]), row["trade_count"], Decimal(row["vwap"]),
            )  # fmt: skip
            found[key] = (row["revision"], bar)
    return {key: bar for key, (_, bar) in found.items()}


def window_totals(bootstrap: str) -> Totals:
    """Totals of all one-minute windows in ``processed.vwap``, the latest revision of each."""
    bars = windows(bootstrap).values()
    return Totals(sum(bar.trade_count for bar in bars), sum((bar.volume for bar in bars), Decimal(0)))


def enriched(bootstrap: str) -> Totals:
    """Totals of ``processed.trades``; a trade that is there twice, after a restart, counts once."""
    quantities = {row["trade_id"]: Decimal(row["quantity"]) for row in messages(bootstrap, "processed.trades")}
    return Totals(len(quantities), sum(quantities.values(), Decimal(0)))


_CANDLES = """
query Candles($symbol: String!, $range: DateRangeInput) {
  minuteCandles(symbol: $symbol, dateRange: $range, interval: "1m", first: 500) {
    edges { node { timestamp openPrice highPrice lowPrice closePrice totalVolume tradeCount vwap } }
  }
}
"""


def graphql(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """``data`` of a GraphQL answer.

    Raises:
        AssertionError: the answer holds errors.
        OSError: nobody answers.
    """
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own http address
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"GraphQL answered {error.code}: {error.read().decode(errors='replace')}") from error
    assert not answer.get("errors"), f"GraphQL answered {answer['errors']}"
    data: dict[str, Any] = answer["data"]
    return data


def candles(url: str, symbol: str, first_day: str, last_day: str) -> dict[datetime, tuple[float, ...]]:
    """Start of the minute → (open, high, low, close, volume, trade_count, vwap), the numbers GraphQL sends."""
    data = graphql(url, _CANDLES, {"symbol": symbol, "range": {"start": first_day, "end": last_day}})
    names = ("openPrice", "highPrice", "lowPrice", "closePrice", "totalVolume", "tradeCount", "vwap")
    found = {}
    for edge in data["minuteCandles"]["edges"]:
        node = edge["node"]
        found[datetime.fromisoformat(node["timestamp"]).astimezone(UTC)] = tuple(node[name] for name in names)
    return found
