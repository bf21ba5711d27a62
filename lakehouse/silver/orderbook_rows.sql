-- Rows for silver.orderbook: best prices and sizes, spread, mid, depth in quantity and in levels, and the levels.
--
-- In: fresh (rows of bronze.orderbook_snapshots, called silver for the join), dim_symbol.
-- An empty side has no best price, so no spread and no mid either; its depth is 0. Where the mid has a ninth decimal
-- it is rounded half up: by way of the spread, which is narrow enough for 64-bit arithmetic.
select
    silver.event_id,
    silver.timestamp,
    silver.sequence,
    silver.symbol,
    silver.sequence_number,
    silver.bids[1].price as best_bid_price,
    silver.bids[1].quantity as best_bid_qty,
    silver.asks[1].price as best_ask_price,
    silver.asks[1].quantity as best_ask_qty,
    silver.asks[1].price - silver.bids[1].price as spread,
    case
        when silver.asks[1].price - silver.bids[1].price < 100000000
            then silver.bids[1].price
                + cast((silver.asks[1].price - silver.bids[1].price) * cast(0.5 as decimal(2, 1)) as decimal(18, 8))
        else cast(
            (cast(silver.asks[1].price as decimal(19, 8)) + silver.bids[1].price) * cast(0.5 as decimal(2, 1))
            as decimal(18, 8)
        )
    end as mid_price,
    cast(coalesce(list_sum(list_transform(silver.bids, level -> level.quantity)), 0) as decimal(28, 8)) as bid_depth,
    cast(coalesce(list_sum(list_transform(silver.asks, level -> level.quantity)), 0) as decimal(28, 8)) as ask_depth,
    cast(len(silver.bids) as integer) as bid_levels,
    cast(len(silver.asks) as integer) as ask_levels,
    silver.bids,
    silver.asks,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from fresh as silver
