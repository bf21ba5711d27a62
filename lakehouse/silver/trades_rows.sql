-- Rows for silver.trades: the new trades, each with the company its symbol stood for at the time.
-- In: fresh (rows of bronze.trades, called silver for the join), dim_symbol.
select
    silver.event_id,
    silver.timestamp,
    silver.sequence,
    silver.trade_id,
    silver.symbol,
    silver.price,
    silver.quantity,
    silver.buy_order_id,
    silver.sell_order_id,
    silver.buyer_agent_id,
    silver.seller_agent_id,
    silver.is_aggressive_buy,
    dim_symbol.company_name,
    dim_symbol.sector,
    dim_symbol.market_cap_category,
    $processed_at as _processed_at
from fresh as silver
