-- First in, first out: which quantity bought was matched with which quantity sold, and what is left open.
--
-- In:  trades (rows of silver.trades of one UTC day, of some of the agents), agents (agent_id: whose fills count),
--      carried (agent_id, symbol, last_price, lots: positions open at the end of the day before).
-- Out: fills, entries, matches, lots.
--
-- An agent's open lots of a symbol are all bought or all sold short, and a fill of the other side closes the oldest
-- first. So the k-th unit bought is always matched with the k-th unit sold, and lining up the running totals of both
-- sides finds the matches at once: IRS Publication 550, "First-in first-out (FIFO)", for longs and shorts alike.

-- A trade is two fills. place: the order of the trades, by (timestamp, sequence), trade_id deciding between equals.
create or replace temp table fills as
with ordered as (
    select
        row_number() over (order by timestamp, sequence nulls first, trade_id) as place,
        symbol,
        timestamp,
        price,
        quantity,
        buyer_agent_id,
        seller_agent_id
    from trades
    where buyer_agent_id in (select agent_id from agents) or seller_agent_id in (select agent_id from agents)
)
select buyer_agent_id as agent_id, true as is_buy, symbol, place, timestamp as traded_at, price, quantity
from ordered
where buyer_agent_id in (select agent_id from agents)
union all
select seller_agent_id as agent_id, false as is_buy, symbol, place, timestamp as traded_at, price, quantity
from ordered
where seller_agent_id in (select agent_id from agents);

-- What stood open, then the day's fills; each covers the units from_unit to to_unit of its side.
create or replace temp table entries as
with carried_lots as (
    select
        agent_id,
        symbol,
        unnest(lots) as lot,
        unnest(range(len(lots))) - len(lots) as place
    from carried
),
all_entries as (
    select agent_id, symbol, is_buy, place, traded_at, price, quantity from fills
    union all
    select
        agent_id,
        symbol,
        lot.quantity > 0 as is_buy,
        place,
        lot.opened_at as traded_at,
        lot.price as price,
        abs(lot.quantity) as quantity
    from carried_lots
)
select
    *,
    sum(quantity) over side - quantity as from_unit,
    sum(quantity) over side as to_unit
from all_entries
window side as (partition by agent_id, symbol, is_buy order by place rows unbounded preceding);

-- Stretches of units that one entry bought and one entry sold.
create or replace temp table matches as
with totals as (
    select
        agent_id,
        symbol,
        least(
            coalesce(sum(quantity) filter (is_buy), 0),
            coalesce(sum(quantity) filter (not is_buy), 0)
        ) as matched
    from entries
    group by agent_id, symbol
    having matched > 0
),
stretches as (
    select
        agent_id,
        symbol,
        from_unit,
        lead(from_unit) over along as next_unit,
        last_value(case when is_buy then {place: place, traded_at: traded_at, price: price} end ignore nulls) over along as bought,
        last_value(case when not is_buy then {place: place, traded_at: traded_at, price: price} end ignore nulls) over along as sold,
        matched
    from entries
    join totals using (agent_id, symbol)
    where from_unit < matched
    window along as (partition by agent_id, symbol order by from_unit, is_buy rows unbounded preceding)
)
select
    agent_id,
    symbol,
    greatest(bought.place, sold.place) as place,
    abs(epoch_us(bought.traded_at) - epoch_us(sold.traded_at)) as held_us,
    cast(least(coalesce(next_unit, matched), matched) - from_unit as decimal(19, 8)) as quantity,
    cast(sold.price as decimal(19, 8)) - bought.price as gain
from stretches
where coalesce(next_unit, matched) > from_unit;

-- What is left open of each entry, signed.
create or replace temp table lots as
select
    agent_id,
    symbol,
    place,
    traded_at,
    price,
    (to_unit - greatest(from_unit, coalesce(matched, 0))) * if(is_buy, 1, -1) as quantity
from entries
left join (
    select agent_id, symbol, sum(quantity) as matched from matches group by agent_id, symbol
) as closed using (agent_id, symbol)
where to_unit > coalesce(matched, 0);
