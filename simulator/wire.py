"""From blocks of journal frames to bytes on a WebSocket, encoded once for all clients at the same position.

In: readers of the journal. Out: whole text messages of RFC 6455, one for each frame or one for the block, and
their way into a connection of the ``websockets`` library. A journal never changes what it has, so an encoded block
stays right for as long as it is kept. Nothing here outlives a crash or needs to.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConcurrencyError

from simulator.journal import JournalReader, Position, Session

BATCH_BYTES = 256 * 1024
"""A batch message's usual limit, well under the 1 MiB that WebSocket libraries take by default."""

PLAIN_BYTES = 64 * 1024
"""What a client with one event a message is given at once."""

BACKLOG_BYTES = 32 * 1024
"""A client that has not taken all but so much is given nothing more. With one block, and up to 10 bytes of header
a message, that is all the exchange holds for a client; a frame larger than a block goes whole."""

KEPT_BLOCKS = 32
"""Encoded blocks kept for the next client that wants the same; some 8 MiB when all are full batches."""


@lru_cache(maxsize=4096)
def _header(length: int) -> bytes:
    """Of an unfragmented text message from a server, which is not masked (RFC 6455, 5.2)."""
    if length < 126:
        return struct.pack("!BB", 0x81, length)
    if length < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, length)
    return struct.pack("!BBQ", 0x81, 127, length)


def encode(block: bytes, batch: bool) -> bytes:
    """Messages as they stand on the wire: the whole block's, or one for each frame.

    Args:
        block: frames of UTF-8, each ended by a newline; at least one.
    """
    if batch:
        return b"".join((_header(len(block) - 1), memoryview(block)[:-1]))
    parts: list[bytes] = []
    for frame in block[:-1].split(b"\n"):
        parts += (_header(len(frame)), frame)
    return b"".join(parts)


class SharedBlocks:
    """Reads and encodes each block once for all clients that come by soon, as live ones do."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[Session, int, bool], tuple[bytes, Position]] = {}

    def next(self, session: Session, reader: JournalReader, batch: bool) -> bytes:
        """The messages at the reader's position, which moves on; empty: none yet.

        Raises:
            FramesNoLongerKept: the journal has removed what comes next.
        """
        key = (session, reader.next_sequence, batch)
        found = self._blocks.get(key)
        if found is not None:
            messages, reader.position = found
            return messages
        block = reader.read(BATCH_BYTES if batch else PLAIN_BYTES)
        if not block:
            return b""
        messages = encode(block, batch)
        if len(self._blocks) == KEPT_BLOCKS:
            del self._blocks[next(iter(self._blocks))]
        self._blocks[key] = messages, reader.position
        return messages


async def send_messages(client: ServerConnection, messages: bytes) -> None:
    """Write encoded messages, then wait until the client has taken all but BACKLOG_BYTES.

    Goes below the library's public interface, whose ``send()`` costs 10 µs a message: the bytes join the
    protocol's outgoing data between the checks and the flow control that ``send()`` itself goes through. They are
    handed over in one piece, so pings and close frames stand before or after them.

    Raises:
        websockets.exceptions.ConnectionClosed: the connection is closed.
        websockets.exceptions.ConcurrencyError: a fragmented message is under way, which these bytes would break.
    """
    async with client.send_context():
        if client.protocol.expect_continuation_frame:
            raise ConcurrencyError("a fragmented message is being sent")
        client.protocol.writes.append(messages)
