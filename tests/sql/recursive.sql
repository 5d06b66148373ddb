# numbers
WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n FROM t

# what can be reached
WITH RECURSIVE reach(id) AS (SELECT id FROM accounts WHERE id < 3 UNION SELECT a.id FROM accounts a JOIN reach r ON a.k = r.id) SELECT id FROM reach

# steps from rows that are taken back
WITH RECURSIVE steps(k, n) AS (SELECT k, 1 FROM loose WHERE k IS NOT NULL UNION ALL SELECT k, n + 1 FROM steps WHERE n < k) SELECT k, n FROM steps

# a fold of groups
WITH RECURSIVE t(k, n, s) AS (SELECT k, count(*), sum(price) FROM accounts GROUP BY k UNION ALL SELECT k, n - 1, s FROM t WHERE n > 1)
SELECT k, count(*) AS c, max(s) AS m FROM t GROUP BY k

# in a join
WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < 6) SELECT t.n, b.id FROM t LEFT JOIN bids b ON b.id = t.n

# one in the other
WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a WHERE n < 4),
  b(n, m) AS (SELECT n, n FROM a UNION ALL SELECT n, m * 2 FROM b WHERE m < 20) SELECT n, m FROM b

# with other streams in each step
WITH RECURSIVE chain(id, price, depth) AS (SELECT id, price, 0 FROM bids WHERE id = 0
  UNION ALL SELECT b.id, a.price, c.depth + 1 FROM chain c JOIN bids b ON b.id = c.id + 1 LEFT JOIN accounts a ON a.id = b.id WHERE c.depth < 10)
SELECT id, price, depth FROM chain

# beside rows of which no column is read
WITH RECURSIVE t(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t CROSS JOIN (SELECT id FROM accounts WHERE id IN (1, 4)) a WHERE n < 4) SELECT n, count(*) AS c FROM t GROUP BY n
