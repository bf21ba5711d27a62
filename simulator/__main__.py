"""``python -m simulator``: the exchange process.

In: settings from the environment, overridden by options. Out: the WebSocket server and the Prometheus port,
until SIGTERM or SIGINT; then clients are told, and the exit code is 0. An error that ends it is one line on
stderr, exit code 1. A simulated market starts a new session each time, at the last prices of the one before; a
replay of the same file continues where it was killed.

With ``--out FILE`` nothing is served: the feed is recorded, with the progress on stderr, and one line on stdout in
the end. Such a market follows from the options alone: it starts at ``--start``, and reads no journal.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server
from pydantic import ValidationError

from simulator.continuation import last_prices
from simulator.events import format_timestamp
from simulator.exchange import Exchange
from simulator.faults import Faults
from simulator.journal import Journal, JournalError
from simulator.market import DEFAULT_CONFIG, MarketConfig, MarketConfigError, load_market
from simulator.metrics import ExchangeMetrics
from simulator.publisher import Feed, Publisher
from simulator.recorded.capture import Replay, ReplayCollector, ReplayError
from simulator.recorded.recording import Progress, RecordingError, record
from simulator.replay import open_replay
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings

RECORDING_START = "2026-01-05T14:30:00Z"
"""Of a recorded market where none is given, so that the same options give the same bytes."""

logger = logging.getLogger("simulator")


class StartError(RuntimeError):
    """The exchange cannot start; the message says what to do."""


def now_us() -> int:
    """Microseconds since the epoch, from the machine's clock."""
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Out:
    """A recording that was asked for."""

    path: Path
    start_us: int
    """Market time of the first event, µs since the epoch."""


def read_settings(arguments: Sequence[str]) -> tuple[ExchangeSettings, Out | None]:
    """Environment, then options over it; and the recording, if one is asked for.

    Raises:
        StartError: a setting breaks a rule.
    """
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="The exchange. Every option overrides an environment variable TICKHOUSE_…",
    )
    parser.add_argument("--feed", choices=("simulated", "replay"))
    parser.add_argument("--file", type=Path, help="recorded market to replay (implies --feed replay)")
    parser.add_argument("--speed", type=float, help="times real time; 0 = as fast as it goes")
    parser.add_argument("--duration", type=float, help="market seconds after which the simulated market ends")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--symbols", help="those of the market that trade, as AAPL,TSLA; default: all")
    parser.add_argument("--activity", type=float, help="multiplies how often agents act")
    parser.add_argument("--out", type=Path, help="record to this file (.jsonl.zst or .jsonl), serve nothing")
    parser.add_argument("--start", help=f"market time at which the recording starts; default {RECORDING_START}")
    parser.add_argument("--port", type=int, help="WebSocket port")
    parser.add_argument("--metrics-port", type=int)
    given = parser.parse_args(arguments)
    feed = given.feed or ("replay" if given.file else None)
    chosen: dict[str, Any] = {
        "exchange_feed": feed,
        "replay_file": given.file,
        "exchange_speed": given.speed,
        "replay_speed": given.speed,
        "exchange_duration_seconds": given.duration,
        "exchange_seed": given.seed,
        "exchange_symbols": given.symbols,
        "exchange_activity": given.activity,
        "exchange_port": given.port,
        "exchange_metrics_port": given.metrics_port,
    }
    try:
        settings = ExchangeSettings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(
            f"{'TICKHOUSE_' + '_'.join(map(str, e['loc'])).upper() + ': ' if e['loc'] else ''}{e['msg']}"
            for e in error.errors()
        )
        raise StartError(f"settings: {wrong}") from error
    if given.out is None:
        if given.start is not None:
            raise StartError("--start is for a recording: add --out FILE")
        return settings, None
    return settings, Out(given.out, _epoch_us(given.start or RECORDING_START))


def _epoch_us(text: str) -> int:
    try:
        start = datetime.fromisoformat(text)
        since = start - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, TypeError) as error:
        raise StartError(f"--start {text} is not a time with a zone, as {RECORDING_START} ({error})") from error
    if since.total_seconds() < 0:
        raise StartError(f"--start {text} is before 1970")
    return since // timedelta(microseconds=1)


def read_market(settings: ExchangeSettings) -> MarketConfig:
    """The configured market, of the chosen symbols only.

    Raises:
        StartError: a symbol is not in it.
    """
    market = load_market(settings.exchange_config or DEFAULT_CONFIG)
    chosen = set(settings.exchange_symbols)
    known = [symbol.ticker for symbol in market.symbols]
    strange = sorted(chosen.difference(known))
    if strange:
        raise StartError(f"{strange[0]} is not a symbol of the market: known are {', '.join(known)}")
    symbols = [symbol for symbol in market.symbols if not chosen or symbol.ticker in chosen]
    return market.model_copy(update={"symbols": symbols})


