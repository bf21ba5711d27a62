-- Rows for silver.trader_activity of one day. In: trades (rows of silver.trades).
with fills as (
    select buyer_agent_id as agent_id, true as is_buy, symbol, timestamp, price, quantity from trades
    union all
    select seller_agent_id as agent_id, false as is_buy, symbol, timestamp, price, quantity from trades
),
sums as (
    select
        agent_id,
        symbol,
        epoch_us(min(timestamp)) // 86400000000 as day,
        count(*) filter (is_buy) as buy_count,
        count(*) filter (not is_buy) as sell_count,
        coalesce(sum(quantity) filter (is_buy), 0) as bought,
        coalesce(sum(quantity) filter (not is_buy), 0) as sold,
        coalesce(sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) filter (is_buy), 0) as paid,
        coalesce(sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) filter (not is_buy), 0) as received,
        min(timestamp) as first_trade_at,
        max(timestamp) as last_trade_at
    from fills
    group by agent_id, symbol
)
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
