-- Orders as they come, 20000 a second, and what each customer has ordered in all.
CREATE STREAM orders WITH (connector = 'nexmark', table = 'bid', events = 300000, pace = 20000);
CREATE STREAM totals AS
SELECT bidder AS customer, count(*) AS orders, sum(price) AS amount FROM orders GROUP BY bidder;
-- The same orders all at once, to compare with.
CREATE STREAM all_orders WITH (connector = 'nexmark', table = 'bid', events = 300000);
