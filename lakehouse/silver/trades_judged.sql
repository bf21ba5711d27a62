-- A verdict for every row that arrived: new, duplicate or rejected.
--
-- In:  arrived (rows of bronze.trades), known (rows of silver.trades that carry an arrived trade_id).
-- Out: judged = arrived + verdict + rule + reason.
--
-- A redelivered message repeats the trade word for word and is dropped. A trade_id that comes again with other
-- content is a fault of the source: the first one stays, the other is rejected.
create or replace temp table judged as
with ruled as (
    select
        *,
        case
            when trade_id = '' then 'trade_id_present'
            when symbol = '' then 'symbol_present'
            when price <= 0 then 'price_positive'
            when quantity <= 0 then 'quantity_positive'
        end as broken,
        row(
            timestamp, symbol, price, quantity, buy_order_id, sell_order_id,
            buyer_agent_id, seller_agent_id, is_aggressive_buy
        ) as content
    from arrived
),
copies as (
    select
        ruled.*,
        known.content as known_content,
        row_number() over same_id as copy_number,
        first_value(ruled.content) over same_id as first_content
    from ruled
    left join (
        select
            trade_id,
            row(
                timestamp, symbol, price, quantity, buy_order_id, sell_order_id,
                buyer_agent_id, seller_agent_id, is_aggressive_buy
            ) as content
        from known
    ) as known on known.trade_id = ruled.trade_id
    window same_id as (
        partition by ruled.trade_id, ruled.broken is null
        order by ruled._kafka_topic, ruled._kafka_partition, ruled._kafka_offset
    )
),
verdicts as (
    select
        *,
        case
            when broken is not null then 'rejected'
            when known_content is not null then if(content = known_content, 'duplicate', 'rejected')
            when copy_number = 1 then 'new'
            else if(content = first_content, 'duplicate', 'rejected')
        end as verdict
    from copies
)
select
    * exclude (broken, content, known_content, copy_number, first_content),
    if(verdict = 'rejected', coalesce(broken, 'trade_id_unique'), null) as rule,
    case
        when verdict <> 'rejected' then null
        when broken = 'trade_id_present' then 'trade_id is empty'
        when broken = 'symbol_present' then 'symbol is empty'
        when broken = 'price_positive' then 'price is ' || price || ', must be above 0'
        when broken = 'quantity_positive' then 'quantity is ' || quantity || ', must be above 0'
        else 'trade_id ' || trade_id || ' already belongs to a different trade'
    end as reason
from verdicts