def open_feed(settings: ExchangeSettings, market: MarketConfig, start_us: int | None = None) -> Feed:
    """The feed; a simulated one starts now, at the last prices, or at a given time, at the configured prices."""
    if settings.exchange_feed == "replay":
        if settings.replay_file is None:
            raise StartError("a replay needs TICKHOUSE_REPLAY_FILE (or --file)")
        return open_replay(settings.replay_file)
    duration_us = int(settings.exchange_duration_seconds * 1e6) or None
    return Exchange(
        market,
        seed=settings.exchange_seed,
        start_us=now_us() if start_us is None else start_us,
        activity=settings.exchange_activity,
        halt_scale=settings.exchange_halt_scale,
        duration_us=duration_us,
        # A given start promises the same market each time, whatever was traded before.
        initial_ticks=last_prices(settings.journal_dir) if start_us is None else None,
    )


async def run(settings: ExchangeSettings) -> None:
    """Serve until a signal."""
    market = read_market(settings)
    journal = Journal(settings.journal_dir, max_bytes=settings.exchange_journal_max_mb << 20)
    try:
        await _serve(settings, market, journal)
    finally:
        journal.close()


async def _serve(settings: ExchangeSettings, market: MarketConfig, journal: Journal) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = ExchangeMetrics(registry)
    faults = Faults(market.data_quality, settings.exchange_seed)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    address, port = settings.exchange_host, settings.exchange_metrics_port
    try:
        start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        raise StartError(
            f"metrics port {port} cannot be opened ({error.strerror}): set TICKHOUSE_EXCHANGE_METRICS_PORT"
        ) from error
    server = ExchangeServer(
        journal,
        metrics,
        faults,
        host=address,
        port=settings.exchange_port,
        max_clients=settings.exchange_max_clients,
        send_timeout=settings.exchange_send_timeout_seconds,
    )
    feed = open_feed(settings, market)
    if isinstance(feed, Replay):
        registry.register(ReplayCollector(feed))
    journal.open_session(feed, keep_all=settings.feed_ends)
    try:
        await server.start()
    except OSError as error:
        raise StartError(
            f"{address}:{settings.exchange_port} cannot be opened ({error.strerror}): "
            "is another exchange running? Set TICKHOUSE_EXCHANGE_PORT"
        ) from error
    publisher = Publisher(
        feed,
        journal,
        metrics,
        faults,
        clock=now_us,
        speed=settings.speed,
        start_us=feed.now_us if isinstance(feed, Exchange) else None,
        on_published=server.published,
    )
    metrics.ready.set(1)
    logger.info(
        "%s at ws://%s:%d, session %s, %d symbols, metrics at http://127.0.0.1:%d/metrics",
        feed.exchange,
        address,
        server.port,
        feed.session_id,
        len(feed.symbols),
        port,
    )
    publishing = asyncio.create_task(publisher.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((publishing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if publishing.done():
            publishing.result()
            server.feed_ended()
            await stopping
    finally:
        metrics.ready.set(0)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await server.stop()
    logger.info("stopped after frame %d", journal.current.last_sequence)


def record_to(out: Out, settings: ExchangeSettings) -> None:
    """Record the feed until it ends, or until a signal; what is there then is kept."""
    market = read_market(settings)
    feed = open_feed(settings, market, out.start_us)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _: stopping.append(caught))
    facts = {
        "seed": settings.exchange_seed,
        "start": format_timestamp(out.start_us),
        "activity": settings.exchange_activity,
        "halt_scale": settings.exchange_halt_scale,
        "config_sha256": hashlib.sha256(market.model_dump_json().encode()).hexdigest(),
    }
    simulated = isinstance(feed, Exchange)
    done = record(
        feed,
        out.path,
        facts if simulated else {},
        speed=settings.speed,
        clock=time.monotonic,
        sleep=time.sleep,
        stopped=lambda: bool(stopping),
        progress=_Reporter(settings.exchange_duration_seconds if simulated else 0),
    )
    seconds = (done.last_us - done.first_us) / 1e6
    print(f"{out.path}: {done.frames:,} frames, {seconds:,.3f} s of market time, sha256 {done.sha256}", flush=True)


class _Reporter:
    """Progress on stderr: in place on a terminal, else a line now and then."""

    def __init__(self, market_seconds: float) -> None:
        self._market_us = market_seconds * 1e6
        self._began = time.monotonic()
        self._next = self._began
        terminal = sys.stderr.isatty()
        self._start, self._end = ("\r", "") if terminal else ("", "\n")
        self._wait = 0.5 if terminal else 10.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next and not progress.sha256:
            return
        self._next = now + self._wait
        rate = progress.frames / max(now - self._began, 1e-3)
        at = format_timestamp(progress.last_us)
        text = f"{progress.frames:,} frames, {rate:,.0f} a second, market time {at}"
        if self._market_us:
            text += f", {min((progress.last_us - progress.first_us) / self._market_us, 1):.0%}"
        end = "\n" if progress.sha256 else self._end
        print(f"{self._start}{text}", end=end, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A client that breaks off its handshake is no event worth a traceback; our own handler logs the others.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    try:
        settings, out = read_settings(sys.argv[1:] if arguments is None else arguments)
        if out is None:
            asyncio.run(run(settings))
        else:
            record_to(out, settings)
    except (StartError, JournalError, MarketConfigError, RecordingError, ReplayError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
