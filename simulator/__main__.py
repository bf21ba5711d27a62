"""``python -m simulator``: the exchange process.

In: settings from the environment, overridden by options. Out: the WebSocket server and the Prometheus port,
until SIGTERM or SIGINT; then clients are told, and the exit code is 0. An error that ends it is one line on
stderr, exit code 1. A simulated market starts a new session each time; a replay of the same file continues
where it was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, start_http_server
from pydantic import ValidationError

from simulator.exchange import Exchange
from simulator.faults import Faults
from simulator.journal import Journal, JournalError
from simulator.market import DEFAULT_CONFIG, MarketConfig, MarketConfigError, load_market
from simulator.metrics import ExchangeMetrics
from simulator.publisher import Feed, Publisher
from simulator.replay import BinanceReplay, ReplayError
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings

logger = logging.getLogger("simulator")


class StartError(RuntimeError):
    """The exchange cannot start; the message says what to do."""


def now_us() -> int:
    """Microseconds since the epoch, from the machine's clock."""
    return time.time_ns() // 1000


def read_settings(arguments: Sequence[str]) -> ExchangeSettings:
    """Environment, then options over it.

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
    parser.add_argument("--activity", type=float, help="multiplies how often agents act")
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
        "exchange_activity": given.activity,
        "exchange_port": given.port,
        "exchange_metrics_port": given.metrics_port,
    }
    try:
        return ExchangeSettings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(
            f"{'TICKHOUSE_' + '_'.join(map(str, e['loc'])).upper() + ': ' if e['loc'] else ''}{e['msg']}"
            for e in error.errors()
        )
        raise StartError(f"settings: {wrong}") from error


def open_feed(settings: ExchangeSettings, market: MarketConfig) -> tuple[Feed, int | None]:
    """The feed, and the time at which its first event is due (None: at once)."""
    if settings.exchange_feed == "replay":
        if settings.replay_file is None:
            raise StartError("a replay needs TICKHOUSE_REPLAY_FILE (or --file)")
        return BinanceReplay(settings.replay_file), None
    start_us = now_us()
    duration_us = int(settings.exchange_duration_seconds * 1e6) or None
    exchange = Exchange(
        market,
        seed=settings.exchange_seed,
        start_us=start_us,
        activity=settings.exchange_activity,
        halt_scale=settings.exchange_halt_scale,
        duration_us=duration_us,
    )
    return exchange, start_us


async def run(settings: ExchangeSettings) -> None:
    """Serve until a signal."""
    market = load_market(settings.exchange_config or DEFAULT_CONFIG)
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
    feed, start_us = open_feed(settings, market)
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
        start_us=start_us,
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


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A client that breaks off its handshake is no event worth a traceback; our own handler logs the others.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    try:
        asyncio.run(run(read_settings(sys.argv[1:] if arguments is None else arguments)))
    except (StartError, JournalError, MarketConfigError, ReplayError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
