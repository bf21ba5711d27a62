"""The statistics of the scorecard, on series whose answer is known."""

from __future__ import annotations

import json
import math
from itertools import accumulate
from random import Random
from statistics import median
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import realism
from tests.benchmarks.scorecard import (
    STATISTICS,
    Columns,
    Statistic,
    autocorrelation,
    depth_profile,
    excess_kurtosis,
    fano_factor,
    mid_returns,
    read,
    window_counts,
)

SECOND = 1_000_000


def test_an_ar1_series_has_the_autocorrelation_of_its_coefficient():
    rng = Random(1)
    series = list(accumulate((rng.gauss(0, 1) for _ in range(30_000)), lambda last, noise: 0.6 * last + noise))
    assert autocorrelation(series, 1) == pytest.approx(0.6, abs=0.02)
    assert autocorrelation(series, 5) == pytest.approx(0.6**5, abs=0.03)


def test_independent_signs_have_no_autocorrelation():
    rng = Random(2)
    signs = [rng.choice((-1, 1)) for _ in range(40_000)]
    assert all(abs(autocorrelation(signs, lag)) < 0.02 for lag in (1, 2, 10))


def test_an_alternating_series_is_perfectly_anticorrelated():
    assert autocorrelation([1, -1] * 500, 1) == pytest.approx(-1, abs=0.002)


@pytest.mark.parametrize(("values", "lag"), [([1.0, 1.0, 1.0], 1), ([1.0, 2.0], 2), ([1.0, 2.0], 0)])
def test_no_autocorrelation_of_too_few_or_equal_values(values, lag):
    with pytest.raises(ValueError, match="autocorrelation"):
        autocorrelation(values, lag)


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=40).filter(lambda values: len(set(values)) > 1),
    st.integers(1, 2),
    st.floats(0.1, 10),
    st.floats(-100, 100),
)
def test_autocorrelation_is_bounded_and_blind_to_scale_and_offset(values, lag, scale, offset):
    found = autocorrelation(values, lag)
    assert -1 <= found <= 1
    moved = autocorrelation([scale * value + offset for value in values], lag)
    assert moved == pytest.approx(found, abs=1e-6)


def test_kurtosis_of_laplace_normal_and_two_point_distributions():
    rng = Random(3)
    laplace = [rng.expovariate(1) * rng.choice((-1, 1)) for _ in range(100_000)]
    assert excess_kurtosis(laplace) == pytest.approx(3, abs=0.4)
    assert excess_kurtosis([rng.gauss(5, 2) for _ in range(100_000)]) == pytest.approx(0, abs=0.06)
    assert excess_kurtosis([-1, 1] * 10) == pytest.approx(-2)
    with pytest.raises(ValueError, match="kurtosis"):
        excess_kurtosis([2.0, 2.0])


def test_fano_factor_is_1_for_poisson_0_for_a_clock_and_the_batch_for_batches():
    rng = Random(4)
    times = [int(at * SECOND) for at in accumulate(rng.expovariate(5) for _ in range(30_000))]
    assert fano_factor(window_counts(times)) == pytest.approx(1, abs=0.05)
    assert fano_factor(window_counts(range(0, 100 * SECOND, SECOND // 10))) == 0
    batches = [at for at in times for _ in range(7)]
    assert fano_factor(window_counts(batches)) == pytest.approx(7, abs=0.35)
    with pytest.raises(ValueError, match="Fano"):
        fano_factor([0, 0])


def test_counts_are_those_of_whole_windows_from_the_first_event():
    assert window_counts([5, 6, 14, 15, 30, 36], window_us=10) == [3, 1, 1]


def test_returns_are_of_the_middle_as_it_stood_at_each_second():
    columns = Columns(
        quote_times=[0, SECOND, SECOND + 1, 3 * SECOND], bids=[98, 100, 108, 109], asks=[102, 120, 112, 133]
    )
    assert mid_returns(columns) == pytest.approx([math.log(1.1), 0.0, math.log(1.1)])


def test_frames_are_read_into_columns():
    def frame(kind, **data):
        return 7, json.dumps({"event_type": kind, "data": {"symbol": "X", **data}}).encode()

    def levels(*quantities):
        return [{"price": 1, "quantity": quantity, "order_count": 1} for quantity in quantities]

    markets = read(
        [
            frame("TradeExecuted", price=10.01, is_aggressive_buy=True),
            frame("TradeExecuted", price=10.0, is_aggressive_buy=False),
            frame("QuoteUpdate", best_bid=10.0, best_ask=10.02),
            frame("QuoteUpdate", best_bid=10.01, best_ask=10.02),
            frame("QuoteUpdate", best_bid=None, best_ask=10.02),
            frame("OrderBookSnapshot", bids=levels(30, 10), asks=levels(30)),
            frame("OrderPlaced"),
            frame("OrderCancelled"),
            frame("AgentAction"),
        ]
    )
    columns = markets["X"]
    assert columns.trade_signs == [1, -1]
    assert columns.trade_prices == [1_001_000_000, 1_000_000_000]
    assert columns.quote_times == [7, 7]
    assert columns.tick() == 1_000_000
    assert columns.order_messages == 2
    assert depth_profile(columns)[:3] == pytest.approx([6 / 7, 1 / 7, 0])
    values = {statistic.name: statistic.measure(columns) for statistic in STATISTICS}
    assert values.pop("median spread, ticks") == 1.5
    assert values.pop("share of 10 levels' depth at the best") == pytest.approx(6 / 7)
    assert set(values.values()) == {None}, "too few events for the others"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(4, "inside"), (27, "inside"), (2, "near"), (29, "near"), (1.9, "outside"), (30, "outside")],
)
def test_a_value_is_inside_near_or_outside_the_recorded_range(value, verdict):
    assert Statistic("kurtosis", 4, 27, 2, lambda _: None).verdict(value) == verdict


def test_the_default_market_looks_like_a_recorded_one():
    session = realism.Session(seed=1, minutes=2.2, symbols=())
    markets = read(session.events())
    assert len(markets) == 24
    outside = {
        statistic.name: found
        for statistic in STATISTICS
        if statistic.verdict(found := median(filter(None, map(statistic.measure, markets.values())))) == "outside"
    }
    assert set(outside) <= {"order messages per trade"}
    assert session.halts == 0


def test_the_command_prints_the_scorecard_and_draws_both_markets(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["realism", "--minutes", "2.2", "--symbols", "AAPL,KO", "--out", str(tmp_path)]
    )
    assert realism.main() == 0
    printed = capsys.readouterr().out
    assert "seed 1: 2 symbols, 2.2 minutes" in printed
    table = [line for line in printed.splitlines() if line.endswith((" inside", " near", " outside"))]
    assert len(table) == len(STATISTICS)
    picture = ElementTree.parse(tmp_path / "realism.svg").getroot()  # noqa: S314 (our own file)
    titles = [
        text.text for text in picture.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "title"
    ]
    assert any("simulated AAPL" in str(title) for title in titles)
    if realism.BINANCE.exists():
        assert any("recorded BTCUSDT" in str(title) for title in titles)
        # The recorded ranges come from such captures: this one must lie inside them.
        signs = next(line for line in table if "trade signs, lag 1 " in line)
        assert "0.79" in signs


def test_an_unknown_symbol_or_too_short_a_session_is_one_clear_error(monkeypatch, capsys):
    for arguments, message in ((["--symbols", "NOPE"], "NOPE"), (["--minutes", "1"], "--minutes")):
        monkeypatch.setattr("sys.argv", ["realism", *arguments])
        with pytest.raises(SystemExit):
            realism.main()
        assert message in capsys.readouterr().err
