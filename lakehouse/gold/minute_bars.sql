-- One bar per symbol and minute with trades, from the trades of one UTC day.
--
-- In:  trades (rows of silver.trades). Out: rows with exact sums: value_exact has all 16 decimals of price * quantity.
-- Open and close follow (timestamp, sequence); trade_id decides between trades that agree on both. Sorting for that
-- takes half of the time, so it is done only where several trades share the first or the last time of their minute.
-- The minute is counted from the epoch, so the session's time zone cannot move it.
with timed as (
    select *, epoch_us(timestamp) as micros, epoch_us(timestamp) // 60000000 as minute from trades
),
minutes as (
    select
        symbol,
        minute,
        arg_min(price, micros) as open_price,
        max(price) as high_price,
        min(price) as low_price,
        {
            price: arg_max(price, micros),
            company_name: arg_max_null(company_name, micros),
            sector: arg_max_null(sector, micros)
        } as last_trade,
        min(micros, 2) as first_two,
        max(micros, 2) as last_two,
        cast(sum(quantity) as decimal(28, 8)) as total_volume,
        sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) as value_exact,
        count(*) as trade_count,
        cast(coalesce(sum(quantity) filter (is_aggressive_buy), 0) as decimal(28, 8)) as buy_volume
    from timed
    group by symbol, minute
),
tied as (
    select symbol, first_two[1] as micros from minutes where first_two[1] = first_two[2]
    union
    select symbol, last_two[1] from minutes where last_two[1] = last_two[2]
),
in_order as (
    select
        symbol,
        micros,
        first(price order by sequence nulls first, trade_id) as price,
        last(
            {price: price, company_name: company_name, sector: sector} order by sequence nulls first, trade_id
        ) as last_trade
    from timed semi join tied using (symbol, micros)
    group by symbol, micros
)
select
    minutes.symbol,
    minute,
    coalesce(opening.price, open_price) as open_price,
    high_price,
    low_price,
    coalesce(closing.last_trade, minutes.last_trade) as last_trade,
    total_volume,
    value_exact,
    trade_count,
    buy_volume,
    cast(total_volume - buy_volume as decimal(28, 8)) as sell_volume
from minutes
left join in_order as opening on opening.symbol = minutes.symbol and opening.micros = first_two[1]
left join in_order as closing on closing.symbol = minutes.symbol and closing.micros = last_two[1]
