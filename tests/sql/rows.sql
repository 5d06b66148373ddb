# all columns
SELECT * FROM bids

# filter and projection
SELECT id, k, price * 2 AS twice FROM bids WHERE price > 3 AND name IS NOT NULL

# case
SELECT id, CASE WHEN k < 0 THEN 'low' WHEN k > 2 THEN 'high' ELSE name END AS c FROM bids

# union of two streams
SELECT id, name FROM bids UNION ALL SELECT id, name FROM clicks

# union of a stream with itself
SELECT id, k FROM bids WHERE k > 1 UNION ALL SELECT id, k + 1 FROM bids WHERE k < 2

# rows that are taken back pass through
SELECT id, name, price FROM accounts WHERE price > 0
