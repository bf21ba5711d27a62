-- What silver.trades has beside the columns of bronze.trades: the company the symbol stood for at the time.
-- In: fresh (the new rows, called silver for the join), dim_symbol.
select
    silver.row,
    dim_symbol.company_name,
    dim_symbol.sector,
    dim_symbol.market_cap_category,
    $processed_at as _processed_at
from fresh as silver
