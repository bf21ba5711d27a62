-- Rows for gold.trader_performance of one day. In: fills, matches (see fifo.sql). $day: days since 1970.
--
-- realized_pnl: quantity * (price sold - price bought), over what was matched; it counts when the later of both
--     trades closes it.
-- win_rate: closing fills with a profit above 0 / closing fills. A closing fill closes one or more lots, or a part.
-- max_drawdown: the deepest fall of the running realised profit below its peak so far, which is 0 at the start of
--     the day (Magdon-Ismail & Atiya 2004, "Maximum drawdown").
-- sharpe_ratio: mean of the closing fills' profits / their sample standard deviation (Sharpe 1994), not annualised.
-- average_holding_seconds: time from opening to closing, weighted by quantity.
with sides as (
    select
        agent_id,
        count(*) filter (is_buy) as buy_count,
        count(*) filter (not is_buy) as sell_count,
        coalesce(sum(quantity) filter (is_buy), 0) as bought,
        coalesce(sum(quantity) filter (not is_buy), 0) as sold,
        coalesce(sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) filter (is_buy), 0) as paid,
        coalesce(sum(cast(price as decimal(19, 8)) * cast(quantity as decimal(19, 8))) filter (not is_buy), 0)
            as received,
        count(distinct symbol) as symbol_count
    from fills
    group by agent_id
),
closing as (
    select
        agent_id,
        place,
        sum(quantity * gain) as gain,
        sum(quantity) as quantity,
        sum(cast(quantity as double) * held_us) as held
    from matches
    group by agent_id, place
),
running as (
    select *, sum(gain) over (partition by agent_id order by place rows unbounded preceding) as so_far
    from closing
),
falls as (
    select
        *,
        greatest(0, max(so_far) over (partition by agent_id order by place rows unbounded preceding)) - so_far as fall
    from running
),
closed as (
    select
        agent_id,
        sum(gain) as gain,
        count(*) as closing_fills,
        count(*) filter (gain > 0) as winning_fills,
        max(fall) as max_drawdown,
        avg(cast(gain as double)) / nullif(stddev_samp(cast(gain as double)), 0) as sharpe_ratio,
        sum(held) / cast(sum(quantity) as double) / 1e6 as average_holding_seconds
    from falls
    group by agent_id
)
select
    agent_id,
    date '1970-01-01' + $day as trading_date,
    buy_count,
    sell_count,
    cast(bought as decimal(28, 8)) as buy_volume,
    cast(sold as decimal(28, 8)) as sell_volume,
    value_8(paid) as buy_value,
    value_8(received) as sell_value,
    symbol_count,
    value_8(coalesce(gain, 0)) as realized_pnl,
    coalesce(closing_fills, 0) as closing_fills,
    coalesce(winning_fills, 0) as winning_fills,
    cast(winning_fills as double) / closing_fills as win_rate,
    value_8(coalesce(max_drawdown, 0)) as max_drawdown,
    sharpe_ratio,
    average_holding_seconds,
    $aggregated_at as _aggregated_at
from sides
left join closed using (agent_id)
order by agent_id
