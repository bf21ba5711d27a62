"""The contracts are in line with the tables' declarations."""

from __future__ import annotations

import pytest

from lakehouse.quality.definition import FOLDER, LAYERS, applicable, contract, contracts, declared, mentioned
from lakehouse.tables import TABLES

EVERY = [table for layer in LAYERS for table in contracts(layer)]


def test_every_table_of_the_layers_has_a_contract_and_no_contract_is_left_over() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(EVERY)


@pytest.mark.parametrize("table", EVERY)
def test_a_contract_says_of_its_table_what_the_declaration_says(table: str) -> None:
    text = (FOLDER / f"{table}.yml").read_text(encoding="utf-8")
    assert text == declared(TABLES[table], text), "run: just generate"


def test_no_contract_has_a_variable_of_sodas() -> None:
    """What was parsed of a contract is used for every run: a variable would keep its first value."""
    assert not any("${" in path.read_text(encoding="utf-8") for path in FOLDER.iterdir())


@pytest.mark.parametrize("table", EVERY)
def test_a_contract_requires_the_tables_key_to_be_unique(table: str) -> None:
    found = contract(table)
    spec = TABLES[table]
    keys = [check["duplicate"]["columns"] for check in found["checks"] if "duplicate" in check]
    keys += [[column["name"]] for column in found["columns"] if {"duplicate": None} in column.get("checks", ())]
    assert list(spec.key) in keys


def test_a_new_column_of_the_declaration_comes_into_the_file_and_the_checks_stay() -> None:
    old = "checks:\n  - schema:  # as declared\ncolumns:\n  - name: gone\n"
    text = declared(TABLES["dimensions.dim_exchange"], old)
    assert text.startswith("dataset: lake/dimensions/dim_exchange\ndescription: 'Exchanges; a change overwrites")
    assert "Owner: reference-data" in text
    assert "\nchecks:\n  - schema:  # as declared\ncolumns:\n  - name: exchange_code\n" in text
    assert "gone" not in text
    assert declared(TABLES["dimensions.dim_exchange"], text) == text


def test_a_file_without_checks_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"silver.trades.yml has no line 'checks:'"):
        declared(TABLES["silver.trades"], "columns: []\n")


def test_checks_that_name_what_is_not_known_are_left_out() -> None:
    assert mentioned("silver.quotes") == {
        "silver.quotes",
        "bronze.quotes",
        "silver.rejected_records",
        "dimensions.dim_symbol",
    }
    alone = applicable("silver.quotes", ())
    assert "qualifier: quote_not_crossed" in alone
    assert "nothing_lost" not in alone
    assert "fresh" not in alone
    known = applicable("silver.quotes", ("bronze.quotes", "dimensions.dim_symbol", "observed.day"))
    assert "qualifier: nothing_invented" in known
    assert "qualifier: fresh" in known
    assert "nothing_lost" not in known  # silver.rejected_records is not known


def test_a_layer_without_contracts_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer 'copper' has data contracts; there are bronze, silver"):
        contracts("copper")
