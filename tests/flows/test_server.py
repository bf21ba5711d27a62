"""How Prefect's server writes into its SQLite database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text

from flows.server import write_in_turn


def test_transactions_that_read_and_then_write_at_once_all_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", AioSqliteConfiguration.begin_transaction)
    write_in_turn()
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{tmp_path}/prefect.db")

    async def add_one() -> None:
        async with await database.session(await database.engine()) as session, database.begin_transaction(session):
            before = (await session.execute(text("select n from counted"))).scalar_one()
            # A session opened within a transaction, as Prefect opens some, does not wait for it.
            async with await database.session(await database.engine()) as other:
                assert (await other.execute(text("select n from counted"))).scalar_one() == before
            await session.execute(text("update counted set n = :n"), {"n": before + 1})

    async def count() -> int:
        engine = await database.engine()
        async with engine.begin() as connection:
            await connection.execute(text("create table counted as select 0 as n"))
        await asyncio.gather(*(add_one() for _ in range(3)))
        async with await database.session(engine) as session:
            found: int = (await session.execute(text("select n from counted"))).scalar_one()
        await engine.dispose()
        return found

    assert asyncio.run(count()) == 3
