from __future__ import annotations

import os

import pytest

from simulator.journal import EMPTY_SESSIONS, FramesNoLongerKept, Journal, JournalError, JournalReader


@pytest.fixture
def open_journal(tmp_path):
    opened = []

    def start(max_bytes=1 << 30, segment_bytes=2_000):
        while opened:
            opened.pop().close()
        opened.append(Journal(tmp_path / "journal", max_bytes=max_bytes, segment_bytes=segment_bytes))
        return opened[-1]

    yield start
    for journal in opened:
        journal.close()


def read_all(reader, max_bytes=700):
    lines = []
    while block := reader.read(max_bytes):
        assert block.endswith(b"\n")
        lines += block[:-1].split(b"\n")
    return lines


@pytest.mark.parametrize("max_bytes", [1, 50, 700, 10_000])
def test_a_reader_gets_every_frame_from_any_sequence_on_across_segments(open_journal, feed, frames, max_bytes):
    journal = open_journal()
    session = journal.open_session(feed())
    everything = frames(1, 100)
    for start in range(0, 100, 7):
        journal.append(everything[start : start + 7])
    assert len(session.segments) > 3
    for first in (1, 2, 24, 25, 26, 60, 99, 100):
        reader = JournalReader(session, first)
        assert read_all(reader, max_bytes) == everything[first - 1 :]
        assert reader.next_sequence == 101
        reader.close()


def test_a_reader_follows_what_is_appended_later(open_journal, feed, frames):
    journal = open_journal()
    session = journal.open_session(feed())
    reader = JournalReader(session, 3)
    assert reader.read(1_000) == b""
    journal.append(frames(1, 2))
    assert reader.read(1_000) == b"", "frame 3 is not there yet"
    journal.append(frames(3, 60))
    assert read_all(reader) == frames(3, 60)
    journal.append(frames(61, 62))
    assert read_all(reader) == frames(61, 62)


def test_a_frame_larger_than_a_block_is_read_whole(open_journal, feed, frame):
    journal = open_journal()
    session = journal.open_session(feed())
    journal.append([frame(1, padding=50_000), frame(2)])
    assert read_all(JournalReader(session, 1), max_bytes=100) == [frame(1, padding=50_000), frame(2)]


def test_the_oldest_segments_go_when_the_limit_is_reached_and_readers_are_told(open_journal, feed, frames):
    journal = open_journal(max_bytes=10_000)
    session = journal.open_session(feed())
    early = JournalReader(session, 1)
    journal.append(frames(1, 5))
    early.read(1)
    for first in range(6, 1_000, 5):
        journal.append(frames(first, first + 4))
    kept = sum(path.stat().st_size for path in session.path.glob("*.jsonl"))
    assert 5_000 < kept <= 12_500
    assert session.first_sequence > 800
    reader = JournalReader(session, 1)
    assert reader.next_sequence == session.first_sequence
    assert read_all(reader) == frames(session.first_sequence, 1_000)
    with pytest.raises(FramesNoLongerKept, match="session-1"):
        read_all(early)


def test_a_session_kept_whole_is_not_pruned_but_older_sessions_are(open_journal, feed, frames):
    journal = open_journal(max_bytes=10_000)
    journal.open_session(feed(session_id="old"))
    journal.append(frames(1, 100))
    session = journal.open_session(feed(session_id="whole"), keep_all=True)
    for first in range(1, 1_000, 50):
        journal.append(frames(first, first + 49))
    assert session.first_sequence == 1
    assert journal.session("old") is None
    assert sorted(path.name for path in session.path.parent.iterdir()) == ["lock", "whole"]


def test_sessions_without_a_frame_are_kept_for_their_names_up_to_a_limit(open_journal, feed, frames):
    journal = open_journal()
    journal.open_session(feed(session_id="printed"))
    journal.append(frames(1, 2))
    for number in range(EMPTY_SESSIONS + 3):
        journal.open_session(feed(session_id=f"empty-{number}"))
    for opened in (journal, open_journal()):
        journal = opened
        names = [session.session_id for session in journal.sessions_after(journal.session("printed"))]
        assert names == [f"empty-{number}" for number in range(2, EMPTY_SESSIONS + 3)]
    assert [path.name for path in journal.session("empty-2").path.iterdir()] == ["session.json"]


def test_a_torn_last_line_is_cut_off_and_the_session_goes_on(open_journal, feed, frames):
    journal = open_journal()
    session = journal.open_session(feed())
    journal.append(frames(1, 30))
    torn = session.segment_path(session.segments[-1][0])
    with torn.open("ab") as file:
        file.write(frames(31, 31)[0][:-5])

    journal = open_journal()
    session = journal.open_session(feed())
    assert session.last_sequence == 30
    journal.append(frames(31, 40))
    assert read_all(JournalReader(session, 1)) == frames(1, 40)


def test_a_last_segment_that_is_only_a_torn_line_becomes_empty(open_journal, feed, frames):
    journal = open_journal(segment_bytes=1)
    session = journal.open_session(feed())
    journal.append(frames(1, 3))
    (session.path / f"{4:020d}.jsonl").write_bytes(b'{"event_ty')
    journal = open_journal()
    session = journal.open_session(feed())
    assert session.last_sequence == 3
    journal.append(frames(4, 6))
    assert read_all(JournalReader(session, 1)) == frames(1, 6)


def test_sessions_are_ordered_by_when_they_were_last_opened(open_journal, feed, frames):
    for session_id in ("b", "a", "c"):
        journal = open_journal()
        journal.open_session(feed(session_id=session_id))
        journal.append(frames(1, 2))
    journal = open_journal()
    journal.open_session(feed(session_id="b"))
    assert [s.session_id for s in journal.sessions_after(journal.session("a"))] == ["c", "b"]
    assert journal.sessions_after(journal.current) == []
    assert journal.current.last_sequence == 2


def test_what_the_journal_knows_of_a_session_survives(open_journal, feed, frames):
    journal = open_journal()
    journal.open_session(feed(session_id="one", exchange="BINANCE-USDM", symbols=["BTCUSDT"]))
    journal.append(frames(1, 2))
    journal = open_journal()
    journal.open_session(feed(session_id="two"))
    session = journal.session("one")
    assert (session.exchange, session.symbols, session.last_sequence) == ("BINANCE-USDM", ["BTCUSDT"], 2)


def test_a_second_exchange_on_the_same_journal_is_refused(open_journal, tmp_path):
    open_journal()
    with pytest.raises(JournalError, match="another exchange"):
        Journal(tmp_path / "journal", max_bytes=1 << 20)


def test_a_session_id_cannot_leave_the_journal(open_journal, feed):
    journal = open_journal()
    for session_id in ("../evil", "a/b", "", ".hidden"):
        with pytest.raises(JournalError, match="unfit"):
            journal.open_session(feed(session_id=session_id))


def test_a_strange_directory_is_left_alone(open_journal, feed, tmp_path, caplog):
    (tmp_path / "journal" / "notes").mkdir(parents=True)
    (tmp_path / "journal" / "notes" / "mine.txt").write_text("keep")
    journal = open_journal()
    journal.open_session(feed())
    assert "notes is no session" in caplog.text
    assert (tmp_path / "journal" / "notes" / "mine.txt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_so_and_what_to_do(open_journal, feed, frames):
    journal = open_journal()
    session = journal.open_session(feed())
    session.segment_path(1).symlink_to("/dev/full")
    with pytest.raises(JournalError, match="No space left on device; free space there"):
        journal.append(frames(1, 2))
