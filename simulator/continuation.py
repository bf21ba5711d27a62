"""The prices at which the last simulated session ended, so that the next one can open at them.

In: the journal's directory (layout: :mod:`simulator.journal`). Out: the newest price of each symbol, in ticks,
from the MarketStats and the trades at the end of the newest simulated session that has any. Reads the last
segments only. What cannot be read is passed over: then the configuration's prices hold.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

from simulator.exchange import NAME
from simulator.market import TICKS_PER_DOLLAR

LAST_SEGMENTS = 3
"""Read from the end: 8 to 12 MiB, where every symbol prints its statistics each second."""

_PRICE = re.compile(
    rb'\{"event_type":"(?:MarketStats|TradeExecuted)".*?"symbol":"([^"]+)".*?"(?:close|price)":(\d+)\.(\d\d)\b.*\}'
)

logger = logging.getLogger(__name__)


def last_prices(journal_dir: Path) -> dict[str, int]:
    """Symbol → ticks; empty where no simulated session has left a price."""
    for session in _simulated_sessions(journal_dir):
        prices = _prices_at_end(session)
        if prices:
            logger.info("opening at the last prices of session %s", session.name)
            return prices
    return {}


def _simulated_sessions(journal_dir: Path) -> list[Path]:
    """The newest first."""
    found = []
    for path in journal_dir.glob("*/session.json"):
        try:
            facts = json.loads(path.read_bytes())
            if facts["exchange"] == NAME:
                found.append((int(facts["number"]), path.parent))
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("journal: %s is no session (%s) and is left alone", path.parent, error)
    return [path for _, path in sorted(found, reverse=True)]


def _prices_at_end(session: Path) -> dict[str, int]:
    prices: dict[str, int] = {}
    for segment in sorted(session.glob("*.jsonl"))[-LAST_SEGMENTS:]:
        with segment.open("rb") as file:
            for line in file:
                match = _PRICE.fullmatch(line.rstrip(b"\n"))  # a torn line has no end
                if match:
                    ticks = int(match[2]) * TICKS_PER_DOLLAR + int(match[3])
                    if ticks:
                        prices[match[1].decode()] = ticks
    return prices
