-- The version of the symbol that held at the time of the event: valid_from <= t < valid_to; an open one has no valid_to.
left join dim_symbol
    on dim_symbol.symbol = silver.symbol
    and dim_symbol.valid_from <= silver.timestamp
    and (dim_symbol.valid_to is null or silver.timestamp < dim_symbol.valid_to)
