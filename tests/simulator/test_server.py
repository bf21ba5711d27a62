"""The WebSocket server with real clients over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.server import BadQuery, Resume, parse_resume
from simulator.wire import BACKLOG_BYTES, BATCH_BYTES
from tests.simulator.clients import scenario, take, take_welcome


def test_a_client_without_a_query_gets_a_welcome_and_then_live_frames(running, frames):
    async def run():
        async with running([("s1", frames(1, 7))]) as exchange, exchange.connect() as client:
            assert await take_welcome(client) == {
                "exchange": "TEST",
                "symbols": ["AAPL"],
                "session_id": "s1",
                "next_sequence": 8,
            }
            exchange.publish(frames(8, 9))
            assert [await client.recv(decode=False), await client.recv(decode=False)] == frames(8, 9)

    scenario(run())


def test_messages_are_text_and_one_event_each_unless_the_client_asks_for_batches(running, frames):
    async def run():
        async with (
            running() as exchange,
            exchange.connect() as plain,
            exchange.connect(batch=True) as batch,
            exchange.connect("?from_sequence=0", subprotocols=["something.else"]) as other,
        ):
            for client in (plain, batch, other):
                await take_welcome(client)
            assert (plain.subprotocol, batch.subprotocol, other.subprotocol) == (None, "tickhouse.batch.v1", None)
            exchange.publish(frames(1, 50))
            texts = [frame.decode() for frame in frames(1, 50)]
            assert await batch.recv() == "\n".join(texts)
            assert [await plain.recv() for _ in range(50)] == texts
            assert [await other.recv() for _ in range(50)] == texts

    scenario(run())


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "٣", "1" * 30, "99999999999999999999"])
def test_a_wrong_query_is_refused_with_http_400(running, text):
    if text:
        with pytest.raises(BadQuery):
            parse_resume(f"/?from_sequence={text}")

    async def run():
        async with running() as exchange:
            with pytest.raises(InvalidStatus) as raised:
                await exchange.connect(f"?from_sequence={text or 'e'}")
            assert raised.value.response.status_code == 400
            assert b"whole number" in raised.value.response.body

    scenario(run())


def test_the_query_is_read_as_sent():
    assert parse_resume("/") == Resume(None, None)
    assert parse_resume("/?session=a%3Ab&from_sequence=12") == Resume("a:b", 12)
    assert parse_resume("/ws?session=s") == Resume("s", None)


def test_more_clients_than_allowed_get_http_503_until_one_leaves(running):
    async def run():
        async with running(max_clients=2) as exchange:
            first = await exchange.connect()
            await exchange.connect()
            with pytest.raises(InvalidStatus) as raised:
                await exchange.connect()
            assert raised.value.response.status_code == 503
            assert exchange.value("tickhouse_exchange_clients_refused_total") == 1
            await first.close()
            await exchange.until(lambda: exchange.value("tickhouse_exchange_clients") == 1, "a client left")
            await exchange.connect()

    scenario(run())


@pytest.mark.parametrize(("message", "code"), [("hello", 1008), ("x" * 300, 1009)])
def test_a_client_that_talks_is_disconnected(running, message, code):
    async def run():
        async with running() as exchange, exchange.connect() as client:
            await take_welcome(client)
            await client.send(message)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == code
            await exchange.until(
                lambda: exchange.value("tickhouse_exchange_client_disconnects_total", reason="sent_data") == 1,
                "counted",
            )

    scenario(run())


async def stuck_client(port: int, query: str = "?from_sequence=0") -> socket.socket:
    """A client that shakes hands and then reads nothing, not even pings."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.sendall(
        f"GET /{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return raw


def test_a_client_that_takes_nothing_is_dropped_with_a_reason(running, frames):
    async def run():
        async with running([("s1", frames(1, 5_000, padding=4_000))], send_timeout=0.5) as exchange:
            raw = await stuck_client(exchange.server.port)
            await exchange.until(lambda: len(exchange.connections) == 1, "the client is there")
            await exchange.until(lambda: not exchange.connections, "the exchange has begun to close")
            raw.sendall(b"\x88\x80\x00\x00\x00\x00")  # its own close frame, the answer to the one to come
            received = await asyncio.to_thread(read_to_end, raw)
            assert received.endswith(b"\x03\xf5too slow: took nothing for 0.5 s; resume"), "close frame, code 1013"
            await exchange.until(
                lambda: exchange.value("tickhouse_exchange_client_disconnects_total", reason="slow") == 1,
                "counted",
            )

    scenario(run())


