-- The first rule that a row of bronze.orderbook_snapshots breaks, and why; null for a valid one.
-- What is said of its levels: see lakehouse.silver.books.
case
    when event_id = '' then {rule: 'event_id_present', reason: 'event_id is empty'}
    when symbol = '' then {rule: 'symbol_present', reason: 'symbol is empty'}
    when not levels_positive
        then {rule: 'levels_positive', reason: 'a level has a price or quantity of 0 or less'}
    when best_bid_price >= best_ask_price
        then {
            rule: 'book_not_crossed',
            reason: 'best bid ' || best_bid_price || ' is not below best ask ' || best_ask_price
        }
end
