"""The WebSocket server with real clients over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator.market import DataQuality
from simulator.server import BadQuery, Resume, parse_resume


def scenario(coroutine):
    asyncio.run(asyncio.wait_for(coroutine, 30))


async def take(client, count: int) -> list[bytes]:
    """So many frames, whatever messages they come in."""
    received: list[bytes] = []
    while len(received) < count:
        received += (await client.recv(decode=False)).split(b"\n")
    assert len(received) == count
    return received


async def take_welcome(client) -> dict:
    message = json.loads(await client.recv())
    assert message.pop("type") == "welcome"
    assert "event_type" not in message
    return message


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


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("first", [1, 2, 499, 500])
def test_a_client_that_resumes_gets_every_frame_from_its_sequence_on_once(running, frames, batch, first):
    async def run():
        async with running([("s1", frames(1, 500))], segment_bytes=3_000) as exchange:
            query = f"?session=s1&from_sequence={first}"
            async with exchange.connect(query, batch=batch) as client:
                assert (await take_welcome(client))["next_sequence"] == first
                assert await take(client, 501 - first) == frames(first, 500)
                exchange.publish(frames(501, 510))
                assert await take(client, 10) == frames(501, 510)

    scenario(run())


def test_a_client_of_an_earlier_session_gets_its_rest_and_then_every_later_session(running, frames):
    async def run():
        sessions = [("s1", frames(1, 20)), ("s2", frames(1, 5)), ("s3", frames(1, 3))]
        async with running(sessions) as exchange:
            async with exchange.connect("?session=s1&from_sequence=18", batch=True) as client:
                for session_id, first, last in (("s1", 18, 20), ("s2", 1, 5), ("s3", 1, 3)):
                    hello = await take_welcome(client)
                    assert (hello["session_id"], hello["next_sequence"]) == (session_id, first)
                    assert await take(client, last - first + 1) == frames(first, last)
                exchange.publish(frames(4, 4))
                assert await take(client, 1) == frames(4, 4)
            async with exchange.connect("?session=s2&from_sequence=6") as client:
                assert (await take_welcome(client))["next_sequence"] == 6, "nothing was missed"
                assert (await take_welcome(client))["session_id"] == "s3"

    scenario(run())


@pytest.mark.parametrize(
    "query", ["?from_sequence=0", "?session=unknown&from_sequence=77", "?session=..%2F..%2Fetc"]
)
def test_a_client_the_journal_does_not_know_starts_at_the_earliest_frame_kept(running, frames, query):
    async def run():
        async with running([("s0", frames(1, 5))], max_bytes=4_000, segment_bytes=1_000) as exchange:
            exchange.publish(frames(6, 40))
            exchange.publish(frames(41, 90))
            first = exchange.journal.current.first_sequence
            assert first > 5
            async with exchange.connect(query, batch=True) as client:
                assert (await take_welcome(client))["next_sequence"] == first
                assert await take(client, 91 - first) == frames(first, 90)

    scenario(run())


def test_a_sequence_that_is_yet_to_come_is_waited_for(running, frames):
    async def run():
        async with (
            running([("s1", frames(1, 5))]) as exchange,
            exchange.connect("?session=s1&from_sequence=8") as client,
        ):
            assert (await take_welcome(client))["next_sequence"] == 8
            exchange.publish(frames(6, 9))
            assert await take(client, 2) == frames(8, 9)

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


def test_a_client_that_takes_nothing_is_dropped_and_no_other_client_waits_for_it(running, frames):
    async def run():
        async with running(send_timeout=0.5) as exchange:
            raw = await stuck_client(exchange.server.port)
            async with exchange.connect("?from_sequence=0", batch=True) as other:
                await take_welcome(other)
                await exchange.until(lambda: exchange.value("tickhouse_exchange_clients") == 2, "both are there")
                for first in range(1, 5_000, 100):
                    exchange.publish(frames(first, first + 99, padding=4_000))
                    assert await take(other, 100) == frames(first, first + 99, padding=4_000)
                await exchange.until(
                    lambda: exchange.value("tickhouse_exchange_client_disconnects_total", reason="slow") == 1,
                    "the stuck client was dropped as slow",
                )
                assert exchange.value("tickhouse_exchange_clients") == 1
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


@pytest.mark.parametrize("batch", [False, True])
def test_faults_reach_clients_alike_and_a_resuming_client_meets_them_again(running, frames, batch):
    rates = DataQuality(duplicate_rate=0.1, out_of_order_rate=0.1, missing_data_rate=0.1, malformed_rate=0.1)

    async def receive(exchange, count):
        async with exchange.connect("?from_sequence=0", batch=batch) as client:
            await take_welcome(client)
            received: list[bytes] = []
            while len(received) < count:
                received += (await client.recv(decode=False)).split(b"\n")
            return received

    async def run():
        async with running([("s1", frames(1, 400))], rates=rates) as exchange:
            exchange.server.feed_ended()
            received = await receive(exchange, 300)
            again = await receive(exchange, 300)
            shorter = min(len(received), len(again))
            assert received[:shorter] == again[:shorter]
            assert received != frames(1, 400)[: len(received)]
            assert len(set(received) & set(frames(1, 400))) > 200

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
