# Every command of the project. `just` alone lists them.

set dotenv-load := true
set positional-arguments := true

# Compiled once at install, not by ten processes at once during the first start.
export UV_COMPILE_BYTECODE := "1"
# Empty: our own modules are too, also where the machine's default is to compile them anew in each process.
export PYTHONDONTWRITEBYTECODE := ""

_list:
    @echo "Tickhouse, a live stock market and its data platform. New here? Run 'just up' first."
    @just --list --unsorted --list-heading ""

_sync:
    @command -v uv >/dev/null || { echo "uv is missing: pip install uv"; exit 1; }
    @uv sync --frozen --quiet

# Start everything: up [watch=1] [broker=auto|kafka|embedded|HOST:PORT] [brokers=1|3] [storage=files|s3] [feed=replay file=PATH speed=N]
[group('run')]
up *args: _sync
    @uv run --no-sync python -m deploy.local up "$@"

# Each service: state, readiness, age of the last event, lag: status [--json]
[group('run')]
status *args: _sync
    @uv run --no-sync python -m deploy.local status "$@"

# The end of a service's log: logs [NAME] [lines=N] [follow=1]
[group('run')]
logs *args: _sync
    @uv run --no-sync python -m deploy.local logs "$@"

# Feed the system from a recorded market: replay FILE [speed=N], 0 as fast as it goes
[group('run')]
replay file *args: _sync
    @uv run --no-sync python -m deploy.local replay "$@"

# Record the simulated market: record OUT.jsonl.zst --duration 60 [--seed 7] [--symbols AAPL,TSLA] [--speed 0]
[group('run')]
record out *args: _sync
    @uv run --no-sync python -m simulator --out "$@"

# One flow as several processes: cluster N enrichment|vwap|alerts|orderbook|bronze
[group('run')]
cluster processes flow: _sync
    @uv run --no-sync python -m dataflows.cluster "$@"

# SQL on the tables: sql ["select …"] [--csv] [--as-of TIME|SNAPSHOT]; without a statement, a prompt
[group('run')]
sql *args: _sync
    @uv run --no-sync python -m deploy.local run lakehouse.shell "$@"

# The tables: lake init | seed | describe|history|files TABLE | stats|compact|expire|orphans [--dry-run] [TABLE…] | export
[group('run')]
lake *args: _sync
    @uv run --no-sync python -m deploy.local run lakehouse "$@"

# Every flow of the batch side: tables in and out, schedule, last run, next run
[group('run')]
flows: _sync
    @uv run --no-sync python -m deploy.local run flows

# Compute past days anew; goes on where it was: backfill 2026-03-01..2026-03-31 [--tables silver.trades …] [--workers N]
[group('run')]
backfill days *args: _sync
    @uv run --no-sync python -m deploy.local run flows.backfill "$@"

# Drain and stop everything; nothing is lost
[group('run')]
down *args: _sync
    @uv run --no-sync python -m deploy.local down "$@"

# Delete all data, after asking: reset [yes=1]
[group('run')]
reset *args: _sync
    @uv run --no-sync python -m deploy.local reset "$@"

# Lint, types and tests
[group('develop')]
check: lint types test

# The tests, on the broker that this machine has: test [PYTEST-ARGS] (TICKHOUSE_TEST_BROKER=kafka|embedded decides)
[group('develop')]
test *args: _sync
    uv run --no-sync pytest -m "not e2e" -n 2 --dist loadfile "$@"

# The tests that start the whole system
[group('develop')]
e2e *args: _sync
    uv run --no-sync pytest -m e2e "$@"

# Kill services many times while trades flow, then compare every layer: chaos [--kills 200] [--seed 1] [--broker auto] [--brokers 1]
[group('develop')]
chaos *args: _sync
    @uv run --no-sync python -m tests.e2e.chaos "$@"

# Style of the code, the recipes and the shell scripts
[group('develop')]
lint: _sync
    uv run --no-sync ruff check .
    uv run --no-sync ruff format --check .

# Static types
[group('develop')]
types: _sync
    uv run --no-sync mypy

# Rewrite the code in the project's style
[group('develop')]
fmt: _sync
    uv run --no-sync ruff check --fix .
    uv run --no-sync ruff format .

# Measure: bench NAME [ARGS] runs tests/benchmarks/NAME.py
[group('develop')]
bench name *args: _sync
    @name="$1"; shift; uv run --no-sync python -m "tests.benchmarks.$name" "$@"

# Does it look like a market? Statistics and a picture beside a recorded one: realism [--minutes 10] [--seeds 1,2]
[group('develop')]
realism *args: _sync
    @uv run --no-sync python -m tests.benchmarks.realism "$@"

# Write what is generated from the code: .env.example, prefect.yaml, contracts, Prometheus' and Grafana's files
[group('develop')]
generate: _sync
    uv run --no-sync python -m deploy.env_example > .env.example
    uv run --no-sync python -m flows.declared > deploy/prefect/prefect.yaml
    uv run --no-sync python -m deploy.local.prometheus
    uv run --no-sync python -m lakehouse.quality.definition
    uv run --no-sync python -m deploy.grafana.pipeline_overview
