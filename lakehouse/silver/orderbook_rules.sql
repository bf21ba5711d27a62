-- The first rule that a row of bronze.orderbook_snapshots breaks, and why; null for a valid one.
case
    when event_id = '' then {rule: 'event_id_present', reason: 'event_id is empty'}
    when symbol = '' then {rule: 'symbol_present', reason: 'symbol is empty'}
    when len(list_filter(bids, level -> level.price <= 0 or level.quantity <= 0)) > 0
        or len(list_filter(asks, level -> level.price <= 0 or level.quantity <= 0)) > 0
        then {rule: 'levels_positive', reason: 'a level has a price or quantity of 0 or less'}
    when bids[1].price >= asks[1].price
        then {
            rule: 'book_not_crossed',
            reason: 'best bid ' || bids[1].price || ' is not below best ask ' || asks[1].price
        }
end
