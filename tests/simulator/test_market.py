from __future__ import annotations

import pytest

from simulator.market import DEFAULT_CONFIG, MarketConfigError, load_market


def test_the_default_market_has_24_symbols_and_258_agents():
    market = load_market()
    assert len(market.symbols) == 24
    assert sum(market.agents.model_dump().values()) == 258
    assert market.symbols[0].initial_ticks == 18_500
    assert set(market.data_quality.model_dump().values()) == {0.0}, "faults are off"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("initial_price = 185.00", "initial_price = 185.005", "whole number of cents"),
        ("initial_price = 185.00", "initial_price = -1.00", "greater than 0"),
        ('ticker = "GOOGL"', 'ticker = "AAPL"', "listed twice"),
        ('ticker = "GOOGL"', 'ticker = "GO\\"OG"', "pattern"),
        ("[agents]", "[agents]\nrobots = 5", "robots"),
        ("[agents]", "[agents", "config.toml"),
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
