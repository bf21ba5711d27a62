-- The minutes of one UTC day, and what the order of trades decides: see minute_bars.sql, which puts them together.
--
-- In: trades (rows of silver.trades). Out: minutes, in_order, companies.
--
-- Open and close follow (timestamp, sequence); trade_id decides between trades that agree on both. Sorting for that
-- takes half of the time, so it is done only where several trades share the first or the last time of their minute.
-- The minute is counted from the epoch, so the session's time zone cannot move it.
create or replace temp table minutes as
with timed as (
    select *, epoch_us(timestamp) as micros, epoch_us(timestamp) // 60000000 as minute from trades
)
select
    symbol,
    minute,
    arg_min(price, micros) as open_price,
    max(price) as high_price,
    min(price) as low_price,
    arg_max(price, micros) as close_price,
    min(micros, 2) as first_two,
    max(micros, 2) as last_two,
    cast(sum(quantity) as decimal(28, 8)) as total_volume,
    sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) as value_exact,
    count(*) as trade_count,
    cast(coalesce(sum(quantity) filter (is_aggressive_buy), 0) as decimal(28, 8)) as buy_volume
from timed
group by symbol, minute;

-- A table, because DuckDB then reads the few rows with such times, of all trades none where it is empty.
create or replace temp table tied as
select symbol, make_timestamptz(first_two[1]) as timestamp from minutes where first_two[1] = first_two[2]
union
select symbol, make_timestamptz(last_two[1]) from minutes where last_two[1] = last_two[2];

create or replace temp table in_order as
select
    symbol,
    epoch_us(timestamp) as micros,
    first(price order by sequence nulls first, trade_id) as open_price,
    last(price order by sequence nulls first, trade_id) as close_price
from trades semi join tied using (symbol, timestamp)
group by symbol, timestamp;

-- Of each symbol's last trade of the day.
create or replace temp table companies as
select
    symbol,
    epoch_us(max(timestamp)) // 60000000 as minute,
    last({name: company_name, sector: sector} order by timestamp, sequence nulls first, trade_id) as company
from trades
where timestamp in (select make_timestamptz(max(last_two[1])) from minutes group by symbol)
group by symbol;
