"""A recorded market of any known format, as a feed."""

from __future__ import annotations

from pathlib import Path

from simulator.recorded.binance import BinanceReplay
from simulator.recorded.capture import OtherFormatError, Replay, ReplayError
from simulator.recorded.coinbase import CoinbaseReplay
from simulator.recorded.recording import RecordingReplay


def open_replay(path: str | Path) -> Replay:
    """The replay of a file of any known format, told by its content.

    Raises:
        ReplayError: the file is not there, not readable, or of no known format.
    """
    formats: tuple[type[Replay], ...] = (RecordingReplay, BinanceReplay, CoinbaseReplay)
    for kind in formats:
        try:
            return kind(path)
        except OtherFormatError:
            continue
    known = ", ".join(kind.format_name for kind in formats)
    raise ReplayError(f"{path} is no recorded market; known are: {known}")
