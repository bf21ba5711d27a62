"""Tables of dimensions: what the facts are about."""

from __future__ import annotations

from lakehouse.columns import AGENT, BOOL, INT, LONG, SYMBOL, TEXT, TIME
from lakehouse.spec import Column, TableSpec


def _dimension(
    name: str,
    doc: str,
    columns: tuple[Column, ...],
    key: tuple[str, ...],
    tags: tuple[str, ...],
    personal: tuple[str, ...] = (),
    follows: tuple[str, ...] = (),
) -> TableSpec:
    return TableSpec(
        f"dimensions.{name}",
        doc,
        columns,
        key=key,
        sort_by=key,
        follows=follows,
        owner="reference-data",
        tags=("Dimension", *tags),
        personal=personal,
    )


_VALIDITY = (
    Column("valid_from", TIME, "First moment the version holds"),
    Column("valid_to", TIME, "First moment it no longer holds; null: still holds", required=False),
    Column("is_current", BOOL, "True for the version that holds now"),
    Column("row_hash", TEXT, "SHA-256 of the attributes"),
)

TABLES = (
    _dimension(
        "dim_symbol",
        "Symbols and their companies; a change closes one row and opens the next (SCD type 2)",
        (
            Column("symbol_key", LONG, "Surrogate key of the version"),
            SYMBOL,
            Column("company_name", TEXT, "Company"),
            Column("sector", TEXT, "Sector"),
            Column("market_cap_category", TEXT, "large, mid or small"),
            *_VALIDITY,
        ),
        ("symbol", "valid_from"),
        ("Instrument", "Public"),
    ),
    _dimension(
        "dim_trader",
        "Agents and how they trade; a change closes one row and opens the next (SCD type 2)",
        (
            Column("trader_key", LONG, "Surrogate key of the version"),
            AGENT,
            Column("agent_type", TEXT, "Kind of agent, as the exchange tells it"),
            Column("strategy", TEXT, "Kind of strategy, one of the exchange's six; unknown where nobody said"),
            *_VALIDITY,
        ),
        ("agent_id", "valid_from"),
        ("Trader", "Restricted"),
        ("agent_id",),
        ("bronze.orders",),
    ),
    _dimension(
        "dim_account",
        "Accounts; a change keeps the value before it beside the new one (SCD type 3)",
        (
            Column("account_id", TEXT, "Account"),
            Column("agent_id", TEXT, "Agent that trades for it"),
            Column("tier", TEXT, "retail, professional or institutional"),
            Column("previous_tier", TEXT, "Tier before the last change; null: never changed", required=False),
            Column("tier_changed_at", TIME, "When the tier changed last", required=False),
            Column("status", TEXT, "active, suspended or closed"),
            Column("previous_status", TEXT, "Status before the last change; null: never changed", required=False),
            Column("status_changed_at", TIME, "When the status changed last", required=False),
        ),
        ("account_id",),
        ("Trader", "Restricted"),
        ("account_id", "agent_id"),
    ),
    _dimension(
        "dim_exchange",
        "Exchanges; a change overwrites (SCD type 1)",
        (
            Column("exchange_code", TEXT, "Code, as in the source header of a frame"),
            Column("exchange_name", TEXT, "Name"),
            Column("country", TEXT, "Country, ISO 3166; ZZ: none"),
            Column("time_zone", TEXT, "Time zone of its trading day"),
            Column("currency", TEXT, "Currency of its prices"),
        ),
        ("exchange_code",),
        ("Public",),
    ),
    _dimension(
        "dim_time",
        "The minutes of a day by the exchange's clock, UTC; a change overwrites (SCD type 1)",
        (
            Column("time_key", INT, "hour * 100 + minute"),
            Column("hour", INT, "0 to 23"),
            Column("minute", INT, "0 to 59"),
            Column("time_of_day", TEXT, "HH:MM"),
            Column("trading_session", TEXT, "pre-market, regular, after-hours or closed, as on a US exchange"),
            Column("is_market_hours", BOOL, "True in the regular session"),
        ),
        ("time_key",),
        ("Public",),
    ),
)
