-- What each agent traded of each symbol on one day, exact. In: trades (rows of silver.trades), and sums (what trades
-- that were read before came to).
with fills as (
    select buyer_agent_id as agent_id, true as is_buy, symbol, timestamp, price, quantity from trades
    union all
    select seller_agent_id as agent_id, false as is_buy, symbol, timestamp, price, quantity from trades
),
new as (
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
    any_value(day) as day,
    cast(sum(buy_count) as bigint) as buy_count,
    cast(sum(sell_count) as bigint) as sell_count,
    sum(bought) as bought,
    sum(sold) as sold,
    sum(paid) as paid,
    sum(received) as received,
    min(first_trade_at) as first_trade_at,
    max(last_trade_at) as last_trade_at
from (from sums union all by name from new)
group by agent_id, symbol
