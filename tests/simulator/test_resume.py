"""Clients that come back: the rest of their session, the later ones, and the faults they would have met."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simulator.faults import Faults, FaultyWire
from simulator.market import DataQuality
from tests.simulator.clients import ResumingClient, scenario, take, take_welcome


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


@pytest.mark.parametrize("batch", [False, True])
def test_a_client_that_resumes_meets_the_faults_it_would_have_met(running, frames, batch):
    rates = DataQuality(
        duplicate_rate=0.1,
        out_of_order_rate=0.1,
        missing_data_rate=0.1,
        malformed_rate=0.1,
        late_rate=0.1,
        late_seconds=0.05,
    )

    async def receive(exchange, first: int) -> list[bytes]:
        """All that comes, until the exchange has nothing more."""
        received: list[bytes] = []
        async with exchange.connect(f"?session=s1&from_sequence={first}", batch=batch) as client:
            await take_welcome(client)
            wire = FaultyWire(Faults(rates, 1))
            before = wire.send(1, frames(1, first - 1))
            wanted = wire.send(first, frames(first, 400)) + wire.flush()
            assert before or first == 1
            while len(received) < len(wanted):
                received += (await client.recv(decode=False)).split(b"\n")
            assert received == wanted
        return received

    async def run():
        async with running([("s1", frames(1, 400))], rates=rates) as exchange:
            exchange.server.feed_ended()
            everything = await receive(exchange, 1)
            assert sorted(everything) != sorted(frames(1, 400))
            for first in (37, 38, 200, 400):
                again = await receive(exchange, first)
                assert everything[-len(again) :] == again

    scenario(run())


def test_many_late_frames_at_once_are_no_message_too_big_for_a_client(running, frames):
    rates = DataQuality(late_rate=0.9, late_seconds=60)
    everything = frames(1, 3_000, padding=500)

    async def run():
        async with running([("s1", everything)], rates=rates) as exchange:
            exchange.server.feed_ended()
            async with exchange.connect("?from_sequence=0", batch=True, max_size=1 << 20) as client:
                await take_welcome(client)
                assert sorted(await take(client, 3_000)) == sorted(everything)

    scenario(run())


STEPS = st.one_of(
    st.tuples(st.just("publish"), st.integers(1, 40)),
    st.tuples(
        st.just("read"),
        st.integers(0, 2),
        st.integers(0, 60),
        st.booleans(),
        st.sampled_from(["close", "abort", "stay"]),
    ),
    st.tuples(st.just("restart"), st.booleans()),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=1, max_size=16))
@example(steps=[("restart", True), ("publish", 3), ("restart", True), ("restart", True)])
def test_clients_that_resume_get_every_frame_of_every_session_once_and_in_order(running, frames, steps):
    """Whatever the disconnects, by whichever side, the restarts of the exchange and the protocols asked for.

    A step publishes frames; or one of three clients, batching or not, reads so many at least and leaves, saying so
    or not, or stays; or the exchange is restarted, with a new session or the same.
    """

    async def run(root: Path) -> None:
        printed = {"s0": 0}
        clients = [ResumingClient() for _ in range(3)]
        lives = episodes(steps)
        for number, (new_session, episode) in enumerate(lives):
            if new_session:
                printed[f"s{number}"] = 0
            session_id = list(printed)[-1]
            async with running([(session_id, ())], root=root, segment_bytes=1_500) as exchange:
                if number == 0:
                    for client in clients:
                        await client.read(exchange, 0, batch=False, then="stay")
                for step in episode:
                    if step[0] == "publish":
                        first = printed[session_id] + 1
                        printed[session_id] += step[1]
                        exchange.publish(tagged(frames(first, printed[session_id]), session_id))
                    else:
                        _, which, count, batch, then = step
                        there = sum(printed.values()) - len(clients[which].received)
                        await clients[which].read(exchange, min(count, there), batch, then)
                if number == len(lives) - 1:
                    for client in clients:
                        rest = sum(printed.values()) - len(client.received)
                        await client.read(exchange, rest, batch=True, then="close")
            for client in clients:
                client.hung_up()
        wanted = [frame for session_id, last in printed.items() for frame in tagged(frames(1, last), session_id)]
        for client in clients:
            assert client.received == wanted

    with tempfile.TemporaryDirectory() as directory:
        scenario(run(Path(directory) / "journal"))


def episodes(steps: list[tuple]) -> list[tuple[bool, list[tuple]]]:
    """For each life of the exchange, whether it opens a new session, and its steps."""
    lives: list[tuple[bool, list[tuple]]] = [(False, [])]
    for step in steps:
        if step[0] == "restart":
            lives.append((step[1], []))
        else:
            lives[-1][1].append(step)
    return lives


def tagged(frames: list[bytes], session_id: str) -> list[bytes]:
    return [frame.replace(b"e-", f"{session_id}-e-".encode(), 1) for frame in frames]
