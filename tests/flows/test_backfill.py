"""A backfill: in parallel by day, going on where it was cut off, the same rows wherever it runs."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import backfill as module
from flows.backfill import backfill_days
from flows.pieces import Journal, work_off
from lakehouse.batch import BatchSession
from lakehouse.gold.step import publish
from lakehouse.governance.retention import purge
from lakehouse.rebuild import Piece, plan, run
from lakehouse.settings import LakehouseSettings
from lakehouse.silver.activity import refine_activity
from lakehouse.silver.events import refine_trades
from lakehouse.tables import create_tables
from tests.lakehouse.conftest import Bronze

FIRST = date(2026, 3, 9)
LAST = FIRST + timedelta(days=2)
TABLES = ("silver.trades", "gold.minute_bars")


@pytest.fixture
def session(tmp_path: Path) -> BatchSession:
    """Three days of trades in bronze alone."""
    session = BatchSession.open(LakehouseSettings(data_dir=tmp_path))
    create_tables(session.catalog)
    noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC)
    Bronze(session.catalog).trades(
        *({"timestamp": noon + timedelta(days=day), "trade_id": f"t{day}"} for day in range(3))
    )
    return session


def rows(session: BatchSession, table: str) -> int:
    return session.catalog.load_table(table).scan().to_arrow().num_rows


def test_it_goes_on_where_it_was_cut_off(session: BatchSession) -> None:
    submitted: list[Piece] = []
    told: list[tuple[int, int]] = []

    def attempt(fail_at: int | None) -> dict[str, int]:
        submitted.clear()

        def submit(piece: Piece) -> Future[dict[str, int]]:
            submitted.append(piece)
            if len(submitted) - 1 == fail_at:
                raise RuntimeError("power cut")
            return pool.submit(run, session, piece)

        with ThreadPoolExecutor(1) as pool:
            return backfill_days(
                session, FIRST, LAST, TABLES, submit, 1, lambda done, total: told.append((done, total))
            )

    with pytest.raises(RuntimeError, match="power cut"):
        attempt(fail_at=2)
    assert [str(piece) for piece in submitted[:2]] == [
        f"silver.trades {FIRST + timedelta(days=n)}" for n in (0, 1)
    ]
    told.clear()
    written = attempt(fail_at=None)
    assert str(submitted[0]) == f"silver.trades {LAST}"
    assert told == [(done, 6) for done in range(2, 7)], "after each piece"
    assert written["silver.trades"] == 1, "what this attempt wrote"
    assert (rows(session, "silver.trades"), rows(session, "gold.minute_bars")) == (3, 3)
    attempt(fail_at=None)
    assert len(submitted) == 6, "a backfill that was finished begins anew"


def test_a_line_of_the_journal_that_a_crash_cut_off_counts_for_nothing(tmp_path: Path) -> None:
    journal = Journal.of(tmp_path, FIRST, LAST, TABLES, "rules")
    pieces = [Piece(0, ("silver.trades",), (FIRST + timedelta(days=n),)) for n in range(2)]
    for piece in pieces:
        journal.add(piece)
    journal.path.write_text(journal.path.read_text()[:-3])
    again = Journal.of(tmp_path, FIRST, LAST, TABLES, "rules")
    assert str(pieces[0]) in again.done
    assert str(pieces[1]) not in again.done
    again.add(pieces[1])
    assert {str(piece) for piece in pieces} <= Journal.of(tmp_path, FIRST, LAST, TABLES, "rules").done


def test_days_that_were_done_by_other_rules_are_done_anew(tmp_path: Path) -> None:
    piece = Piece(0, ("silver.trades",), (FIRST,))
    before = Journal.of(tmp_path, FIRST, LAST, TABLES, "rules")
    before.add(piece)
    of_another_table = Journal.of(tmp_path, FIRST, LAST, TABLES[:1], "rules")
    of_another_table.add(piece)
    others = Journal.of(tmp_path, FIRST, LAST, TABLES, "other rules")
    assert not others.done
    others.add(piece)
    assert not Journal.of(tmp_path, FIRST, LAST, TABLES, "rules").done, "what it had done was done otherwise since"
    assert [path.name for path in tmp_path.iterdir()] == [of_another_table.path.name]


def test_pieces_of_different_tables_run_at_once_and_of_one_table_never(session: BatchSession) -> None:
    running: set[str] = set()
    most = 0
    open_futures: list[tuple[Future[Any], Piece]] = []

    def submit(piece: Piece) -> Future[Any]:
        nonlocal most
        assert not running & set(piece.tables)
        running.update(piece.tables)
        most = max(most, len(running))
        future: Future[Any] = Future()
        future.add_done_callback(lambda _: running.difference_update(piece.tables))
        open_futures.append((future, piece))
        if len(open_futures) == 2 or piece.stage:
            for one, _ in open_futures:
                one.set_result(None)
            open_futures.clear()
        return future

    days = [Piece(0, (name,), (FIRST + timedelta(days=n),)) for n in range(2) for name in ("silver.a", "silver.b")]
    done: list[str] = []
    work_off([*days, Piece(1, ("gold.c",), (FIRST,))], submit, 4, lambda piece, _: done.append(str(piece)))
    assert most == 2
    assert len(done) == 5
    assert done[-1].startswith("gold.c"), "a stage waits for the one before"


def test_the_command_rebuilds_and_says_what(
    session: BatchSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TICKHOUSE_DATA_DIR", str(session.settings.data_dir))

    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["backfill", *arguments])
        return module.main()

    assert command("2026-03-01..2026-03-31", "--tables", "silver.trades", "--workers", "2") == 0
    output = capsys.readouterr().out
    assert "silver.trades: 3 rows" in output
    assert "3/3" in output
    assert rows(session, "silver.trades") == 3
    assert command("2026-03-01..2026-02-01") == 1
    assert "before it ends" in capsys.readouterr().err
    assert command("2026-03-09", "--tables", "silver.nothing") == 1
    assert "silver.trades" in capsys.readouterr().err, "names what can be rebuilt"
    assert command("2025-01-01") == 0
    assert "Nothing left to do" in capsys.readouterr().out


def test_gold_is_computed_anew_from_silver_where_bronze_is_no_longer_kept(session: BatchSession) -> None:
    refine_trades(session)
    refine_activity(session)
    publish(session)
    purge(session, "bronze.trades", datetime(2026, 6, 30, tzinfo=UTC))
    assert rows(session, "bronze.trades") == 0
    pieces = plan(session, [FIRST], [*TABLES, "silver.trader_activity"])
    assert [(piece.tables[0], run(session, piece)[piece.tables[0]]) for piece in pieces] == [
        ("silver.trader_activity", 2),
        ("gold.minute_bars", 1),
    ]
    assert rows(session, "silver.trades") == 3


def test_a_plan_has_a_piece_for_each_day_that_has_rows(session: BatchSession) -> None:
    pieces = plan(session, [FIRST + timedelta(days=n) for n in range(-5, 10)], TABLES)
    assert len([piece for piece in pieces if piece.tables == ("silver.trades",)]) == 3
