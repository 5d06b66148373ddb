-- What Debezium says of a table, one envelope a line. The key finds the row that an update or a delete is about.
CREATE STREAM orders (
  id BIGINT PRIMARY KEY, customer TEXT, amount DECIMAL(10, 2), placed TIMESTAMP,
  changed TIMESTAMP METADATA FROM 'source.ts_ms'
) WITH (connector = 'file', path = 'orders.jsonl', format = 'debezium_json');

-- Kept up to date: an order that changes hands moves from one customer to the other.
CREATE STREAM spent AS
SELECT customer, count(*) AS orders, sum(amount) AS total, max(changed) AS last FROM orders GROUP BY customer;

-- The same as a changelog in a file, and that file as a stream again.
CREATE STREAM told WITH (connector = 'file', path = 'FOLDER/told.jsonl') AS SELECT * FROM spent;
FLUSH;
CREATE STREAM heard (customer TEXT, orders BIGINT, total DECIMAL(20, 2), last TIMESTAMP)
WITH (connector = 'file', path = 'FOLDER/told.jsonl', changes = true);

SELECT * FROM spent ORDER BY customer;
SELECT * FROM heard ORDER BY customer;
SELECT stream, line, reason FROM millstream.dead_letters;
