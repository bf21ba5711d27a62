-- Rows for gold.market_overview. In: daily (rows of gold.daily_trading_summary of whole days).
select
    trading_date,
    cast(sum(trade_count) as bigint) as total_trades,
    cast(sum(total_volume) as decimal(28, 8)) as total_volume,
    cast(sum(total_value) as decimal(38, 8)) as total_value,
    count(*) as unique_symbols,
    count(*) filter (close_price > open_price) as advancing,
    count(*) filter (close_price < open_price) as declining,
    count(*) filter (close_price = open_price) as unchanged,
    $aggregated_at as _aggregated_at
from daily
group by trading_date
order by trading_date
