"""Latency of the whole system: from an event's timestamp at the exchange to a reader of the API's live stream.

Starts an instance of its own (own ports, own data), with agents active enough for the wanted rate, reads every
trade, quote and book of ``GET /api/v1/live`` as a browser would, and stops it again. Exchange, broker, bridge,
flows, Prefect and the reader share the machine, and a full minute includes a run of silver and gold.

    python -m tests.benchmarks.e2e [--rate EVENTS_PER_SECOND] [--seconds S] [--broker auto|kafka|embedded]

Fails when the exchange printed fewer events a second than wanted, or when the reader did not get exactly the
events that stand in the exchange's journal.
"""

from __future__ import annotations

import argparse
import http.client
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from simulator.events import format_timestamp
from tests.e2e import journal
from tests.e2e.instance import Instance

KINDS = {"trade": "TradeExecuted", "quote": "QuoteUpdate", "book": "OrderBookSnapshot"}
EVENTS_AT_ACTIVITY_1 = 1050.0
"""What the default market prints each second; see ``exchange_activity``."""
MARGIN = 1.2
"""Asked for above the wanted rate, because a market is not a metronome."""
LONGEST_LATENCY = 10.0
"""Seconds that the last events are waited for."""

_EVENT = re.compile(rb'event: (trade|quote|book)\ndata: [^\n]*?"timestamp": ?"([^"]+)"')


class Stream:
    """A reader of the live stream."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        self._connection.request("GET", "/api/v1/live?kinds=" + ",".join(KINDS))
        self._response = self._connection.getresponse()
        assert self._response.status == 200, self._response.read()

    def chunks(self) -> Iterator[tuple[float, bytes]]:
        """(wall clock when it arrived, one or more whole events), for ever."""
        rest = b""
        while data := self._response.read1(1 << 20):
            arrived = time.time()
            whole, end, rest = (rest + data).rpartition(b"\n\n")
            if end:
                yield arrived, whole
        raise ConnectionError("the live stream has ended")

    def close(self) -> None:
        """Hang up."""
        sock: socket.socket | None = self._connection.sock
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def measure(
    instance: Instance, warm_up: float, seconds: float, when_read: Callable[[], None] = lambda: None
) -> tuple[dict[str, list[float]], float]:
    """Latencies by kind, in seconds, of the events of ``seconds``; and how many a second the exchange printed.

    ``when_read`` is called when the last has come: reading the journal, which follows, takes a processor.

    Raises:
        AssertionError: the reader did not get exactly the events that the exchange printed.
    """
    stream = Stream(instance.api)
    begin = int(time.time() + warm_up)
    since, before = (format_timestamp(int(at * 1e6)) for at in (begin, begin + seconds))
    latencies: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for arrived, events in stream.chunks():
        for kind, text in _EVENT.findall(events):
            timestamp = text.decode()
            if since <= timestamp < before:
                latency = arrived - datetime.fromisoformat(timestamp).timestamp()
                latencies[kind.decode()].append(latency)
        if arrived > begin + seconds + LONGEST_LATENCY:
            break
    stream.close()
    when_read()
    printed = journal.events(instance.data_dir, since, before)
    for kind, found in latencies.items():
        wanted = printed.get(KINDS[kind], 0)
        assert len(found) == wanted > 0, f"{len(found):,} {kind}s came, and {wanted:,} were printed"
    return latencies, sum(printed.values()) / seconds


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of the sorted ``values`` do not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]


def report(latencies: dict[str, list[float]], rate: float) -> None:
    """Print the figures; the last two lines are for machines."""
    everything = sorted(latency for found in latencies.values() for latency in found)
    print(f"exchange printed {rate:,.0f} events/s; {len(everything):,} of them reached the reader")
    for kind, found in [*latencies.items(), ("all", everything)]:
        ordered = sorted(found)
        shown = ", ".join(
            f"p{100 * p:g} {1e3 * percentile(ordered, p):.1f}" for p in (0, 0.5, 0.9, 0.99, 0.999, 1)
        )
        print(f"  {kind:<6} {len(ordered):>8,} events, ms: {shown}")
    print(f"bench e2e value={1e3 * percentile(everything, 0.5):.1f} unit=ms_p50")
    print(f"bench e2e value={1e3 * percentile(everything, 0.99):.1f} unit=ms_p99")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2_000, help="events/s that the exchange has to print")
    parser.add_argument("--seconds", type=float, default=60, help="length of the measurement, at least 30")
    parser.add_argument("--warm-up", type=float, default=20, help="seconds before it")
    parser.add_argument("--broker", default="auto", help="auto, kafka, embedded or HOST:PORT")
    arguments = parser.parse_args()
    if arguments.seconds < 30:
        parser.error("--seconds must be at least 30")
    activity = arguments.rate * MARGIN / EVENTS_AT_ACTIVITY_1
    with tempfile.TemporaryDirectory(prefix="tickhouse-bench-") as directory:
        instance = Instance.create(Path(directory) / "data", {"TICKHOUSE_EXCHANGE_ACTIVITY": f"{activity:.3f}"})
        try:
            print(instance.up(f"broker={arguments.broker}"))
            latencies, rate = measure(instance, arguments.warm_up, arguments.seconds)
        finally:
            instance.end()
    report(latencies, rate)
    if rate < arguments.rate:
        print(f"only {rate:,.0f} events/s were printed, {arguments.rate:,.0f} are wanted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
