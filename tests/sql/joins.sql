# inner
SELECT b.id, c.id AS other, b.price, c.name FROM bids b JOIN clicks c ON b.id = c.id

# left, with a condition on the other side
SELECT b.id, c.id AS other, b.name, c.name AS its FROM bids b LEFT JOIN clicks c ON b.id = c.id AND c.k > 2

# right
SELECT b.id, c.id AS other, c.k FROM bids b RIGHT JOIN clicks c ON b.id = c.id AND b.price > 3

# full
SELECT b.id, b.x, v.id AS other, v.amount FROM bids b FULL JOIN visits v ON b.id = v.id

# full, over rows that are taken back
SELECT a.id, a.price, l.name, l.x FROM accounts a FULL JOIN loose l ON a.k = l.k AND a.name = l.name

# by a text
SELECT b.id, v.id AS other FROM bids b JOIN visits v ON b.name = v.name AND b.id < v.id

# by a float
SELECT a.id, l.price FROM accounts a JOIN loose l ON a.f = l.f

# left by a float that may be NaN or minus zero
SELECT a.id, a.f, l.f AS other FROM accounts a LEFT JOIN loose l ON a.f = l.f

# by numbers of several types
SELECT b.id, a.price FROM bids b JOIN accounts a ON b.small = a.price

# by a decimal and an integer
SELECT b.id, a.id AS other FROM bids b LEFT JOIN accounts a ON b.d = a.price

# by what is computed
SELECT b.id, c.id AS other FROM bids b JOIN clicks c ON b.id + 1 = c.id * 2

# left by what is computed on one side
SELECT a.id, l.price FROM accounts a LEFT JOIN loose l ON a.k + 1 = l.k

# by a date, with USING
SELECT day, a.id, b.id AS other FROM accounts a JOIN bids b USING (day)

# natural
SELECT id, k, ts FROM bids NATURAL JOIN clicks

# by a list
SELECT b.id, l.price FROM bids b JOIN loose l ON b.l = l.l

# by a struct
SELECT a.id, b.id AS other FROM accounts a LEFT JOIN bids b ON a.s = b.s AND a.id <> b.id

# left with a condition over both
SELECT a.id, a.price, l.price AS other FROM accounts a LEFT JOIN loose l ON a.k = l.k AND a.price < l.price

# full with a condition over both
SELECT a.id, a.price, l.price AS other FROM accounts a FULL JOIN loose l ON a.k = l.k AND a.price < l.price

# of a stream with itself
SELECT a.id, b.id AS other FROM accounts a JOIN accounts b ON a.k = b.k AND a.id < b.id

# left of a stream with itself
SELECT a.id, b.id AS other, b.name FROM bids a LEFT JOIN bids b ON a.id = b.id

# each with each
SELECT a.id, c.id AS other FROM accounts a CROSS JOIN clicks c WHERE a.id + c.id = 7

# with nothing
SELECT b.id, n.id AS other FROM bids b LEFT JOIN nothing n ON b.id = n.id

# without a key
SELECT a.id, c.id AS other FROM accounts a LEFT JOIN clicks c ON a.id > c.id + 50

# three
SELECT b.id, c.k, a.price FROM bids b JOIN clicks c ON b.id = c.id JOIN accounts a ON a.id = c.id

# three, left, by other keys
SELECT a.id, b.price, v.amount FROM accounts a LEFT JOIN bids b ON a.id = b.id LEFT JOIN visits v ON b.name = v.name AND v.id < 9

# aggregates of a join
SELECT a.k, count(*) AS n, sum(l.price) AS s, min(l.x) AS m, max(a.name) AS h FROM accounts a JOIN loose l ON a.k = l.k GROUP BY a.k

# aggregates of a left join
SELECT a.k, count(*) AS n, count(c.id) AS c, min(c.id) AS m FROM accounts a LEFT JOIN clicks c ON a.id = c.id GROUP BY a.k

# a join of aggregates
SELECT a.k, a.n, b.s FROM (SELECT k, count(*) AS n FROM bids GROUP BY k) a JOIN (SELECT k, sum(price) AS s FROM accounts GROUP BY k) b ON a.k = b.k

