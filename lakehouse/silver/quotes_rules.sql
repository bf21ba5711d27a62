-- The first rule that a row of bronze.quotes breaks, and why; null for a valid one.
case
    when event_id = '' then {rule: 'event_id_present', reason: 'event_id is empty'}
    when symbol = '' then {rule: 'symbol_present', reason: 'symbol is empty'}
    when best_bid <= 0 then {rule: 'price_positive', reason: 'best_bid is ' || best_bid || ', must be above 0'}
    when best_ask <= 0 then {rule: 'price_positive', reason: 'best_ask is ' || best_ask || ', must be above 0'}
    when best_bid_size < 0
        then {rule: 'size_not_negative', reason: 'best_bid_size is ' || best_bid_size || ', must not be below 0'}
    when best_ask_size < 0
        then {rule: 'size_not_negative', reason: 'best_ask_size is ' || best_ask_size || ', must not be below 0'}
    when best_bid >= best_ask
        then {
            rule: 'quote_not_crossed',
            reason: 'best bid ' || best_bid || ' is not below best ask ' || best_ask
        }
end
