"""Clients of the exchange's server, for the tests of it."""

from __future__ import annotations

import asyncio
import json

from websockets.asyncio.client import ClientConnection


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


class ResumingClient:
    """A reader that remembers where it is, and comes back."""

    def __init__(self) -> None:
        self._at: tuple[str, int] | None = None
        self._connection: ClientConnection | None = None
        self.received: list[bytes] = []

    async def read(self, exchange, count: int, batch: bool, then: str) -> None:
        """At least so many frames more; over a new connection, unless it stayed."""
        wanted = len(self.received) + count
        welcomed = self._connection is not None
        if self._connection is None:
            query = "?session={}&from_sequence={}".format(*self._at) if self._at else "?from_sequence=0"
            self._connection = await exchange.connect(query, batch=batch)
        while len(self.received) < wanted or not welcomed:
            message = await asyncio.wait_for(self._connection.recv(decode=False), 5)
            for text in message.split(b"\n"):
                if b'"event_type"' not in text:
                    hello = json.loads(text)
                    self._at, welcomed = (hello["session_id"], hello["next_sequence"]), True
                    continue
                session_id, sequence = self._at
                assert json.loads(text)["data"]["sequence"] == sequence
                self.received.append(text)
                self._at = session_id, sequence + 1
        if then == "close":
            await self._connection.close()
        elif then == "abort":
            self._connection.transport.abort()
        if then != "stay":
            self._connection = None

    def hung_up(self) -> None:
        """The exchange has closed the connection; what came and was not read is forgotten."""
        self._connection = None
