from __future__ import annotations

import pytest

from simulator.market import DEFAULT_CONFIG, MarketConfigError, load_market


def test_the_default_market_has_24_symbols_and_258_agents():
    market = load_market()
    assert len(market.symbols) == 24
    assert sum(market.agents.model_dump().values()) == 258
    assert market.symbols[0].initial_ticks == 18_500
    rates = {name: rate for name, rate in market.data_quality.model_dump().items() if name.endswith("_rate")}
    assert set(rates.values()) == {0.0}, "faults are off"


def test_the_default_market_opens_after_a_second_and_never_closes():
    market = load_market()
    assert (market.sessions.pre_open_seconds, market.sessions.trading_seconds) == (1.0, 0.0)
    assert market.halts.price_bands_percent == 0, "bands are off"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("initial_price = 185.00", "initial_price = 185.005", "whole number of cents"),
        ("initial_price = 185.00", "initial_price = -1.00", "greater than 0"),
        ('ticker = "GOOGL"', 'ticker = "AAPL"', "listed twice"),
        ('ticker = "GOOGL"', 'ticker = "GO\\"OG"', "pattern"),
        ("[agents]", "[agents]\nrobots = 5", "robots"),
        ("[agents]", "[agents", "config.toml"),
        ("price_bands_percent = 0", "price_bands_percent = 7", "price_bands_percent"),
        ("closed_seconds = 60.0", "closed_seconds = 0.0", "closed_seconds"),
    ],
)
def test_a_wrong_configuration_says_where_and_what(tmp_path, old, new, complaint):
    text = DEFAULT_CONFIG.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "config.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(MarketConfigError, match=complaint) as raised:
        load_market(path)
    assert str(path) in str(raised.value)


def test_a_missing_configuration_names_the_path(tmp_path):
    with pytest.raises(MarketConfigError, match=r"nowhere\.toml"):
        load_market(tmp_path / "nowhere.toml")
