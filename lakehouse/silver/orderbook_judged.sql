-- A verdict for every book that arrived: new, duplicate or rejected.
--
-- In:  arrived (rows of bronze.orderbook_snapshots), known (rows of silver.orderbook that carry an arrived event_id).
-- Out: judged = arrived + verdict + rule + reason.
create or replace temp table judged as
with ruled as (
    select
        *,
        case
            when event_id = '' then 'event_id_present'
            when symbol = '' then 'symbol_present'
            when len(list_filter(bids, level -> level.price <= 0 or level.quantity <= 0)) > 0
                or len(list_filter(asks, level -> level.price <= 0 or level.quantity <= 0)) > 0
                then 'levels_positive'
            when bids[1].price >= asks[1].price then 'book_not_crossed'
        end as broken,
        row(timestamp, symbol, bids, asks) as content
    from arrived
),
copies as (
    select
        ruled.*,
        known.content as known_content,
        row_number() over same_id as copy_number,
        first_value(ruled.content) over same_id as first_content
    from ruled
    left join (select event_id, row(timestamp, symbol, bids, asks) as content from known) as known
        on known.event_id = ruled.event_id
    window same_id as (
        partition by ruled.event_id, ruled.broken is null
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
    if(verdict = 'rejected', coalesce(broken, 'event_id_unique'), null) as rule,
    case
        when verdict <> 'rejected' then null
        when broken = 'event_id_present' then 'event_id is empty'
        when broken = 'symbol_present' then 'symbol is empty'
        when broken = 'levels_positive' then 'a level has a price or quantity of 0 or less'
        when broken = 'book_not_crossed'
            then 'best bid ' || bids[1].price || ' is not below best ask ' || asks[1].price
        else 'event_id ' || event_id || ' already belongs to a different book'
    end as reason
from verdicts
