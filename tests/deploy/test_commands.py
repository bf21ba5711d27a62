"""The commands as a person types them: words in, lines and an exit code out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.__main__ import main, parse
from deploy.local.broker import Broker
from deploy.local.launch import Launch
from deploy.local.services import Feed, Service
from deploy.local.settings import LocalSettings
from deploy.local.start import start
from deploy.local.supervision import Supervisor

Output = pytest.CaptureFixture[str]


def _launched(settings: LocalSettings) -> Launch:
    launch = Launch(settings, Broker("external", "127.0.0.1:1", "promise"), Feed())
    launch.save()
    return launch


def test_options_are_told_from_words_and_from_file_names_with_an_equals_sign() -> None:
    assert parse(["a/b=c.gz", "speed=0", "--json", "--lines=3"]) == (
        ["a/b=c.gz"],
        {"speed": "0", "json": "1", "lines": "3"},
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["up", "wach=1"],
            "wach is not understood here; there is broker=, brokers=, feed=, file=, speed=, storage=, watch=",
        ),
        (["up", "feed=replay"], "feed=replay needs file=PATH"),
        (["up", "feed=replay", "file=/nowhere/x.gz"], "/nowhere/x.gz is not a file"),
        (["up", "speed=3"], "belong to feed=replay"),
        (["up", "broker=rabbit"], "broker=rabbit is not understood"),
        (
            ["up", "broker=embedded", "brokers=3"],
            "brokers=3 are nodes of Apache Kafka, and the broker here is embedded",
        ),
        (["up", "brokers=2"], "TICKHOUSE_BROKERS=2 is not usable"),
        (["up", "storage=tape"], "TICKHOUSE_STORAGE=tape is not usable"),
        (["status"], "`just up` starts it"),
        (["replay"], "usage: just replay FILE"),
        (["logs", "nothing"], "there is no log of nothing"),
        (["down", "drain=long"], "drain=long is not a number"),
    ],
)
def test_a_wrong_command_is_one_line_that_says_what_to_do(
    words: list[str], said: str, settings: LocalSettings, capsys: Output
) -> None:
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("speed", ["fast", "-1", "nan", "inf"])
def test_a_speed_that_is_no_number_is_refused(speed: str, settings: LocalSettings, capsys: Output) -> None:
    assert main(["up", "feed=replay", f"file={__file__}", f"speed={speed}"]) == 1
    assert f"speed={speed} is not a number" in capsys.readouterr().err


def test_down_when_nothing_runs_is_no_error(settings: LocalSettings, capsys: Output) -> None:
    assert main(["down"]) == 0
    assert "was not running" in capsys.readouterr().out


def test_a_second_up_prints_the_addresses_of_the_first(
    settings: LocalSettings,
    supervisor: Supervisor,
    web: Callable[..., Service],
    mark: dict[str, str],
    capsys: Output,
) -> None:
    start(supervisor, [web()], mark, 20, print)
    _launched(settings)
    assert main(["up"]) == 0
    said = capsys.readouterr().out
    assert "already running" in said
    assert f"http://127.0.0.1:{settings.api_port}/graphql" in said
    assert main(["reset", "yes=1"]) == 1
    assert "`just down` first" in capsys.readouterr().err


def test_reset_asks_and_keeps_the_downloads(
    settings: LocalSettings, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    _launched(settings)
    jar = settings.cache / "kafka-1" / "a.jar"
    table = settings.root / "lakehouse" / "a.parquet"
    for file in (jar, table):
        file.parent.mkdir(parents=True)
        file.write_text("data")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert main(["reset"]) == 1
    assert table.exists()
    assert main(["reset", "yes=1"]) == 0
    assert jar.exists()
    assert [path.name for path in settings.root.iterdir()] == ["cache"]


def test_reset_spares_a_directory_that_the_launcher_did_not_make(settings: LocalSettings, capsys: Output) -> None:
    settings.root.mkdir()
    (settings.root / "thesis.doc").write_text("ten years of work")
    assert main(["reset", "yes=1"]) == 1
    assert (settings.root / "thesis.doc").exists()
    assert "was never started by `just up`" in capsys.readouterr().err


def test_a_launch_is_remembered_with_its_ports(settings: LocalSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Launch(settings, Broker("kafka", "127.0.0.1:5", "p", [["java", "x"]]), Feed(Path("/a b.gz"), 0.5))
    first.save()
    monkeypatch.setenv("TICKHOUSE_API_PORT", "31999")
    again = Launch.load(LocalSettings())
    assert again is not None
    assert again.settings.api_port == settings.api_port
    assert (again.broker, again.feed) == (first.broker, first.feed)
    assert [s.name for s in again.services()] == [s.name for s in first.services()]


@pytest.mark.parametrize("command", [["up"], ["run", "lakehouse.shell"]])
def test_data_of_another_version_are_left_alone_and_can_be_deleted(
    command: list[str], settings: LocalSettings, capsys: Output
) -> None:
    Launch(settings, Broker("embedded", "127.0.0.1:1", "promise", [["x"]]), Feed()).save()
    remembered = settings.run_dir / "launch.json"
    remembered.write_text(remembered.read_text().replace('"commands"', '"command"'))
    assert main(command) == 1
    assert "was made by another version of Tickhouse (launch.json: " in capsys.readouterr().err
    assert remembered.exists()
    assert main(["reset", "yes=1"]) == 0
    assert not remembered.exists()


@pytest.mark.parametrize(("known", "wanted"), [("kafka", "embedded"), ("embedded", "a.example:9092")])
def test_tables_filled_through_one_broker_are_not_continued_through_another(
    known: str, wanted: str, settings: LocalSettings, capsys: Output
) -> None:
    Launch(settings, Broker(known, "127.0.0.1:1", "promise"), Feed()).save()
    assert main(["up", f"broker={wanted}"]) == 1
    assert f"were filled through broker={known}" in capsys.readouterr().err


def test_topics_made_on_one_node_are_not_continued_on_three(
    settings: LocalSettings, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    Launch(settings, Broker("embedded", "127.0.0.1:1", "promise", [["x"]]), Feed()).save()
    monkeypatch.setenv("TICKHOUSE_BROKERS", "3")
    assert main(["up", "broker=embedded"]) == 1
    assert "were made on brokers=1" in capsys.readouterr().err


@pytest.mark.parametrize(("known", "wanted"), [("files", "s3"), (None, "s3"), ("s3", "files")])
def test_tables_in_one_storage_are_not_continued_in_another(
    known: str | None, wanted: str, settings: LocalSettings, capsys: Output
) -> None:
    before = settings.model_copy(update={"storage": known})
    Launch(before, Broker("embedded", "127.0.0.1:1", "promise"), Feed()).save()
    assert main(["up", f"storage={wanted}"]) == 1
    assert f"are in storage={known or 'files'}" in capsys.readouterr().err


def _printed(settings: LocalSettings, expression: str, **environment: str) -> str:
    """What a module prints that is run as ``just sql``, ``lake``, ``flows`` and ``backfill`` are."""
    (settings.root / "shown.py").write_text(f"import flows.settings, lakehouse.settings\nprint({expression})")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "run", "shown"],
        env={**os.environ, "PYTHONPATH": str(settings.root), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_module_is_run_with_the_settings_that_lead_to_the_tables(settings: LocalSettings) -> None:
    stored = settings.model_copy(update={"storage": "s3"})
    Launch(stored, Broker("embedded", "127.0.0.1:1", "promise"), Feed()).save()
    shown = _printed(settings, "lakehouse.settings.LakehouseSettings().effective_catalog_uri")
    assert shown == f"http://127.0.0.1:{settings.iceberg_port}"


def test_a_module_is_run_with_the_ports_of_the_instance_that_runs_or_that_would_be_started(
    settings: LocalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TICKHOUSE_PREFECT_PORT")
    settings.root.mkdir(parents=True)
    asked = "flows.settings.FlowsSettings().api_url"
    assert _printed(settings, asked, TICKHOUSE_PORT_BASE="23000") == "http://127.0.0.1:23001/api"
    Launch(settings, Broker("embedded", "127.0.0.1:1", "promise"), Feed()).save()
    assert _printed(settings, asked) == f"http://127.0.0.1:{settings.prefect_port}/api"


def test_logs_prints_the_end_of_a_log(settings: LocalSettings, capfd: pytest.CaptureFixture[str]) -> None:
    settings.log_dir.mkdir(parents=True)
    (settings.log_dir / "bridge.log").write_text("one\ntwo\nthree\n")
    assert main(["logs", "bridge", "lines=2"]) == 0
    assert capfd.readouterr().out == "two\nthree\n"
    assert main(["logs"]) == 0
    assert "bridge" in capfd.readouterr().out


def test_status_as_json_lists_every_running_service(
    settings: LocalSettings,
    supervisor: Supervisor,
    web: Callable[..., Service],
    mark: dict[str, str],
    capsys: Output,
) -> None:
    launch = _launched(settings)
    start(supervisor, [web()], mark, 20, print)
    capsys.readouterr()
    with pytest.raises(SystemExit) as code:  # none of the real services runs here
        main(["status", "--json"])
    assert code.value.code == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [service.name for service in launch.services()]
    assert not any(row["ready"] for row in rows)
