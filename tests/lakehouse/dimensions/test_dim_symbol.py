"""dim_symbol: versions with half-open validity, seeded once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pyiceberg.catalog import Catalog

from lakehouse.dimensions.dim_symbol import (
    NAME,
    SymbolInfo,
    current_symbols,
    read_symbols,
    seed_dim_symbol,
)
from lakehouse.dimensions.scd2 import EPOCH
from lakehouse.query import Lake
from lakehouse.settings import LakehouseSettings

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
TUESDAY = datetime(2026, 3, 3, tzinfo=UTC)
AAPL = SymbolInfo("AAPL", "Apple Inc.", "Technology", "large")
META = SymbolInfo("META", "Facebook", "Technology", "large")
META_RENAMED = SymbolInfo("META", "Meta Platforms Inc.", "Technology", "large")


@pytest.fixture
def lake(settings: LakehouseSettings, catalog: Catalog) -> Lake:
    return Lake(settings, catalog)


def test_the_reference_data_has_the_24_symbols_of_the_exchange() -> None:
    symbols = read_symbols()
    assert len(symbols) == 24
    assert {info.market_cap_category for info in symbols} == {"large", "mid"}
    assert AAPL in symbols


def test_seeding_twice_changes_nothing(catalog: Catalog) -> None:
    assert seed_dim_symbol(catalog, read_symbols(), as_of=MONDAY)
    before = catalog.load_table(NAME).metadata_location
    assert not seed_dim_symbol(catalog, read_symbols(), as_of=TUESDAY)
    assert catalog.load_table(NAME).metadata_location == before
    assert current_symbols(catalog) == {info.symbol: info for info in read_symbols()}


def test_a_first_version_holds_from_1970_so_that_old_captures_find_their_company(
    catalog: Catalog, lake: Lake
) -> None:
    seed_dim_symbol(catalog, [AAPL], as_of=MONDAY)
    (row,) = lake.rows(f"select * from {NAME}")
    assert (row["valid_from"], row["valid_to"], row["is_current"]) == (EPOCH, None, True)


def test_a_change_closes_the_version_and_opens_the_next_at_the_same_moment(catalog: Catalog, lake: Lake) -> None:
    seed_dim_symbol(catalog, [AAPL, META], as_of=MONDAY)
    assert seed_dim_symbol(catalog, [AAPL, META_RENAMED], as_of=TUESDAY)
    rows = lake.rows(f"select * from {NAME} where symbol = 'META' order by valid_from")
    assert [(r["company_name"], r["valid_from"], r["valid_to"], r["is_current"]) for r in rows] == [
        ("Facebook", EPOCH, TUESDAY, False),
        ("Meta Platforms Inc.", TUESDAY, None, True),
    ]
    assert current_symbols(catalog)["META"] == META_RENAMED
    assert lake.rows(f"select count(distinct symbol_key) as n from {NAME}") == [{"n": 3}]
    found = lake.rows(
        f"select company_name from {NAME} "
        "where symbol = 'META' and valid_from <= ? and coalesce(? < valid_to, true)",
        [TUESDAY, TUESDAY],
    )
    assert found == [{"company_name": "Meta Platforms Inc."}]


def test_a_symbol_no_longer_listed_is_closed_and_may_come_back(catalog: Catalog, lake: Lake) -> None:
    wednesday = datetime(2026, 3, 4, tzinfo=UTC)
    seed_dim_symbol(catalog, [AAPL, META], as_of=MONDAY)
    seed_dim_symbol(catalog, [AAPL], as_of=TUESDAY)
    assert set(current_symbols(catalog)) == {"AAPL"}
    seed_dim_symbol(catalog, [AAPL, META], as_of=wednesday)
    rows = lake.rows(f"select valid_from, valid_to from {NAME} where symbol = 'META' order by valid_from")
    assert [(row["valid_from"], row["valid_to"]) for row in rows] == [(EPOCH, TUESDAY), (wednesday, None)]


def test_a_change_before_the_version_it_would_close_is_refused(catalog: Catalog) -> None:
    seed_dim_symbol(catalog, [META], as_of=MONDAY)
    seed_dim_symbol(catalog, [META_RENAMED], as_of=TUESDAY)
    with pytest.raises(ValueError, match="META"):
        seed_dim_symbol(catalog, [META], as_of=TUESDAY)
    assert current_symbols(catalog) == {"META": META_RENAMED}


def test_a_history_may_be_told_late_and_in_pieces(catalog: Catalog, lake: Lake) -> None:
    noon, evening = TUESDAY.replace(hour=12), TUESDAY.replace(hour=18)
    seed_dim_symbol(catalog, [META], as_of=MONDAY)
    told = [
        META_RENAMED,
        SymbolInfo("META", "Meta by noon", "Technology", "large", noon.isoformat()),
        SymbolInfo("META", "Meta by evening", "Technology", "large", evening.isoformat()),
    ]
    wednesday = datetime(2026, 3, 4, tzinfo=UTC)
    assert seed_dim_symbol(catalog, told, as_of=wednesday)
    assert not seed_dim_symbol(catalog, told, as_of=datetime(2026, 3, 5, tzinfo=UTC))
    rows = lake.rows(f"select company_name, valid_from, valid_to from {NAME} order by valid_from")
    assert [tuple(row.values()) for row in rows] == [
        ("Facebook", EPOCH, noon),
        ("Meta by noon", noon, evening),
        ("Meta by evening", evening, wednesday),
        ("Meta Platforms Inc.", wednesday, None),
    ]
