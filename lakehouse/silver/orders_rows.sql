-- Rows for silver.orders.
-- In: fresh (rows of bronze.orders, called silver for the join), dim_symbol.
select
    silver.event_type,
    silver.event_id,
    silver.timestamp,
    silver.sequence,
    silver.order_id,
    silver.symbol,
    silver.side,
    silver.order_type,
    silver.price,
    silver.quantity,
    silver.remaining_quantity,
    silver.agent_id,
    silver.agent_type,
    silver.reason,
    silver.time_in_force,
    silver.replaces,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from fresh as silver
