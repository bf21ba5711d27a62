-- Last price of each symbol, by (timestamp, sequence), trade_id deciding between equals. In: trades.
select symbol, last(price order by timestamp, sequence nulls first, trade_id) as last_price
from trades
where (symbol, timestamp) in (select (symbol, max(timestamp)) from trades group by symbol)
group by symbol
