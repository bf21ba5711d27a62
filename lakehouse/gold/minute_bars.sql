-- One bar per symbol and minute with trades, from the trades of one UTC day. In: see minutes.sql.
--
-- Out: rows with exact sums: value_exact has all 16 decimals of price * quantity. company stands in the last bar of
-- a symbol alone.
select
    minutes.symbol,
    minutes.minute,
    coalesce(opening.open_price, minutes.open_price) as open_price,
    high_price,
    low_price,
    coalesce(closing.close_price, minutes.close_price) as close_price,
    total_volume,
    value_exact,
    trade_count,
    buy_volume,
    cast(total_volume - buy_volume as decimal(28, 8)) as sell_volume,
    company
from minutes
left join in_order as opening on opening.symbol = minutes.symbol and opening.micros = first_two[1]
left join in_order as closing on closing.symbol = minutes.symbol and closing.micros = last_two[1]
left join companies on companies.symbol = minutes.symbol and companies.minute = minutes.minute
