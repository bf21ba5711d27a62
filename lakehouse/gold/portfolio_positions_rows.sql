-- Rows for gold.portfolio_positions of one day. In: fills, matches, lots, carried (see fifo.sql), closes (symbol,
-- last_price of the day). $day: days since 1970.
--
-- average_cost: mean price of the open lots, weighted by quantity. unrealized_pnl: quantity * (last_price - price),
-- over the open lots; it is what closing all of them at the last price would realise.
with members as (
    select agent_id, symbol from fills
    union
    select agent_id, symbol from carried
),
open_lots as (
    select
        agent_id,
        symbol,
        sum(quantity) as quantity,
        sum(cast(quantity as decimal(19, 8)) * cast(price as decimal(19, 8))) as cost,
        list(
            {quantity: cast(quantity as decimal(18, 8)), price: price, opened_at: traded_at} order by place
        ) as lots
    from lots
    group by agent_id, symbol
),
closed as (
    select agent_id, symbol, sum(quantity * gain) as gain from matches group by agent_id, symbol
),
positions as (
    select
        members.agent_id,
        members.symbol,
        coalesce(open_lots.quantity, 0) as quantity,
        coalesce(cost, 0) as cost,
        coalesce(closes.last_price, carried.last_price) as last_price,
        coalesce(open_lots.quantity, 0) * cast(coalesce(closes.last_price, carried.last_price) as decimal(19, 8)) as value,
        coalesce(gain, 0) as gain,
        coalesce(open_lots.lots, []) as lots
    from members
    left join open_lots using (agent_id, symbol)
    left join closed using (agent_id, symbol)
    left join carried using (agent_id, symbol)
    left join closes on closes.symbol = members.symbol
)
select
    agent_id,
    symbol,
    date '1970-01-01' + $day as trading_date,
    cast(quantity as decimal(28, 8)) as quantity,
    case when quantity <> 0 then mean_8(abs(cost), abs(quantity)) end as average_cost,
    last_price,
    value_8(value) as market_value,
    value_8(value - cost) as unrealized_pnl,
    case when quantity <> 0 then 100 * cast(value - cost as double) / abs(cast(cost as double)) end
        as unrealized_pnl_pct,
    100 * abs(cast(value as double)) / nullif(sum(abs(cast(value as double))) over (partition by agent_id), 0)
        as weight_pct,
    value_8(gain) as realized_pnl,
    lots,
    $aggregated_at as _aggregated_at
from positions
order by agent_id, symbol
