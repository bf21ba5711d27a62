-- Rows for gold.market_overview. In: daily (rows of gold.daily_trading_summary of whole days), bars (see
-- lakehouse/gold/bars.py), spreads (see lakehouse/gold/spreads.py).
--
-- avg_spread_bps: mean of the symbols' mean quoted spread (Chordia, Roll & Subrahmanyam 2000, "Commonality in
-- liquidity"); each mean is rounded to 8 places, so that their sum is exact. Null where nobody quoted both sides.
-- volatility_index: mean of the symbols' volatility, weighted by value traded; a float. Null where none has one, or
-- the value that they traded rounds to 0.
with traders as (
    select date '1970-01-01' + cast(minute // 1440 as integer) as trading_date, any_value(agents) as agents
    from bars
    group by minute // 1440
),
quoted as (
    select trading_date, cast(sum(mean_bps) as double) / count(*) as avg_spread_bps
    from (select trading_date, cast(total_bps / quotes as decimal(18, 8)) as mean_bps from spreads)
    group by trading_date
)
select
    trading_date,
    cast(sum(trade_count) as bigint) as total_trades,
    cast(sum(total_volume) as decimal(28, 8)) as total_volume,
    cast(sum(total_value) as decimal(38, 8)) as total_value,
    count(*) as unique_symbols,
    any_value(agents) as active_traders,
    count(*) filter (close_price > open_price) as advancing,
    count(*) filter (close_price < open_price) as declining,
    count(*) filter (close_price = open_price) as unchanged,
    any_value(avg_spread_bps) as avg_spread_bps,
    sum(cast(total_value as double) * volatility)
        / nullif(sum(cast(total_value as double)) filter (volatility is not null), 0) as volatility_index,
    $aggregated_at as _aggregated_at
from daily
join traders using (trading_date)
left join quoted using (trading_date)
group by trading_date
order by trading_date
