"""The WebSocket side of the exchange: every client is a reader of the journal, at its own position.

In: the journal, and a call after each published block. Out: to each client a welcome, then frames; one event
a message, or, with the subprotocol ``tickhouse.batch.v1``, many frames joined by newlines. Clients only
listen.

``?session=<id>&from_sequence=<n>`` resumes: the rest of that session, then every later one from its earliest
kept frame, then live; a session that is not known, or ``?from_sequence=0`` alone, starts at the earliest kept
frame of the current session; without a query a client starts live. Each session is opened by a welcome with
its first sequence.

A client cannot slow the market or another client: what is held for it is one block, of at most BATCH_BYTES or
PLAIN_BYTES, and BACKLOG_BYTES of the one before; the rest waits in the journal. It is disconnected, with a reason,
when it takes nothing for a while or when the journal has removed what it wants next; it may come back and resume.
On a crash clients lose their connection and nothing else: what they were sent is in the journal.
"""

from __future__ import annotations

import asyncio
import json
import logging
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from simulator.faults import LATE_FRAMES, Faults, FaultyWire
from simulator.journal import FramesNoLongerKept, Journal, JournalReader, Session
from simulator.metrics import ExchangeMetrics
from simulator.wire import BACKLOG_BYTES, BATCH_BYTES, PLAIN_BYTES, SharedBlocks, encode, send_messages

logger = logging.getLogger(__name__)

BATCH_PROTOCOL = Subprotocol("tickhouse.batch.v1")

MAX_INCOMING_BYTES = 256
"""Clients have nothing to say."""

FAULTY_FRAMES = 200
"""A batch message's limit where faults are on: late frames may come a thousand at once."""

CLOSE_SECONDS = 3.0
"""For a client to take its close frame and answer it."""

MAX_SEQUENCE = 2**63 - 1


class BadQuery(ValueError):
    """The address asks for something that cannot be."""


class Resume(NamedTuple):
    session_id: str | None
    from_sequence: int | None


def parse_resume(path: str) -> Resume:
    """The query of a request path.

    Raises:
        BadQuery: from_sequence is not a whole number in range.
    """
    query = dict(parse_qsl(urlsplit(path).query))
    text = query.get("from_sequence")
    if text is None:
        return Resume(query.get("session"), None)
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_SEQUENCE):
        raise BadQuery("from_sequence must be a whole number from 0 on")
    return Resume(query.get("session"), int(text))


def welcome(session: Session, next_sequence: int) -> str:
    return json.dumps(
        {
            "type": "welcome",
            "exchange": session.exchange,
            "symbols": session.symbols,
            "session_id": session.session_id,
            "next_sequence": next_sequence,
        }
    )


def _encode_frames(frames: list[bytes], batch: bool) -> bytes:
    """As messages of FAULTY_FRAMES at most."""
    starts = range(0, len(frames), FAULTY_FRAMES)
    blocks = (b"\n".join(frames[start : start + FAULTY_FRAMES]) + b"\n" for start in starts)
    return b"".join(encode(block, batch) for block in blocks)


async def _close(client: ServerConnection, code: CloseCode, reason: str) -> None:
    """Close with a reason; break the connection off when the client does not take it.

    The library's own limit does not cover waiting for room in a full write buffer.
    """
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close(code, reason)
    except TimeoutError:
        client.transport.abort()


