-- The first rule that a row of bronze.trades breaks, and why; null for a valid one.
case
    when trade_id = '' then {rule: 'trade_id_present', reason: 'trade_id is empty'}
    when symbol = '' then {rule: 'symbol_present', reason: 'symbol is empty'}
    when price <= 0 then {rule: 'price_positive', reason: 'price is ' || price || ', must be above 0'}
    when quantity <= 0 then {rule: 'quantity_positive', reason: 'quantity is ' || quantity || ', must be above 0'}
end
