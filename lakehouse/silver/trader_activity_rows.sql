-- Rows for silver.trader_activity of one day. In: sums (see trader_activity_sums.sql).
select
    agent_id,
    symbol,
    date '1970-01-01' + cast(day as integer) as trading_date,
    buy_count,
    sell_count,
    cast(bought as decimal(28, 8)) as buy_volume,
    cast(sold as decimal(28, 8)) as sell_volume,
    value_8(paid) as buy_value,
    value_8(received) as sell_value,
    cast(bought - sold as decimal(28, 8)) as net_quantity,
    cast(mean_8(bought + sold, buy_count + sell_count) as decimal(28, 8)) as average_size,
    first_trade_at,
    last_trade_at,
    $processed_at as _processed_at
from sums
order by agent_id, symbol
