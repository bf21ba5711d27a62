"""SQL's rounding equals Python's decimals: half to even, whatever the sign and size."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import duckdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

UNIT = Decimal("0.00000001")

LARGEST = 10**38 - 10**8
"""Of decimal(38, 16), rounded up: its last digit counts 1e-16."""


def places_16(units: int) -> Decimal:
    return Decimal(f"{units}e-16")  # scaleb would round to the context's digits


exact = st.integers(-LARGEST, LARGEST).map(places_16)
near_a_tie = st.builds(
    lambda n, off: places_16(n * 10**8 + 5 * 10**7 + off), st.integers(-(10**25), 10**25), st.integers(-1, 1)
)
weights = st.integers(1, 20).flatmap(lambda digits: st.integers(1, 10**digits)).map(lambda n: Decimal(f"{n}e-8"))
means = st.integers(-(10**18) + 2, 10**18 - 2).map(lambda n: Decimal(f"{n}e-8"))


def rounded(value: Decimal) -> Decimal:
    return value.quantize(UNIT, ROUND_HALF_EVEN)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.one_of(exact, near_a_tie, st.none()), min_size=1, max_size=5))
def test_a_value_is_rounded_half_to_even(
    database: duckdb.DuckDBPyConnection, values: list[Decimal | None]
) -> None:
    with database.cursor() as cursor, localcontext(prec=60):
        listed = ", ".join("(null)" if value is None else f"({value:f})" for value in values)
        found = cursor.execute(f"select value_8(cast(v as decimal(38, 16))) from (values {listed}) as _ (v)")
        assert [row[0] for row in found.fetchall()] == [None if v is None else rounded(v) for v in values]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mean=means, weight=weights, off=st.integers(-4, 4))
def test_a_mean_is_rounded_half_to_even(
    database: duckdb.DuckDBPyConnection, mean: Decimal, weight: Decimal, off: int
) -> None:
    with database.cursor() as cursor, localcontext(prec=80):
        quarter = places_16(off * int(weight / UNIT) // 4)  # of the mean's last digit, so that halves come often
        total = mean * weight + quarter
        found = cursor.execute(f"select mean_8({total:f}::decimal(38, 16), {weight:f}::decimal(38, 8))").fetchone()
        assert found == (rounded(total / weight),)
