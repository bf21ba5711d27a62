"""For every rule of every contract a change of good rows that breaks it, and nothing but it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import duckdb
import pyarrow as pa

from lakehouse.quality.definition import contract
from lakehouse.tables import TABLES, arrow_schema

Views = dict[str, pa.Table]


class Fault(NamedTuple):
    """What breaks a rule."""

    change: Callable[[Views], Views]
    also: tuple[str, ...] = ()
    """Rules that cannot but break with it."""


def rules(table: str) -> list[str]:
    """The rules written by hand."""
    bodies = [body or {} for check in contract(table)["checks"] for body in check.values()]
    return [body["qualifier"] for body in bodies if "qualifier" in body]


def changed(table: str, where: str = "true", *also: str, keep: bool = False, **values: str) -> Fault:
    """The first row with ``where`` has other ``values``, all in SQL; ``keep``: beside the row as it was."""

    def change(views: Views) -> Views:
        first = f"(select min(number) from numbered where {where})"
        replaced = ", ".join(f"{value} as {column}" for column, value in values.items())
        replaced = f"replace ({replaced})" if replaced else ""
        others = "true" if keep else f"number <> {first}"
        return views | {
            table: _rows(
                table,
                views[table],
                f"select * exclude (number) from numbered where {others}",
                f"select * exclude (number) {replaced} from numbered where number = {first}",
            )
        }

    return Fault(change, also)


def added(table: str, where: str = "true", *also: str, **values: str) -> Fault:
    """A copy of the first row with ``where``, with other ``values``."""
    return changed(table, where, *also, keep=True, **values)


def removed(table: str, where: str, *also: str) -> Fault:
    """The rows with ``where`` are gone."""

    def change(views: Views) -> Views:
        rows = _rows(
            table, views[table], f"select * exclude (number) from numbered where not coalesce({where}, false)"
        )
        assert rows.num_rows < views[table].num_rows
        return views | {table: rows}

    return Fault(change, also)


def _rows(table: str, rows: pa.Table, *selects: str) -> pa.Table:
    schema = pa.schema([column.with_nullable(True) for column in arrow_schema(table)])
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("before", rows)
        connection.execute("create temp table numbered as select row_number() over () as number, * from before")
        found = [connection.execute(select).to_arrow_table().cast(schema) for select in selects]
    assert found[-1].num_rows, f"no row of {table} to change"
    return pa.concat_tables(found)


_LAST = "_kafka_offset = (select max(_kafka_offset) from numbered)"
_BEFORE_LAST = "(select timestamp from numbered order by _kafka_offset desc limit 1 offset 1)"


def _bronze(table: str) -> dict[str, Fault]:
    """Faults that any event may have."""
    # Events of the last two minutes do not count for it yet; of an hour ago they do, without those around them.
    gap = ("sequence_complete",) if table == "bronze.trades" else ()
    return {
        "event_once": added(table, _LAST, _kafka_offset="_kafka_offset + 1"),
        "in_order": changed(table, _LAST, sequence="0", timestamp=_BEFORE_LAST),
        "not_late": changed(table, _LAST, *gap, timestamp="timestamp - interval 1 hour"),
        "symbol_referenced": changed(table, symbol="'NONE'"),
    }


def _silver(table: str) -> dict[str, Fault]:
    """Faults that any table of events may have."""
    source, key = TABLES[table].follows[0], TABLES[table].key[0]
    return {
        "nothing_lost": added(source, **{key: "'new'", "_kafka_offset": "-1"}),
        "nothing_invented": added(table, **{key: "'new'"}),
        "symbol_referenced": changed(table, symbol="'NONE'"),
        "company_filled": changed(table, company_name="null"),
    }


def _sums(table: str) -> dict[str, Fault]:
    """Faults of volumes and counts."""
    reconciled = "volume_matches_trades"
    return {
        "trade_count_positive": changed(table, "true", reconciled, trade_count="0"),
        "volume_positive": changed(table, "true", reconciled, total_volume="0", buy_volume="0", sell_volume="0"),
        "volume_adds_up": changed(table, buy_volume="buy_volume + 1"),
        reconciled: changed(table, total_volume="total_volume + 1", buy_volume="buy_volume + 1"),
    }


def _bars(table: str) -> dict[str, Fault]:
    return _sums(table) | {
        "high_highest": changed(table, "greatest(open_price, close_price) > vwap", high_price="vwap"),
        "low_lowest": changed(table, "least(open_price, close_price) < vwap", low_price="vwap"),
        "vwap_in_range": changed(table, vwap="high_price + 0.01"),
    }


def _versions(table: str) -> dict[str, Fault]:
    return {
        "valid_for_a_time": changed(table, valid_to="valid_from", is_current="false"),
        "current_is_open": changed(table, is_current="false"),
        "versions_apart": added(table, valid_from="valid_from + interval 1 day"),
    }


def _faults() -> dict[str, dict[str, Fault]]:
    of: dict[str, dict[str, Fault]] = {}

    t = "bronze.trades"
    of[t] = _bronze(t) | {
        "sequence_complete": removed(t, "number = 10"),
        "ids_present": changed(t, trade_id="''"),
        "price_positive": changed(t, price="0"),
        "quantity_positive": changed(t, quantity="-1"),
    }
    t = "bronze.orders"
    placed, cancelled = "event_type = 'OrderPlaced'", "event_type = 'OrderCancelled'"
    of[t] = _bronze(t) | {
        "event_type_known": changed(t, event_type="'OrderAmended'"),
        "ids_present": changed(t, order_id="''"),
        "price_positive": changed(t, "price is not null", price="-1"),
        "quantity_positive": changed(t, placed, quantity="null"),
        "remaining_not_negative": changed(t, cancelled, remaining_quantity="-1"),
    }
    two_sided = "best_bid is not null and best_ask is not null"
    t = "bronze.quotes"
    of[t] = _bronze(t) | {
        "price_positive": changed(t, two_sided, best_bid="0"),
        "size_not_negative": changed(t, best_ask_size="-1"),
        "quote_not_crossed": changed(t, two_sided, best_bid="best_ask"),
    }
    t, deep = "bronze.orderbook_snapshots", "len(bids) > 1 and len(asks) > 1"
    of[t] = _bronze(t) | {
        "levels_positive": changed(t, deep, bids="bids || [{price: 0.01, quantity: 0, order_count: 1}]"),
        "levels_sorted": changed(t, deep, bids="list_reverse(bids)"),
        "book_not_crossed": changed(t, deep, bids="[{price: asks[1].price, quantity: 1, order_count: 1}]"),
    }
    t = "bronze.market_stats"
    of[t] = _bronze(t) | {
        "high_highest": changed(t, "greatest(open, close) > low", high="low"),
        "low_lowest": changed(t, "least(open, close) < high", low="high"),
        "volume_and_trades": changed(t, "trade_count > 0", volume="0"),
    }
    t = "bronze.trading_halts"
    of[t] = _bronze(t) | {
        "event_type_known": changed(t, event_type="'TradingPause'"),
        "level_known": changed(t, level="4"),
        "duration_not_negative": changed(t, halt_duration_secs="-1"),
    }
    t = "bronze.agent_actions"
    of[t] = _bronze(t) | {"ids_present": changed(t, action="''")}

    t = "silver.trades"
    of[t] = _silver(t) | {
        "price_positive": changed(t, price="0"),
        "quantity_positive": changed(t, quantity="-1"),
        "price_range": changed(t, price="100000.01"),
        "quantity_range": changed(t, quantity="1000001"),
        "ids_present": changed(t, "true", "symbol_referenced", symbol="''"),
    }
    t = "silver.orderbook"
    of[t] = _silver(t) | {
        "book_not_crossed": changed(t, deep, "best_first", best_bid_price="best_ask_price", spread="0"),
        "spread_consistent": changed(t, deep, spread="spread + 0.01"),
        "mid_between": changed(t, deep, mid_price="best_ask_price + 0.01"),
        "depth_consistent": changed(t, bid_depth="-1"),
        "levels_counted": changed(t, ask_levels="ask_levels + 1"),
        "levels_sorted": changed(t, deep, "best_first", bids="list_reverse(bids)"),
        "best_first": changed(t, deep, best_ask_qty="best_ask_qty + 1"),
    }
    t = "silver.quotes"
    of[t] = _silver(t) | {
        "price_positive": changed(t, two_sided, best_bid="0", spread="best_ask"),
        "size_not_negative": changed(t, best_bid_size="-1"),
        "quote_not_crossed": changed(t, two_sided, best_bid="best_ask", spread="0"),
        "spread_consistent": changed(t, two_sided, spread="null"),
    }
    t = "silver.orders"
    of[t] = _silver(t) | {
        "event_type_known": changed(t, event_type="'OrderAmended'"),
        "side_known": changed(t, side="'Hold'"),
        "price_positive": changed(t, "price is not null", price="0"),
        "limit_has_price": changed(t, "order_type = 'Limit'", price="null"),
        "quantity_positive": changed(t, placed, quantity="0"),
        "remaining_not_negative": changed(t, cancelled, remaining_quantity="-1"),
    }
    t = "silver.trader_activity"
    of[t] = {
        "fills_positive": changed(t, buy_count="0", sell_count="0"),
        "net_consistent": changed(t, net_quantity="net_quantity + 1"),
        "first_before_last": changed(t, first_trade_at="last_trade_at + interval 1 second"),
        "volume_matches_trades": changed(t, buy_volume="buy_volume + 1", net_quantity="net_quantity + 1"),
    }
    t = "silver.rejected_records"
    of[t] = {
        "source_known": changed(t, source_table="'lead.trades'"),
        "record_is_json": changed(t, record="'{'"),
    }

    t = "gold.minute_bars"
    of[t] = _bars(t) | {"bar_in_date": changed(t, bar_start="bar_start + interval 30 seconds")}
    t = "gold.daily_trading_summary"
    of[t] = _bars(t) | {
        "change_consistent": changed(t, price_change_pct="price_change_pct + 0.01"),
        "volatility_not_negative": changed(t, volatility="-0.1"),
        "company_filled": changed(t, company_name="null"),
        "symbol_referenced": changed(t, "true", "volume_matches_trades", symbol="'NONE'"),
    }
    t = "gold.market_overview"
    of[t] = {
        "breadth_adds_up": changed(t, advancing="advancing + 1"),
        "volume_matches_trades": changed(t, total_trades="total_trades - 1"),
        "spread_in_range": changed(t, avg_spread_bps="-0.1"),
    }
    t = "gold.sector_daily"
    of[t] = _sums(t) | {"breadth_adds_up": changed(t, declining="declining + 1")}
    t, closed = "gold.trader_performance", "closing_fills > 0"
    of[t] = {
        "fills_positive": changed(t, symbol_count="0"),
        "fills_consistent": changed(
            t, closed, winning_fills="closing_fills + 1", win_rate="(closing_fills + 1) / closing_fills"
        ),
        "win_rate_consistent": changed(t, closed, win_rate="win_rate + 0.1"),
        "drawdown_not_negative": changed(t, max_drawdown="-1"),
        "volume_matches_trades": changed(t, sell_volume="sell_volume + 1"),
    }
    t, held = "gold.portfolio_positions", "quantity <> 0"
    of[t] = {
        "lots_add_up": changed(t, "len(lots) > 1", lots="lots[2:]"),
        "price_positive": changed(t, held, last_price="-last_price", market_value="-market_value"),
        "cost_where_open": changed(t, held, average_cost="null"),
        "value_consistent": changed(t, market_value="market_value + 1"),
        "weight_in_range": changed(t, weight_pct="100.1"),
    }

    t = "dimensions.dim_symbol"
    of[t] = _versions(t) | {"cap_known": changed(t, market_cap_category="'huge'")}
    t = "dimensions.dim_trader"
    of[t] = _versions(t)
    t = "dimensions.dim_account"
    of[t] = {
        "tier_known": changed(t, tier="'gold'"),
        "status_known": changed(t, status="'asleep'"),
        "change_dated": changed(t, previous_tier="'retail'"),
        "agent_referenced": changed(t, agent_id="'nobody'"),
    }
    t = "dimensions.dim_exchange"
    of[t] = {"codes_formed": changed(t, country="'USA'")}
    t = "dimensions.dim_time"
    of[t] = {
        "key_consistent": changed(t, time_key="-1"),
        "time_in_range": changed(t, "minute = 0", hour="24", time_key="2400"),
        "session_known": changed(t, trading_session="'lunch'"),
        "whole_day": removed(t, "number = 1"),
    }
    return of


FAULTS = _faults()
"""Table → rule → what breaks it, of the rules about rows."""
