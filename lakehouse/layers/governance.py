"""Tables of governance: what others may read, derived from the tables they show."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lakehouse.columns import TEXT
from lakehouse.layers import gold, silver
from lakehouse.spec import TableSpec

HASHED, LEFT_OUT = "hashed", "left out"
ROLES = {"analyst": HASHED, "business": LEFT_OUT, "public": LEFT_OUT}
"""Role → what becomes of personal columns for it. An analyst may follow an agent without knowing which one it
is."""
READABLE = (
    ("silver.trades", "analyst"),
    ("silver.trades", "business"),
    ("gold.trader_performance", "analyst"),
    ("gold.portfolio_positions", "analyst"),
    ("gold.daily_trading_summary", "public"),
)
_SPECS = {spec.name: spec for layer in (silver, gold) for spec in layer.TABLES}


@dataclass(frozen=True, slots=True)
class Masked:
    """A table as a role may read it."""

    source: TableSpec
    role: str
    spec: TableSpec

    @property
    def hashed(self) -> tuple[str, ...]:
        """Columns that hold pseudonyms."""
        return self.source.personal if ROLES[self.role] == HASHED else ()


def masked(source: TableSpec, role: str) -> Masked:
    """The declaration of ``source`` for ``role``: same key, days and order.

    Raises:
        ValueError: the role may not see a column of the key, and rows would no longer be told apart.
    """
    hashes = ROLES[role] == HASHED
    if not hashes and set(source.personal) & set(source.key):
        raise ValueError(f"{source.name} has a personal key: {role} cannot be shown its rows")
    columns = tuple(
        replace(column, type=TEXT, doc=f"{column.doc}, as a pseudonym")
        if column.name in source.personal
        else column
        for column in source.columns
        if hashes or column.name not in source.personal
    )
    spec = TableSpec(
        f"governance.{source.name.replace('.', '_')}_{role}",
        f"{source.doc}; for {role}",
        columns,
        key=source.key,
        partition_by=source.partition_by,
        sort_by=tuple(name for name in source.sort_by if hashes or name not in source.personal),
        event_time=source.event_time,
        # Follows nothing: days are masked once a day, whole, and upkeep need not wait for that.
        owner="governance",
        tags=("Governance", "Masked"),
    )
    return Masked(source, role, spec)


MASKED = tuple(masked(_SPECS[name], role) for name, role in READABLE)
TABLES = tuple(table.spec for table in MASKED)
