-- The first rule that a row of bronze.orders breaks, and why; null for a valid one.
case
    when event_id = '' then {rule: 'event_id_present', reason: 'event_id is empty'}
    when order_id = '' then {rule: 'order_id_present', reason: 'order_id is empty'}
    when symbol = '' then {rule: 'symbol_present', reason: 'symbol is empty'}
    when price <= 0 then {rule: 'price_positive', reason: 'price is ' || price || ', must be above 0'}
    when order_type = 'Limit' and price is null
        then {rule: 'limit_has_price', reason: 'a limit order without a price'}
    when event_type = 'OrderPlaced' and coalesce(quantity, 0) <= 0
        then {
            rule: 'quantity_positive',
            reason: 'quantity is ' || coalesce(quantity::varchar, 'null') || ', must be above 0'
        }
    when remaining_quantity < 0
        then {
            rule: 'remaining_not_negative',
            reason: 'remaining_quantity is ' || remaining_quantity || ', must not be below 0'
        }
end
