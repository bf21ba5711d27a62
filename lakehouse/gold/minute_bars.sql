-- One bar per symbol and minute with trades, from the trades of one UTC day.
--
-- In:  trades (rows of silver.trades). Out: rows with exact sums: value_exact has all 16 decimals of price * quantity.
-- Open and close follow (timestamp, sequence); trade_id decides between trades that agree on both.
-- The minute is counted from the epoch, so the session's time zone cannot move it.
select
    symbol,
    epoch_us(timestamp) // 60000000 as minute,
    first(price order by timestamp, sequence nulls first, trade_id) as open_price,
    max(price) as high_price,
    min(price) as low_price,
    last(
        {price: price, company_name: company_name, sector: sector}
        order by timestamp, sequence nulls first, trade_id
    ) as last_trade,
    cast(sum(quantity) as decimal(28, 8)) as total_volume,
    sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) as value_exact,
    count(*) as trade_count,
    cast(coalesce(sum(quantity) filter (is_aggressive_buy), 0) as decimal(28, 8)) as buy_volume,
    cast(coalesce(sum(quantity) filter (not is_aggressive_buy), 0) as decimal(28, 8)) as sell_volume
from trades
group by symbol, minute
