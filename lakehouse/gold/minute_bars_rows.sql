-- Rows for gold.minute_bars. In: bars (see lakehouse/gold/bars.py).
select
    symbol,
    make_timestamptz(minute * 60000000) as bar_start,
    date '1970-01-01' + cast(minute // 1440 as integer) as trading_date,
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
    $aggregated_at as _aggregated_at
from bars
order by symbol, minute
