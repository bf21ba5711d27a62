-- Rows for gold.daily_trading_summary. In: bars (see lakehouse/gold/bars.py).
--
-- volatility: sample standard deviation of the logarithmic returns from one minute's close to the next one with
-- trades, not annualised; null with fewer than two returns. It and price_change_pct are floats.
with closes as (
    select
        *,
        minute // 1440 as day,
        ln(cast(close_price as double))
            - ln(cast(lag(close_price) over (partition by symbol, minute // 1440 order by minute) as double))
            as log_return
    from bars
),
days as (
    select
        symbol,
        day,
        arg_min(open_price, minute) as open_price,
        max(high_price) as high_price,
        min(low_price) as low_price,
        arg_max(close_price, minute) as close_price,
        arg_max(company, minute) as company,
        cast(sum(total_volume) as decimal(28, 8)) as total_volume,
        sum(value_exact) as value_exact,
        cast(sum(trade_count) as bigint) as trade_count,
        cast(sum(buy_volume) as decimal(28, 8)) as buy_volume,
        cast(sum(sell_volume) as decimal(28, 8)) as sell_volume,
        stddev_samp(log_return) as volatility
    from closes
    group by symbol, day
)
select
    symbol,
    date '1970-01-01' + cast(day as integer) as trading_date,
    open_price,
    high_price,
    low_price,
    close_price,
    mean_8(value_exact, total_volume) as vwap,
    total_volume,
    value_8(value_exact) as total_value,
    trade_count,
    buy_volume,
    sell_volume,
    100 * cast(close_price - open_price as double) / cast(open_price as double) as price_change_pct,
    volatility,
    company.name as company_name,
    company.sector as sector,
    $aggregated_at as _aggregated_at
from days
order by symbol, day
