"""Draining: what `just down` waits for, and what it says when it cannot wait any longer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from deploy.local import probes
from deploy.local.services import Service
from deploy.local.settings import LocalSettings
from deploy.local.start import start
from deploy.local.stop import drain_and_stop, journal_end
from deploy.local.supervision import Supervisor

Make = Callable[..., Service]

COUNTING = """
import signal, sys
from prometheus_client import Gauge, start_http_server
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
values = iter({values!r})
last = [0]
def read():
    last[0] = next(values, last[0])
    return last[0]
Gauge({metric!r}, "changes with each scrape").set_function(read)
start_http_server({port}, "127.0.0.1")
while True: signal.pause()
"""
"""A service whose only metric walks through a list of values, one a scrape."""


def _journal(settings: LocalSettings, *sequences: int) -> Path:
    segment = settings.root / "exchange" / "journal" / "s-1" / f"{sequences[0]:020}.jsonl"
    segment.parent.mkdir(parents=True)
    segment.write_text("".join(f'{{"event_type":"QuoteUpdate","data":{{"sequence":{n}}}}}\n' for n in sequences))
    return segment


def _counting(script: Make, name: str, metric: str, values: list[int], port: int, step: int) -> Service:
    text = COUNTING.format(metric=metric, values=values, port=port)
    ready = partial(probes.serves, f"http://127.0.0.1:{port}/")
    return script(name, text, stop_step=step, ready=ready, early=True, metrics_port=port)


def test_down_waits_for_the_bridge_and_then_for_the_flows(
    supervisor: Supervisor,
    settings: LocalSettings,
    script: Make,
    mark: dict[str, str],
    free_port: Callable[[], int],
) -> None:
    _journal(settings, 1, 2, 7)
    bridge = _counting(script, "bridge", "tickhouse_bridge_acknowledged_sequence", [0, 2, 3, 5, 7], free_port(), 2)
    flow = _counting(script, "vwap", "tickhouse_flow_lag_messages", [9, 9, 4, 0, 0, 0], free_port(), 3)
    lines: list[str] = []
    start(supervisor, [bridge, flow], mark, 20, print)
    drain_and_stop(supervisor, [bridge, flow], 20, lines.append)
    assert lines[0] == "  bridge: all 7 events of the session are in Kafka"
    assert lines[1].startswith("  stopped bridge in")
    assert lines[2] == "  flows: every message was read"
    assert lines[3].startswith("  stopped vwap in")


def test_down_gives_up_when_the_time_is_up_and_says_where_the_rest_is(
    supervisor: Supervisor,
    settings: LocalSettings,
    script: Make,
    mark: dict[str, str],
    free_port: Callable[[], int],
) -> None:
    _journal(settings, 1, 900)
    bridge = _counting(script, "bridge", "tickhouse_bridge_acknowledged_sequence", [0, 500], free_port(), 2)
    flow = _counting(script, "vwap", "tickhouse_flow_lag_messages", [40], free_port(), 3)
    lines: list[str] = []
    start(supervisor, [bridge, flow], mark, 20, print)
    drain_and_stop(supervisor, [bridge, flow], 0, lines.append)
    assert lines[0].endswith("of 900; the rest waits in the exchange's journal")
    assert lines[2] == "  flows: 40 messages were not read in time; they wait in Kafka for the next start"


def test_the_end_of_the_journal_is_its_last_complete_line(settings: LocalSettings) -> None:
    assert journal_end(settings.root) is None
    segment = _journal(settings, 5, 6)
    with segment.open("a") as torn:
        torn.write('{"event_type":"QuoteUpdate","data":{"sequence":7')
    assert journal_end(settings.root) == 6


def test_an_empty_new_segment_does_not_hide_the_one_before(settings: LocalSettings) -> None:
    segment = _journal(settings, 5, 6)
    (segment.parent / f"{7:020}.jsonl").write_text("")
    assert journal_end(settings.root) == 6
