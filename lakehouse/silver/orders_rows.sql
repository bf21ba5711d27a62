-- What silver.orders has beside the columns of bronze.orders.
-- In: fresh (the new rows, called silver for the join), dim_symbol.
select
    silver.row,
    dim_symbol.company_name,
    dim_symbol.sector,
    $processed_at as _processed_at
from fresh as silver
