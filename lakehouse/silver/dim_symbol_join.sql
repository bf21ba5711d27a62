-- The version of the symbol that held at the time of the event.
left join dim_symbol
    on dim_symbol.symbol = silver.symbol
    and dim_symbol.valid_from <= silver.timestamp
    and silver.timestamp < dim_symbol.valid_to
