"""Faults of the wire, for testing what reads it: duplicated, swapped, missing and malformed frames.

In: consecutive frames of a session. Out: the frames as they go over the wire. The journal stays perfect and
says what the exchange printed; a frame's faults depend on the seed and its sequence only, so a client that
reconnects meets the same faults again, and two clients the same ones. All rates are 0 by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from simulator.market import DataQuality

KINDS = ("duplicate", "out_of_order", "missing", "malformed")


class Faults:
    """Decides which frames suffer what."""

    def __init__(self, rates: DataQuality, seed: int) -> None:
        self._rates = rates
        self._seed = seed
        self.enabled = any(
            (rates.duplicate_rate, rates.out_of_order_rate, rates.missing_data_rate, rates.malformed_rate)
        )

    def of(self, sequence: int) -> tuple[str, ...]:
        """The faults of one frame. A swap concerns frames 2k and 2k + 1 and is a fault of the first."""
        digest = blake2b(f"{self._seed}:{sequence}".encode(), digest_size=16).digest()
        draw = [int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4, 8, 12)]
        rates = self._rates
        if draw[0] < rates.missing_data_rate:
            return ("missing",)
        kinds = []
        if draw[1] < rates.malformed_rate:
            kinds.append("malformed")
        if draw[2] < rates.duplicate_rate:
            kinds.append("duplicate")
        if sequence % 2 == 0 and draw[3] < 2 * rates.out_of_order_rate:
            kinds.append("out_of_order")
        return tuple(kinds)


class FaultyWire:
    """One client's stream. Holds a frame back while the frame that is to overtake it has not been printed yet."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._held: list[bytes] = []

    def send(self, first_sequence: int, frames: Sequence[bytes]) -> list[bytes]:
        """The frames first_sequence … as this client receives them."""
        wire: list[bytes] = []
        for sequence, frame in enumerate(frames, first_sequence):
            kinds = self._faults.of(sequence)
            copies = 0 if "missing" in kinds else 2 if "duplicate" in kinds else 1
            sent = [frame[: len(frame) // 2] if "malformed" in kinds else frame] * copies
            if "out_of_order" in kinds:
                self._held = sent
            else:
                wire += sent + self._held
                self._held = []
        return wire

    def flush(self) -> list[bytes]:
        """What is still held back, when nothing will overtake it any more."""
        held, self._held = self._held, []
        return held
