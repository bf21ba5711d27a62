-- What silver.quotes has beside the columns of bronze.quotes.
-- In: fresh (the new rows, called silver for the join), dim_symbol.
-- The spread is computed here: what the frame tells may be rounded, or missing.
select
    silver.row,
    silver.best_ask - silver.best_bid as spread,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from fresh as silver