def read_to_end(raw: socket.socket) -> bytes:
    raw.settimeout(20)
    received = b"".join(iter(lambda: raw.recv(1 << 20), b""))
    raw.close()
    return received


@pytest.mark.parametrize("query", ["", "?from_sequence=0"])
def test_neither_the_market_nor_another_client_waits_for_a_stuck_one(running, frame, query):
    """The whole feed is published and taken by three others while the stuck client keeps its connection."""
    count = 3_000
    start_us = time.monotonic_ns() // 1000
    pairs = [(start_us + n * 500, frame(n, padding=8_000)) for n in range(1, count + 1)]

    async def run():
        async with running(send_timeout=60) as exchange:
            raw = await stuck_client(exchange.server.port, query)
            others = [await exchange.connect("?from_sequence=0", batch=batch) for batch in (True, False, False)]
            for other in others:
                await take_welcome(other)
            await exchange.until(lambda: exchange.value("tickhouse_exchange_clients") == 4, "all are there")
            backlogs: list[int] = []

            def published() -> None:
                exchange.server.published()
                backlogs.append(max(exchange.backlogs()))

            publisher = exchange.publisher(pairs, speed=1, on_published=published)
            results = await asyncio.gather(publisher.run(), *(take(other, count) for other in others))
            assert results[1:] == [[frame for _, frame in pairs]] * 3
            assert exchange.value("tickhouse_exchange_clients") == 4
            largest = len(frame(count, padding=8_000)) + 10
            assert 0 < max(backlogs) <= BACKLOG_BYTES + BATCH_BYTES + largest
            for other in others:
                await other.close()
            raw.close()

    scenario(run())


def test_a_client_that_does_not_answer_pings_is_dropped(running):
    async def run():
        async with running(ping_interval=0.2, ping_timeout=0.2) as exchange:
            raw = await stuck_client(exchange.server.port)
            await exchange.until(
                lambda: exchange.value("tickhouse_exchange_client_disconnects_total", reason="ping_timeout") == 1,
                "counted",
            )
            raw.close()

    scenario(run())


def test_a_client_whose_next_frame_was_removed_is_told_and_can_come_back(running, frames):
    async def run():
        async with running(max_bytes=100_000, segment_bytes=50_000) as exchange:
            async with exchange.connect("?from_sequence=0", batch=True, max_queue=1) as client:
                await take_welcome(client)
                # The client's task has no chance to run while the journal moves past it.
                for first in range(1, 3_000, 100):
                    exchange.journal.append(frames(first, first + 99, padding=1_000))
                exchange.server.published()
                with pytest.raises(ConnectionClosed):
                    await take(client, 3_000)
                assert client.close_code == 1013
                assert "fell behind" in client.close_reason
            await exchange.until(
                lambda: exchange.value("tickhouse_exchange_client_disconnects_total", reason="fell_behind") == 1,
                "counted",
            )
            first = exchange.journal.current.first_sequence
            async with exchange.connect("?session=session-1&from_sequence=1", batch=True) as client:
                assert (await take_welcome(client))["next_sequence"] == first
                assert await take(client, 3_001 - first) == frames(first, 3_000, padding=1_000)

    scenario(run())


def test_after_the_end_of_the_feed_the_whole_session_is_still_served(running, frames):
    async def run():
        async with running([("s1", frames(1, 40))], keep_all=True) as exchange:
            exchange.server.feed_ended()
            async with exchange.connect("?session=s1&from_sequence=1", batch=True) as client:
                await take_welcome(client)
                assert await take(client, 40) == frames(1, 40)
            await exchange.until(lambda: exchange.value("tickhouse_exchange_clients") == 0, "noticed that it left")

    scenario(run())


def test_stopping_tells_the_clients(running, frames):
    async def run():
        async with running() as exchange:
            client = await exchange.connect()
            await take_welcome(client)
            await exchange.server.stop()
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1001
            assert exchange.value("tickhouse_exchange_client_disconnects_total", reason="server_stopping") == 1

    scenario(run())
