-- Exact rounding, half to even, of a sum of prices times quantities: decimals with 16 places, no floats.

-- x in units of 1e-16. DuckDB cannot multiply a wide decimal by 1e16, so the whole and the broken part go apart.
create or replace temp macro units_16(x) as
    cast(trunc(x) as hugeint) * 10000000000000000 + cast((x - trunc(x)) * 10000000000000000 as hugeint);

-- n / d, both integers, d above 0.
create or replace temp macro divide_half_even(n, d) as
    sign(n) * (
        abs(n) // d
        + case when 2 * (abs(n) % d) > d or (2 * (abs(n) % d) = d and (abs(n) // d) % 2 = 1) then 1 else 0 end
    );

-- A count of 1e-8 as a decimal with 8 places.
create or replace temp macro from_units_8(n) as
    cast(n as decimal(30, 0)) * cast('0.00000001' as decimal(8, 8));

-- Value (16 places) rounded to 8 places.
create or replace temp macro value_8(value_exact) as
    cast(from_units_8(divide_half_even(units_16(value_exact), 100000000)) as decimal(38, 8));

-- Volume-weighted average price: value / volume, 8 places.
create or replace temp macro vwap_8(value_exact, volume) as
    cast(
        from_units_8(divide_half_even(units_16(value_exact), cast(volume * 100000000 as hugeint)))
        as decimal(18, 8)
    );

-- A volume in units of 1e-8.
create or replace temp macro units_8(x) as cast(x * 100000000 as hugeint);
