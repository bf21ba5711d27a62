"""Data contracts: one Soda contract for each table, in ``contracts/<table>.yml``.

In: these files. Their checks are written by hand; what stands around them (dataset, description with owner and
tags, columns with meaning, type and nullability) is written from the table's declaration in
:mod:`lakehouse.layers` by ``python -m lakehouse.quality.definition``, so that it stands in one place. Out:
contracts as Soda takes them.

A check may name other tables, as ``silver.trades``, and what the run has observed: ``observed.day``,
``observed.nulls``, ``observed.statistics``, ``observed.traded`` and ``observed.misstated``
(:mod:`lakehouse.quality.partition`). Where one of these is not known, as of rows about to be committed, the checks
that name it are left out. Soda's attributes of
a check say what it is about (``dimension``: accuracy where nothing is said) and what to measure of each day to
compare it with the days before (``statistic``: an SQL aggregate).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    StringType,
    TimestamptzType,
)

from lakehouse.spec import Column, TableSpec
from lakehouse.tables import TABLES

FOLDER = Path(__file__).parent / "contracts"
LAYERS = ("bronze", "silver", "gold", "dimensions")
"""Namespaces whose tables all have a contract."""
DATA_SOURCE = "lake"
ACCURACY = "accuracy"

# libyaml's take a tenth of the time; PyYAML may be built without it.
_FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FastDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_CHECKS, _COLUMNS = "\nchecks:\n", "\ncolumns:\n"
_MENTION = re.compile(r"\b(" + "|".join(map(re.escape, TABLES)) + r"|observed\.\w+)\b")
_TYPES: dict[type[IcebergType], str] = {
    BooleanType: "boolean",
    DateType: "date",
    DoubleType: "double",
    IntegerType: "integer",
    LongType: "bigint",
    StringType: "varchar",
    TimestamptzType: "timestamp with time zone",
}
"""Lists have no entry: Soda does not compare their types."""


def contracts(layer: str) -> list[str]:
    """Tables of a layer, each of which has a contract. Raises ValueError: there is no such layer."""
    if layer not in LAYERS:
        raise ValueError(f"no layer {layer!r} has data contracts; there are {', '.join(LAYERS)}")
    return [spec.name for spec in TABLES.values() if spec.namespace == layer]


@functools.cache
def contract(table: str) -> dict[str, Any]:
    """The table's contract; not to be changed. Raises FileNotFoundError where there is none."""
    text = (FOLDER / f"{table}.yml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.load(text, _FastLoader)  # noqa: S506  # it is a safe one
    return loaded


def applicable(table: str, known: Collection[str]) -> str:
    """YAML of the contract with the checks that name nothing but ``known`` tables."""
    return _applicable(table, frozenset(known))


@functools.cache
def _applicable(table: str, known: frozenset[str]) -> str:
    whole = contract(table)
    checks = [check for check in whole["checks"] if _mentioned(check) <= {table} | known]
    # Soda's parser takes half of the time that a contract costs; what it has no use for is left out.
    columns = [{key: column[key] for key in column if key != "description"} for column in whole["columns"]]
    asked = {"dataset": whole["dataset"], "checks": checks, "columns": columns}
    return str(yaml.dump(asked, Dumper=_FastDumper, sort_keys=False))


def body(table: str, kind: str, qualifier: str | None) -> dict[str, Any]:
    """A check of the contract that is not about a single column. Raises KeyError: it has no such."""
    for check in contract(table)["checks"]:
        found = check.get(kind) or {}
        if kind in check and found.get("qualifier") == qualifier:
            return dict(found)
    raise KeyError(f"{kind} {qualifier or ''} is not in the contract of {table}")


def mentioned(table: str) -> set[str]:
    """Tables that the contract names, its own among them."""
    names = set().union(*(_mentioned(check) for check in contract(table)["checks"]))
    return {table} | {name for name in names if name in TABLES}


def statistics(table: str) -> dict[str, str]:
    """What to measure of each day and compare with the days before: name → SQL aggregate."""
    found = {}
    for check in contract(table)["checks"]:
        for body in check.values():
            aggregate = (body or {}).get("attributes", {}).get("statistic")
            if aggregate is not None:
                found[str(body["qualifier"]).removesuffix("_drift")] = str(aggregate)
    return found


def _mentioned(check: Mapping[str, Any]) -> set[str]:
    ((_, body),) = check.items()
    sql = body or {}
    return set(_MENTION.findall(f"{sql.get('expression', '')} {sql.get('query', '')}"))


# --- what is written from the declaration


def declared(spec: TableSpec, text: str) -> str:
    """A contract's file with its hand-written checks, and all else as the table is declared.

    Args:
        text: the file as it is.

    Raises:
        ValueError: it has no checks.
    """
    _, found, rest = f"\n{text}".partition(_CHECKS)
    if not found:
        raise ValueError(f"{spec.name}.yml has no line 'checks:'")
    checks = rest.partition(_COLUMNS)[0].strip("\n")
    head = {
        "dataset": f"{DATA_SOURCE}/{spec.name.replace('.', '/')}",
        "description": f"{spec.doc}. Owner: {spec.owner}. Tags: {', '.join(spec.tags)}.",
    }
    columns = [_column(spec, column) for column in spec.columns]
    return f"{_yaml(head)}{_CHECKS[1:]}{checks}\n{_yaml({'columns': columns})}"


def _column(spec: TableSpec, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {"name": column.name, "description": column.doc}
    if isinstance(column.type, DecimalType):
        described |= {
            "data_type": "decimal",
            "numeric_precision": column.type.precision,
            "numeric_scale": column.type.scale,
        }
    elif type(column.type) in _TYPES:
        described["data_type"] = _TYPES[type(column.type)]
    # A list that must be there is: its Parquet file would not hold a null. To count, all of it would be read.
    counted = column.required and not isinstance(column.type, ListType)
    checks: list[dict[str, None]] = [{"missing": None}] if counted else []
    if spec.key == (column.name,):
        checks.append({"duplicate": None})
    return described | ({"checks": checks} if checks else {})


class _Dumper(yaml.SafeDumper):
    """Indents lists, and leaves out the word null."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)


_Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=115)


def main() -> None:
    """Write all contracts anew."""
    for layer in LAYERS:
        for table in contracts(layer):
            path = FOLDER / f"{table}.yml"
            path.write_text(declared(TABLES[table], path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
