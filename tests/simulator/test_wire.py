"""Encoded blocks against the ``websockets`` library's own frames, readers that share them, real connections."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.frames import Frame, Opcode

from simulator.journal import JournalReader
from simulator.wire import KEPT_BLOCKS, SharedBlocks, encode, send_messages

LENGTHS = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 127, 65_535, 65_536, 70_000]))


@given(st.lists(LENGTHS, min_size=1, max_size=8))
def test_encoded_messages_are_the_librarys_own(lengths):
    frames = [bytes([97 + n]) * length for n, length in enumerate(lengths)]
    block = b"".join(frame + b"\n" for frame in frames)
    own = [Frame(Opcode.TEXT, frame).serialize(mask=False) for frame in frames]
    assert encode(block, batch=False) == b"".join(own)
    assert encode(block, batch=True) == Frame(Opcode.TEXT, block[:-1]).serialize(mask=False)


@pytest.fixture
def journal(running, frames):
    """Runs a check on a journal of 400 frames in many small segments, as the server's event loop would."""

    def check(act):
        async def run():
            async with running([("s1", frames(1, 400))], segment_bytes=1_000) as exchange:
                for first in range(401, 801, 40):
                    exchange.journal.append(frames(first, first + 39))
                act(exchange.journal)

        asyncio.run(run())

    return check


def test_readers_at_the_same_position_share_one_block_and_go_on_alone(journal, frames):
    def act(opened):
        session = opened.current
        blocks = SharedBlocks()
        readers = [JournalReader(session, 395) for _ in range(3)]
        first = [blocks.next(session, reader, False) for reader in readers]
        assert first[0] is first[1] is first[2]
        assert blocks.next(session, JournalReader(session, 395), True) != first[0], "batches are another encoding"
        assert len({reader.position for reader in readers}) == 1
        sent = [[block] for block in first]
        for reader, taken in zip(readers, sent, strict=True):
            while block := blocks.next(session, reader, False):
                taken.append(block)
            reader.close()
        wanted = encode(b"".join(frame + b"\n" for frame in frames(395, 800)), batch=False)
        assert [b"".join(taken) for taken in sent] == [wanted] * 3
        opened.append(frames(801, 801))
        news = [blocks.next(session, reader, False) for reader in readers]
        assert news[0] is news[2]
        assert news[0] == encode(frames(801, 801)[0] + b"\n", batch=False)

    journal(act)


def test_only_so_many_blocks_are_kept(journal):
    def act(opened):
        session = opened.current
        blocks = SharedBlocks()
        first = blocks.next(session, JournalReader(session, 1), False)
        for sequence in range(2, KEPT_BLOCKS + 1):
            blocks.next(session, JournalReader(session, sequence), False)
        assert blocks.next(session, JournalReader(session, 1), False) is first
        blocks.next(session, JournalReader(session, KEPT_BLOCKS + 1), False)
        again = blocks.next(session, JournalReader(session, 1), False)
        assert again == first
        assert again is not first

    journal(act)


def serving(handler, talk, **options):
    """Runs a client against a handler of one connection."""

    async def run():
        async with serve(handler, "127.0.0.1", 0, compression=None, **options) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
                await talk(client)

    asyncio.run(asyncio.wait_for(run(), 20))


async def library_messages(client):
    """All messages until the connection is closed, however it is."""
    try:
        while True:
            yield await client.recv()
    except ConnectionClosed:
        return


def test_nothing_can_get_between_the_fragments_of_another_message():
    refused = []

    async def handler(connection):
        async def fragments():
            yield "one "
            try:
                await send_messages(connection, encode(b"between\n", batch=False))
            except ConcurrencyError as error:
                refused.append(str(error))
            yield "message"

        await connection.send(fragments())
        await send_messages(connection, encode(b"after\n", batch=False))

    async def talk(client):
        assert await client.recv() == "one message"
        assert await client.recv() == "after"

    serving(handler, talk)
    assert refused == ["a fragmented message is being sent"]


def test_pings_and_the_close_frame_stand_between_whole_messages():
    frames = [b"%05d" % n * 100 for n in range(20_000)]
    pings = []

    async def handler(connection):
        for first in range(0, len(frames), 100):
            block = b"".join(frame + b"\n" for frame in frames[first : first + 100])
            await send_messages(connection, encode(block, batch=False))
            pings.append(await connection.ping())
        await connection.close(1013, "that was all")

    async def talk(client):
        assert [message.encode() async for message in library_messages(client)] == frames
        assert (client.close_code, client.close_reason) == (1013, "that was all")

    serving(handler, talk)
    assert len(pings) == 200
    assert sum(ping.done() and ping.exception() is None for ping in pings) > 100, "answered meanwhile"


def test_a_closed_connection_is_told_apart():
    raised = []

    async def handler(connection):
        await connection.wait_closed()
        try:
            await send_messages(connection, encode(b"too late\n", batch=False))
        except ConnectionClosed as error:
            raised.append(error)

    async def talk(client):
        await client.close()

    serving(handler, talk)
    assert len(raised) == 1
