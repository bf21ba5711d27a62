-- Rows for gold.sector_daily. In: daily (rows of gold.daily_trading_summary of whole days).
select
    coalesce(sector, 'Unknown') as sector,
    trading_date,
    count(*) as unique_symbols,
    cast(sum(total_volume) as decimal(28, 8)) as total_volume,
    cast(sum(total_value) as decimal(38, 8)) as total_value,
    cast(sum(trade_count) as bigint) as trade_count,
    cast(sum(buy_volume) as decimal(28, 8)) as buy_volume,
    cast(sum(sell_volume) as decimal(28, 8)) as sell_volume,
    count(*) filter (close_price > open_price) as advancing,
    count(*) filter (close_price < open_price) as declining,
    count(*) filter (close_price = open_price) as unchanged,
    avg(price_change_pct) as avg_price_change_pct,
    $aggregated_at as _aggregated_at
from daily
group by coalesce(sector, 'Unknown'), trading_date
order by sector, trading_date
