-- Rows for silver.trades: the new trades with the company their symbol stood for at the time of the trade.
--
-- In:  judged, dim_symbol (versions with valid_from <= t < valid_to; an open version has no valid_to).
-- Out: the columns of silver.trades, sorted as its files are.
select
    judged.event_id,
    judged.timestamp,
    judged.sequence,
    judged.trade_id,
    judged.symbol,
    judged.price,
    judged.quantity,
    judged.buy_order_id,
    judged.sell_order_id,
    judged.buyer_agent_id,
    judged.seller_agent_id,
    judged.is_aggressive_buy,
    dim_symbol.company_name,
    dim_symbol.sector,
    dim_symbol.market_cap_category,
    $processed_at as _processed_at
from judged
left join dim_symbol
    on dim_symbol.symbol = judged.symbol
    and dim_symbol.valid_from <= judged.timestamp
    and (dim_symbol.valid_to is null or judged.timestamp < dim_symbol.valid_to)
where judged.verdict = 'new'
order by judged.symbol, judged.timestamp, judged.sequence
