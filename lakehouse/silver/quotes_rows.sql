-- Rows for silver.quotes. The spread is computed here: what the frame tells may be rounded, or missing.
-- In: fresh (rows of bronze.quotes, called silver for the join), dim_symbol.
select
    silver.event_id,
    silver.timestamp,
    silver.sequence,
    silver.symbol,
    silver.best_bid,
    silver.best_bid_size,
    silver.best_ask,
    silver.best_ask_size,
    silver.best_ask - silver.best_bid as spread,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from fresh as silver
