-- A verdict for every suspect that is not new after all: duplicate or rejected.
--
-- In:  ruled (id, key, content, broken, and where in Kafka); broken is the rule it breaks and why, else null.
--      known (key, content): silver's rows with such a key. $key: name of the key.
-- Out: judged (id, verdict, rule, why).
--
-- A redelivered message repeats the row word for word and is dropped. A key that comes again with other content is a
-- fault of the source: the first one stays, the other is rejected. First is what was written to bronze first.
create or replace temp table judged as
with copies as (
    select
        ruled.*,
        known.content as known_content,
        row_number() over same_key as copy_number,
        first_value(ruled.content) over same_key as first_content
    from ruled
    left join known using (key)
    window same_key as (
        partition by key, broken is null
        order by _ingested_at, _kafka_topic, _kafka_partition, _kafka_offset
    )
),
verdicts as (
    select
        id,
        key,
        broken,
        case
            when broken is not null then 'rejected'
            when known_content is not null then if(content = known_content, 'duplicate', 'rejected')
            when copy_number = 1 then 'new'
            else if(content = first_content, 'duplicate', 'rejected')
        end as verdict
    from copies
)
select
    id,
    verdict,
    coalesce(broken.rule, $key || '_unique') as rule,
    coalesce(broken.reason, $key || ' ' || key || ' already belongs to another row') as why
from verdicts
where verdict <> 'new'
