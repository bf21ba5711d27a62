"""What companies symbols stand for, at any time: dim_symbol as silver's steps read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakehouse.batch import BatchSession
from lakehouse.buffers import column, micros

DIM_SYMBOL = "dimensions.dim_symbol"
COMPANY = ("company_name", "sector", "market_cap_category")
"""Columns that say what a company is."""
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Companies:
    """dim_symbol as a run reads it: once."""

    snapshot_id: str
    rows: pa.Table
    """By symbol and time, with an end for every version: comparing takes half the time of asking for null."""

    @classmethod
    def read(cls, session: BatchSession) -> Self:
        table = session.catalog.load_table(DIM_SYMBOL)
        rows = table.scan().to_arrow()
        at, closed = rows.schema.get_field_index("valid_to"), pc.fill_null(rows["valid_to"], FOREVER)
        rows = rows.set_column(at, "valid_to", closed).sort_by("symbol").combine_chunks()
        return cls(str(table.metadata.current_snapshot_id), rows)

    def join(self, rows: pa.Table) -> pa.Table:
        """``rows``, each with name, sector and size of the company that its symbol stood for at its time, or null.

        A row comes twice where two versions hold. Takes a third of the time of a join in SQL.
        """
        versions = pc.dictionary_encode(self.rows["symbol"]).combine_chunks()
        unknown = len(versions)  # behind the last version: of no symbol, and without a company
        begins = np.append(np.flatnonzero(np.diff(versions.indices, prepend=-1)), [unknown, unknown])
        symbol = pc.fill_null(pc.index_in(rows["symbol"], versions.dictionary), len(begins) - 2).to_numpy()
        moments = micros(rows["timestamp"])
        starts, ends = (np.append(micros(self.rows[name]), 0) for name in ("valid_from", "valid_to"))
        found, twice = np.full(rows.num_rows, unknown), list[NDArray[np.int64]]()
        for number in range(int(np.diff(begins).max())):
            version = np.minimum(begins[symbol] + number, begins[symbol + 1])
            holds = (version < begins[symbol + 1]) & (starts[version] <= moments) & (moments < ends[version])
            twice.append(np.flatnonzero(holds & (found < unknown)))
            found[holds] = version[holds]
        known = self.rows.select(COMPANY)
        known = pa.concat_tables([known, pa.table([[None]] * len(COMPANY), schema=known.schema)])
        joined = beside(rows, known.take(column(pa.int64(), found)))
        again = np.concatenate([np.empty(0, np.int64), *twice])
        return pa.concat_tables([joined, joined.take(pa.array(again))]) if len(again) else joined


def beside(left: pa.Table, right: pa.Table) -> pa.Table:
    """The columns of both; of two with the same name, that of the right."""
    left = left.select([name for name in left.column_names if name not in right.column_names])
    return pa.table([*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema]))
