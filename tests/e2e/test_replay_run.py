"""A recorded market through the whole system: every layer holds what the file holds, to the last unit."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from deploy.local import leftovers, probes
from tests.e2e import capture, journal, layers
from tests.e2e.figures import Bar, Totals, differences
from tests.e2e.instance import Instance, until

pytestmark = pytest.mark.e2e

SYMBOL = "BTCUSDT"
BRONZE_SECONDS = 60
BATCH_SECONDS = 150
"""Silver runs at the next full minute, gold after it, and either may just have begun without the last rows."""


@pytest.fixture(scope="module")
def expected(recorded: Path) -> Totals:
    return capture.totals(recorded)


@pytest.fixture(scope="module")
def expected_bars(recorded: Path) -> dict[datetime, Bar]:
    return capture.minute_bars(recorded)


@pytest.fixture(scope="module")
def replayed(new_instance: Callable[..., Instance], recorded: Path) -> Instance:
    instance = new_instance()
    instance.up("feed=replay", f"file={recorded}", "speed=0")
    return instance


def test_bronze_holds_every_trade_of_the_file(replayed: Instance, expected: Totals) -> None:
    catalog = replayed.catalog()
    until(
        lambda: layers.trades(catalog, "bronze.trades", SYMBOL),
        lambda found: found == expected,
        BRONZE_SECONDS,
        f"bronze.trades holds {expected}",
    )


def test_bronze_holds_every_other_event_of_the_replay(replayed: Instance) -> None:
    catalog, printed = replayed.catalog(), journal.events(replayed.data_dir)
    assert set(printed) == {"TradeExecuted", "QuoteUpdate", "OrderBookSnapshot", "MarketStats"}
    until(
        lambda: layers.bronze_differences(catalog, printed),
        lambda lines: not lines,
        BRONZE_SECONDS,
        "every table of bronze holds every event of its kind",
    )


def test_each_minutes_window_equals_the_file(replayed: Instance, expected_bars: dict[datetime, Bar]) -> None:
    def differing() -> list[str]:
        found = layers.windows(replayed.kafka)
        return differences(
            expected_bars, {start: bar for (symbol, start), bar in found.items() if symbol == SYMBOL}
        )

    until(differing, lambda lines: not lines, BRONZE_SECONDS, "processed.vwap equals the file")


def test_silver_holds_every_trade_of_the_file(replayed: Instance, expected: Totals) -> None:
    catalog = replayed.catalog()
    until(
        lambda: layers.trades(catalog, "silver.trades", SYMBOL),
        lambda found: found == expected,
        BATCH_SECONDS,
        f"silver.trades holds {expected}",
    )


def test_each_minutes_bar_in_gold_equals_the_file(replayed: Instance, expected_bars: dict[datetime, Bar]) -> None:
    catalog = replayed.catalog()
    until(
        lambda: differences(expected_bars, layers.gold_bars(catalog, SYMBOL)),
        lambda lines: not lines,
        BATCH_SECONDS,
        "gold.minute_bars equals the file",
    )


def test_each_minutes_candle_over_graphql_equals_the_file(
    replayed: Instance, expected_bars: dict[datetime, Bar]
) -> None:
    days = sorted(f"{start:%Y-%m-%d}" for start in expected_bars)
    # The API sends floats: those nearest to the exact decimals, no others.
    wanted = {start: tuple(float(figure) for figure in bar) for start, bar in expected_bars.items()}
    until(
        lambda: layers.candles(replayed.api, SYMBOL, days[0], days[-1]),
        lambda found: found == wanted,
        BATCH_SECONDS,
        f"GraphQL's minuteCandles are {wanted}",
    )


def test_nothing_was_refused(replayed: Instance) -> None:
    assert layers.dead_letters(replayed.kafka) == 0


def test_a_second_replay_of_the_same_file_changes_nothing(
    replayed: Instance, recorded: Path, expected: Totals
) -> None:
    replayed.just("replay", str(recorded), "speed=0", seconds=120)
    port = replayed.settings.exchange_metrics_port
    until(
        lambda: probes.scrape(port),
        lambda metrics: metrics is not None and metrics.total("tickhouse_exchange_feed_finished") == 1,
        60,
        "the exchange has replayed the file again",
    )
    replayed.down()
    assert leftovers.leftovers(replayed.settings.root) == []
    assert layers.trades(replayed.catalog(), "bronze.trades", SYMBOL) == expected
