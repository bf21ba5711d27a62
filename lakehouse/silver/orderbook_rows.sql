-- Rows for silver.orderbook: best prices and sizes, spread, mid, depth in quantity and in levels, and the levels.
--
-- In:  judged, dim_symbol. Out: the columns of silver.orderbook, sorted as its files are.
-- An empty side has no best price, so no spread and no mid either; its depth is 0. Where the mid has a ninth decimal
-- it is rounded half up.
select
    judged.event_id,
    judged.timestamp,
    judged.sequence,
    judged.symbol,
    judged.sequence_number,
    judged.bids[1].price as best_bid_price,
    judged.bids[1].quantity as best_bid_qty,
    judged.asks[1].price as best_ask_price,
    judged.asks[1].quantity as best_ask_qty,
    judged.asks[1].price - judged.bids[1].price as spread,
    cast(
        (cast(judged.asks[1].price as decimal(19, 8)) + judged.bids[1].price) * cast(0.5 as decimal(2, 1))
        as decimal(18, 8)
    ) as mid_price,
    cast(coalesce(list_sum(list_transform(judged.bids, level -> level.quantity)), 0) as decimal(28, 8)) as bid_depth,
    cast(coalesce(list_sum(list_transform(judged.asks, level -> level.quantity)), 0) as decimal(28, 8)) as ask_depth,
    cast(len(judged.bids) as integer) as bid_levels,
    cast(len(judged.asks) as integer) as ask_levels,
    judged.bids,
    judged.asks,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from judged
left join dim_symbol
    on dim_symbol.symbol = judged.symbol
    and dim_symbol.valid_from <= judged.timestamp
    and (dim_symbol.valid_to is null or judged.timestamp < dim_symbol.valid_to)
where judged.verdict = 'new'
order by judged.symbol, judged.timestamp, judged.sequence