# a full join of aggregates
SELECT a.k, a.n, b.k AS other, b.n AS m FROM (SELECT k, count(*) AS n FROM bids GROUP BY k) a
  FULL JOIN (SELECT k, count(*) AS n FROM loose GROUP BY k) b ON a.k = b.k

# a join of an aggregate of a join
SELECT t.k, t.n, c.id FROM (SELECT a.k, count(*) AS n FROM accounts a JOIN loose l ON a.k = l.k GROUP BY a.k) t JOIN clicks c ON c.k = t.n

# balances: all add up to nothing
SELECT count(*) AS n, sum(c.s - d.s) AS total FROM (SELECT k, sum(price) AS s FROM bids GROUP BY k) c
  JOIN (SELECT k, sum(price) AS s FROM bids GROUP BY k) d ON c.k = d.k

# windows that meet
SELECT a.window_end, a.k, a.n, b.n AS m FROM
  (SELECT window_end, k, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_end, k) a
  JOIN (SELECT window_end, k, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '10 seconds') GROUP BY window_end, k) b
  ON a.window_end = b.window_end AND a.k = b.k

# a window of each with all that is known
SELECT w.window_end, w.k, a.id FROM (SELECT window_end, k, max(price) AS p FROM TUMBLE(bids, ts, INTERVAL '1 minute') GROUP BY window_end, k) w
  JOIN accounts a ON a.price = w.p

# a constant on one side
SELECT b.id, t.x FROM bids b JOIN (VALUES (1, 'one'), (2, 'two'), (NULL, 'none')) AS t (k, x) ON b.k = t.k

# a union of joins
SELECT b.id FROM bids b JOIN clicks c ON b.id = c.id UNION ALL SELECT a.id FROM accounts a LEFT JOIN loose l ON a.k = l.k WHERE l.k IS NULL

# left in windows that meet
SELECT a.window_end, a.k, a.n, b.n AS m FROM
  (SELECT window_end, k, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_end, k) a
  LEFT JOIN (SELECT window_end, k, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '10 seconds') GROUP BY window_end, k) b
  ON a.window_end = b.window_end AND a.k = b.k

# full in windows that meet
SELECT a.window_end, a.k, b.window_end AS other, b.k AS m FROM
  (SELECT window_end, k FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_end, k) a
  FULL JOIN (SELECT window_end, k FROM TUMBLE(clicks, ts, INTERVAL '10 seconds') GROUP BY window_end, k) b
  ON a.window_end = b.window_end AND a.k = b.k

# the largest of each window
SELECT c.k, c.n, c.window_end FROM
  (SELECT k, window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY k, window_end) c
  JOIN (SELECT window_end, max(n) AS most FROM
    (SELECT k, window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY k, window_end)
    GROUP BY window_end) m
  ON c.window_end = m.window_end AND c.n = m.most

# rows of a window with its largest
SELECT b.id, b.price, m.window_end FROM bids b
  JOIN (SELECT window_start, window_end, max(price) AS top FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end) m
  ON b.price = m.top AND b.ts >= m.window_start AND b.ts < m.window_end

# windows of rows that meet, then grouped by their end
SELECT a.window_end, count(*) AS n, sum(b.id) AS s FROM TUMBLE(bids, ts, INTERVAL '10 seconds') a
  JOIN TUMBLE(clicks, ts, INTERVAL '10 seconds') b ON a.window_end = b.window_end AND a.k = b.k GROUP BY a.window_end

# left, windows of rows that meet
SELECT a.id, a.window_end, b.id AS other FROM TUMBLE(bids, ts, INTERVAL '20 seconds') a
  LEFT JOIN TUMBLE(clicks, ts, INTERVAL '20 seconds') b ON a.window_end = b.window_end AND a.id = b.id

# times near each other
SELECT b.id, c.id AS other FROM bids b JOIN clicks c ON b.k = c.k AND b.ts BETWEEN c.ts - INTERVAL '5 seconds' AND c.ts + INTERVAL '3 seconds'