class ExchangeServer:
    """Serves the journal's sessions.

    Args:
        max_clients: more are refused with HTTP 503.
        send_timeout: seconds in which a client must take a block.
        ping_interval, ping_timeout: seconds; a client that does not answer is disconnected.
    """

    def __init__(
        self,
        journal: Journal,
        metrics: ExchangeMetrics,
        faults: Faults,
        *,
        host: str,
        port: int,
        max_clients: int = 100,
        send_timeout: float = 30.0,
        ping_interval: float = 20.0,
        ping_timeout: float = 20.0,
    ) -> None:
        self._journal = journal
        self._metrics = metrics
        self._faults = faults
        self._host = host
        self._port = port
        self._max_clients = max_clients
        self._send_timeout = send_timeout
        self._ping = (ping_interval, ping_timeout)
        self._blocks = SharedBlocks()
        self._clients = 0
        self._news = asyncio.Event()
        self._feed_ended = False
        self._stopping = False
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The port in use; the one that was chosen when 0 was asked for."""
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address is taken.
        """
        self._server = await serve(
            self._serve_client,
            self._host,
            self._port,
            process_request=self._admit,
            select_subprotocol=lambda _, offered: BATCH_PROTOCOL if BATCH_PROTOCOL in offered else None,
            compression=None,  # costs more time than it saves on one machine
            server_header=None,
            max_size=MAX_INCOMING_BYTES,
            max_queue=2,
            write_limit=BACKLOG_BYTES,
            ping_interval=self._ping[0],
            ping_timeout=self._ping[1],
            open_timeout=5,
            close_timeout=CLOSE_SECONDS,
        )

    def published(self) -> None:
        """Tell the clients that the journal has grown."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def feed_ended(self) -> None:
        """Nothing more comes: the last frames go out, and clients stay connected."""
        self._feed_ended = True
        self.published()

    async def stop(self) -> None:
        """Close every connection with 1001, going away."""
        self._stopping = True
        if self._server is not None:
            self._server.close(close_connections=False)
            leaving = [_close(client, CloseCode.GOING_AWAY, "") for client in self._server.connections]
            await asyncio.gather(*leaving)
            await self._server.wait_closed()

    # --- one client

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if self._clients >= self._max_clients:
            self._metrics.refused.inc()
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many clients, try again later\n")
        try:
            parse_resume(request.path)
        except BadQuery as error:
            return connection.respond(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return None

    def _plan(self, resume: Resume) -> list[tuple[Session, int]]:
        """The sessions to send, each with the sequence to start at."""
        current = self._journal.current
        if resume == Resume(None, None):
            return [(current, current.last_sequence + 1)]
        session = self._journal.session(resume.session_id) if resume.session_id else None
        if session is None:
            return [(current, 0)]
        later = self._journal.sessions_after(session)
        return [(session, resume.from_sequence or 0), *((other, 0) for other in later)]

    async def _serve_client(self, client: ServerConnection) -> None:
        self._clients += 1
        self._metrics.clients.set(self._clients)
        reason = "error"
        try:
            reason = await self._converse(client)
        except Exception:
            logger.exception("client %s: unexpected error", client.remote_address)
            await _close(client, CloseCode.INTERNAL_ERROR, "the exchange failed; resume")
        finally:
            self._clients -= 1
            self._metrics.clients.set(self._clients)
            self._metrics.disconnected(reason)
            logger.info("client %s left: %s", client.remote_address, reason)

    async def _converse(self, client: ServerConnection) -> str:
        """Send until the client is gone, or must go; returns why."""
        if client.request is None:
            raise RuntimeError("a connection without a request")
        plan = self._plan(parse_resume(client.request.path))
        logger.info(
            "client %s: %s, session %s from frame %d",
            client.remote_address,
            "batches" if client.subprotocol else "one event a message",
            plan[0][0].session_id,
            plan[0][1],
        )
        sending = asyncio.create_task(self._send_sessions(client, plan))
        hearing = asyncio.create_task(client.recv())
        try:
            await asyncio.wait((sending, hearing), return_when=asyncio.FIRST_COMPLETED)
            if sending.done() and not isinstance(sending.exception(), ConnectionClosed):
                try:
                    sending.result()
                except FramesNoLongerKept as error:
                    await _close(client, CloseCode.TRY_AGAIN_LATER, f"fell behind: {error}"[:120])
                    return "fell_behind"
                except TimeoutError:
                    text = f"too slow: took nothing for {self._send_timeout:g} s; resume"
                    await _close(client, CloseCode.TRY_AGAIN_LATER, text)
                    return "slow"
            if hearing.done() and hearing.exception() is None:
                await _close(client, CloseCode.POLICY_VIOLATION, "the exchange only sends")
                return "sent_data"
            await client.wait_closed()
            return self._why_closed(client)
        finally:
            sending.cancel()
            hearing.cancel()
            await asyncio.gather(sending, hearing, return_exceptions=True)

    def _why_closed(self, client: ServerConnection) -> str:
        if self._stopping:
            return "server_stopping"
        sent = client.protocol.close_sent
        if sent is not None and sent.code == CloseCode.INTERNAL_ERROR:
            return "ping_timeout"
        if sent is not None and sent.code == CloseCode.MESSAGE_TOO_BIG:
            return "sent_data"
        return "client_closed"

    async def _send_sessions(self, client: ServerConnection, plan: list[tuple[Session, int]]) -> None:
        for session, from_sequence in plan:
            reader = JournalReader(session, from_sequence)
            try:
                await client.send(welcome(session, reader.next_sequence))
                await self._send_session(client, session, reader)
            finally:
                reader.close()

    async def _send_session(self, client: ServerConnection, session: Session, reader: JournalReader) -> None:
        """All of an earlier session; of the current one all there will ever be."""
        batch = client.subprotocol == BATCH_PROTOCOL
        wire = await self._faulty_wire(session, reader.next_sequence) if self._faults.enabled else None
        while True:
            if wire is None:
                messages = self._blocks.next(session, reader, batch)
            else:
                messages = self._faulty_messages(wire, reader, batch)
            if messages:
                await self._send(client, messages)
            if reader.next_sequence <= session.last_sequence:
                await asyncio.sleep(0)  # a client that takes everything at once must not keep the others waiting
                continue
            live = session is self._journal.current
            if wire is not None and (self._feed_ended or not live) and (held := wire.flush()):
                await self._send(client, _encode_frames(held, batch))
                continue
            if not live:
                return
            await self._news.wait()

    async def _send(self, client: ServerConnection, messages: bytes) -> None:
        """Raises TimeoutError when the client does not take them in time."""
        async with asyncio.timeout(self._send_timeout):
            await send_messages(client, messages)

    async def _faulty_wire(self, session: Session, sequence: int) -> FaultyWire:
        """The wire as it is when it comes to this frame, with the earlier ones that it holds back."""
        wire = FaultyWire(self._faults)
        reader = JournalReader(session, sequence - LATE_FRAMES)
        try:
            while (first := reader.next_sequence) < sequence and (block := reader.read(PLAIN_BYTES)):
                wire.send(first, block[:-1].split(b"\n")[: sequence - first])
                await asyncio.sleep(0)
        finally:
            reader.close()
        return wire

    def _faulty_messages(self, wire: FaultyWire, reader: JournalReader, batch: bool) -> bytes:
        """The next messages with their faults; empty: none yet, or all missing or held back."""
        first = reader.next_sequence
        block = reader.read(BATCH_BYTES if batch else PLAIN_BYTES)
        return _encode_frames(wire.send(first, block[:-1].split(b"\n")) if block else [], batch)
