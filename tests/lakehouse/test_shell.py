"""``just sql`` as a person uses it: the program itself, with statements as argument, from a pipe, and typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from lakehouse.settings import LakehouseSettings

ENDLESS = "select count(*) from range(1_000_000_000) a, range(1_000_000_000) b where a.range * b.range % 7 = 3;"


def start(settings: LakehouseSettings, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lakehouse.shell", *arguments],
        env={**os.environ, "TICKHOUSE_DATA_DIR": str(settings.data_dir), "COLUMNS": "200", **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a terminal starts it. A background job of a script is told to ignore Ctrl-C, and so are its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def said(process: subprocess.Popen[str], typed: str = "") -> tuple[str, str, int]:
    """What it printed, what it complained of, and its exit status."""
    out, err = process.communicate(typed, timeout=60)
    return out, err, process.returncode


@pytest.fixture
def filled(settings: LakehouseSettings, catalog: Catalog, bronze: Any) -> LakehouseSettings:
    bronze.trades({"symbol": "AAPL"}, {"symbol": "MSFT"})
    return settings


def test_one_statement_prints_its_rows(filled: LakehouseSettings, catalog: Catalog, bronze: Any) -> None:
    csv, err, status = said(start(filled, "--csv", "select symbol, price from bronze.trades order by symbol"))
    assert (csv, err, status) == ("symbol,price\nAAPL,185.25000000\nMSFT,185.25000000\n", "", 0)
    before = catalog.load_table("bronze.trades").current_snapshot()
    bronze.trades({"symbol": "KO"})
    then = f"--as-of={before.snapshot_id}" if before is not None else ""
    table, _, _ = said(start(filled, then, "select count(*) as n from bronze.trades"))
    assert "2" in table.split()
    assert "1 rows" in table


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("delete from bronze.trades", "DELETE is not run here"),
        ("copy (select 1) to '/tmp/never'", "COPY is not run here"),
        ("select 1; select 2", "one statement at a time"),
        ("select nothing from bronze.trades", '"nothing" not found'),
        ("selec 1", "syntax error"),
    ],
)
def test_a_statement_that_cannot_be_run_says_why(
    filled: LakehouseSettings, statement: str, complaint: str
) -> None:
    out, err, status = said(start(filled, statement))
    assert (out, status) == ("", 1)
    assert complaint in err


def test_a_conversation_goes_on_after_errors_and_shows_tables(filled: LakehouseSettings) -> None:
    typed = "select symbol\nfrom bronze.trades where symbol = 'MSFT';\nselec;\n\\d\n\\d bronze.trades\n\\q\n"
    out, err, status = said(start(filled), typed)
    assert (err, status) == ("", 0)
    assert "MSFT" in out
    assert "syntax error" in out
    assert "gold.daily_trading_summary" in out
    assert "is_aggressive_buy" in out


def test_the_time_limit_stops_a_statement_and_not_the_conversation(filled: LakehouseSettings) -> None:
    shell = start(filled, TICKHOUSE_QUERY_TIMEOUT_SECONDS="0.3")
    out, _, status = said(shell, f"{ENDLESS}\nselect 40 + 2 as answer;\n")
    assert status == 0
    assert "took longer than 0.3 s" in out
    assert "42" in out


def test_ctrl_c_stops_a_statement_and_not_the_conversation(filled: LakehouseSettings, tmp_path: Path) -> None:
    shell = start(filled)
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write("select 'now it runs';\n")
    shell.stdin.flush()
    while "1 rows" not in shell.stdout.readline():
        assert shell.poll() is None
    shell.stdin.write(f"{ENDLESS}\n")
    shell.stdin.flush()
    _await_work(shell, since=_cpu_ticks(shell.pid), ticks=100)
    shell.send_signal(signal.SIGINT)
    out, _, status = said(shell, "select 40 + 2 as answer;\n")
    assert status == 0
    assert "stopped" in out
    assert "took longer" not in out
    assert "42" in out


def test_ctrl_c_ends_a_lone_statement(filled: LakehouseSettings) -> None:
    shell = start(filled, ENDLESS)
    _await_work(shell, since=0, ticks=600)  # more than it takes to start
    shell.send_signal(signal.SIGINT)
    assert said(shell) == ("", "stopped\n", 130)


def _await_work(shell: subprocess.Popen[str], since: int, ticks: int) -> None:
    pause = threading.Event()
    while _cpu_ticks(shell.pid) < since + ticks:  # hundredths of a second
        assert shell.poll() is None
        pause.wait(0.02)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