# left, times near each other
SELECT b.id, c.id AS other FROM bids b LEFT JOIN clicks c ON b.k = c.k AND c.ts >= b.ts AND c.ts < b.ts + INTERVAL '10 seconds'

# not exists, times near each other
SELECT b.id FROM bids b WHERE NOT EXISTS (SELECT 1 FROM clicks c WHERE c.k = b.k AND c.ts > b.ts AND c.ts < b.ts + INTERVAL '1 minute')

# times near each other, without another key
SELECT count(*) AS n FROM bids b JOIN clicks c ON b.ts + INTERVAL '1 second' > c.ts AND b.ts < c.ts

# rows that replace each other as they are read, with others
SELECT p.id, p.name, c.id AS other, c.k FROM profiles p LEFT JOIN clicks c ON p.id = c.id

# two such streams
SELECT p.id, a.price, p.price AS other FROM profiles p FULL JOIN accounts a ON p.id = a.id AND p.price > a.price

# a field of a struct, and a column that is read twice
SELECT CAST(c9['a'] AS BIGINT) AS c4 FROM (SELECT ts AS c6 FROM visits WHERE id < 9) v JOIN (SELECT k AS c8, s AS c9, k AS c10 FROM accounts) a ON c10 <> 0

# left by an interval on both sides of each
SELECT b.id, c.id AS other FROM bids b LEFT JOIN clicks c ON b.k = c.k AND c.ts BETWEEN b.ts - INTERVAL '4 seconds' AND b.ts + INTERVAL '6 seconds'

# full by an interval
SELECT b.id, c.id AS other FROM bids b FULL JOIN clicks c ON b.k = c.k AND c.ts BETWEEN b.ts - INTERVAL '1 second' AND b.ts + INTERVAL '2 seconds'

# what is near by no other
SELECT b.id FROM bids b WHERE EXISTS (SELECT 1 FROM clicks c WHERE c.k = b.k AND c.ts BETWEEN b.ts - INTERVAL '1 second' AND b.ts + INTERVAL '1 second') IS FALSE

# lookup, of what is complete when rows come
SELECT b.id, b.k, c.id AS other, c.name FROM bids b JOIN clicks FOR SYSTEM_TIME AS OF now() AS c ON b.id = c.id

# left lookup, of rows that are taken back, with a condition
SELECT b.id, l.name, l.price FROM bids b LEFT JOIN loose FOR SYSTEM_TIME AS OF PROCTIME() l ON b.k = l.k AND b.price < l.price

# lookup by a key that is computed, of rows that replace each other
SELECT b.id, p.name FROM bids b LEFT JOIN profiles FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP AS p ON b.id % 20 = p.id WHERE b.price > 1

# lookup in what a query makes
WITH sums AS (SELECT k, sum(price) AS total, count(*) AS n FROM accounts GROUP BY k)
SELECT b.id, s.total, s.n FROM bids b LEFT JOIN sums FOR SYSTEM_TIME AS OF now() AS s ON b.k = s.k

# lookup in a lookup
WITH s AS (SELECT c.id, a.name FROM clicks c LEFT JOIN accounts FOR SYSTEM_TIME AS OF now() AS a ON c.k = a.k)
SELECT b.id, s.name FROM bids b JOIN s FOR SYSTEM_TIME AS OF now() ON b.id = s.id

# lookup before windows
SELECT name, window_end, count(*) AS n FROM TUMBLE((SELECT b.ts, a.name FROM bids b LEFT JOIN accounts FOR SYSTEM_TIME AS OF now() AS a ON b.k = a.k), ts, INTERVAL '10 seconds') GROUP BY name, window_end

# lookup of windows that have closed
SELECT w.k, w.n, a.name FROM (SELECT k, window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_end) w LEFT JOIN accounts FOR SYSTEM_TIME AS OF now() AS a ON w.k = a.k EMIT ON WINDOW CLOSE

# lookup by texts and nulls, two after each other
SELECT b.id, v.amount, a.id AS other FROM bids b LEFT JOIN visits FOR SYSTEM_TIME AS OF now() AS v ON b.name = v.name LEFT JOIN accounts FOR SYSTEM_TIME AS OF now() AS a ON a.name = v.name AND a.k = b.k
