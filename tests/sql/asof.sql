# the last that is not later
SELECT b.id, b.ts, c.ts AS other FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k

# left, written the other way round
SELECT b.id, c.ts AS other, c.k AS its FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (c.ts <= b.ts) ON c.k = b.k

# the last that is earlier
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts > c.ts) ON b.k = c.k

# the first that is not earlier
SELECT b.id, c.ts AS other FROM bids b ASOF INNER JOIN clicks c MATCH_CONDITION (b.ts <= c.ts) ON b.k = c.k

# the first that is later, by two keys
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT OUTER JOIN clicks c MATCH_CONDITION (b.ts < c.ts) ON b.k = c.k AND b.name = c.name

# the nearest
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (nearest(b.ts, c.ts)) ON b.k = c.k

# without a key
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts)

# all columns, of rows of which several may have one time
SELECT * FROM clicks ASOF LEFT JOIN bids MATCH_CONDITION (clicks.ts >= bids.ts) USING (k)

# the first that is later, by a text
SELECT c.name, c.id, v.ts AS other FROM clicks c ASOF JOIN visits v MATCH_CONDITION (c.ts < v.ts) ON c.name = v.name

# a right side that is taken back, by a number
SELECT b.id, a.price FROM bids b ASOF LEFT JOIN accounts a MATCH_CONDITION (b.small >= a.price) ON b.k = a.k

# both sides taken back, with weights
SELECT l.name, l.price, a.price AS other FROM loose l ASOF JOIN accounts a MATCH_CONDITION (l.price > a.price) ON l.k = a.k

# both sides taken back, columns of rows that tie
SELECT k, l.price, l.name, a.id, a.name AS its FROM loose l ASOF LEFT JOIN accounts a MATCH_CONDITION (l.price <= a.price) USING (k)

# a left side that is taken back, by times
SELECT p.id, p.ts, c.ts AS other FROM profiles p ASOF LEFT JOIN clicks c MATCH_CONDITION (p.ts >= c.ts) ON p.k = c.k

# rows that replace each other, the nearest
SELECT b.id, p.ts AS other FROM bids b ASOF LEFT JOIN profiles p MATCH_CONDITION (nearest(b.ts, p.ts)) ON b.k = p.k

# by floats that may be NaN or minus zero
SELECT a.id, l.x FROM accounts a ASOF LEFT JOIN loose l MATCH_CONDITION (a.x >= l.x) ON a.f = l.f

# by a float that is not a number
SELECT a.id, l.f + 0e0 AS f FROM accounts a ASOF LEFT JOIN loose l MATCH_CONDITION (a.f <= l.f) ON a.k = l.k

# by a date and a time
SELECT a.id, b.ts FROM accounts a ASOF LEFT JOIN bids b MATCH_CONDITION (a.day >= b.ts) ON a.k = b.k

# by a decimal and an integer
SELECT b.id, a.price FROM bids b ASOF JOIN accounts a MATCH_CONDITION (b.d >= a.price) ON b.k = a.k

# keys and times that are computed
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts + INTERVAL '3 seconds') ON b.k + 1 = c.k

# a condition on what can be a match
SELECT b.id, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k AND c.id % 3 = 0

# a condition on the left side, on the key and on the match
SELECT b.id, c.ts AS other FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k WHERE b.price > 2 AND b.k < 4 AND c.ts < b.ts

# rows without a match
SELECT b.id, b.k FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k WHERE c.ts IS NULL

# two after each other
SELECT b.id, c.ts AS one, v.ts AS two FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k
  ASOF LEFT JOIN visits v MATCH_CONDITION (b.ts >= v.ts) ON b.name = v.name

# of a stream with itself
SELECT a.id, b.ts AS other FROM bids a ASOF LEFT JOIN bids b MATCH_CONDITION (a.ts > b.ts) ON a.name = b.name

# of what is grouped
SELECT b.id, g.n FROM bids b ASOF JOIN (SELECT k, price, count(*) AS n FROM accounts GROUP BY k, price) g MATCH_CONDITION (b.price >= g.price) ON b.k = g.k

# of windows that have closed
SELECT b.id, w.n FROM bids b ASOF LEFT JOIN (SELECT k, window_end, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '10 seconds') GROUP BY k, window_end) w
  MATCH_CONDITION (b.ts >= w.window_end) ON b.k = w.k

# within a join and a subquery
SELECT a.id, q.other FROM accounts a JOIN (SELECT b.id, c.ts AS other FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k) q ON a.id = q.id

# counted by what is the match
SELECT c.ts, count(*) AS n FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k GROUP BY c.ts

# windows over it, which close
SELECT window_end, count(*) AS n, count(other) AS m FROM TUMBLE((SELECT b.ts, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k), ts, INTERVAL '10 seconds')
  GROUP BY window_end

# windows over it, which close, by a match that may tie
SELECT window_end, its, count(*) AS n FROM TUMBLE((SELECT b.ts, c.name AS its, k FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts > c.ts) USING (k)), ts, INTERVAL '10 seconds')
  GROUP BY window_end, its EMIT ON WINDOW CLOSE

# each row once
SELECT b.id, b.ts, c.ts AS other FROM bids b ASOF LEFT JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k EMIT ON WINDOW CLOSE

# each row that has an earlier one once
SELECT b.id, c.ts AS other FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts > c.ts) ON b.k = c.k EMIT ON WINDOW CLOSE

# rows that take part in the result of another, each once
SELECT q.id, q.other, v.ts AS two FROM (SELECT b.id, b.ts, b.name, c.ts AS other FROM bids b ASOF JOIN clicks c MATCH_CONDITION (b.ts >= c.ts) ON b.k = c.k) q
  ASOF LEFT JOIN clicks v MATCH_CONDITION (q.ts >= v.ts) ON q.name = v.name EMIT ON WINDOW CLOSE

# nothing to be found
SELECT b.id, n.id AS other FROM bids b ASOF LEFT JOIN nothing n MATCH_CONDITION (b.ts >= n.ts) ON b.k = n.k

# found by nothing
SELECT n.id, b.id AS other FROM nothing n ASOF LEFT JOIN bids b MATCH_CONDITION (n.ts >= b.ts) ON b.k = n.k

# the version that was valid at the time of each row
SELECT b.id, b.ts, c.ts AS since FROM bids b JOIN clicks FOR SYSTEM_TIME AS OF b.ts AS c ON b.k = c.k

# the same, where its name stands for something else within a part of the query
SELECT b.id, b.ts, c.ts AS since FROM (WITH clicks AS (SELECT id, ts, k FROM bids) SELECT * FROM clicks) b
JOIN clicks FOR SYSTEM_TIME AS OF b.ts AS c ON b.k = c.k

# left, each row once
SELECT b.id, c.ts AS since FROM bids b LEFT JOIN clicks FOR SYSTEM_TIME AS OF b.ts AS c ON b.k = c.k EMIT ON WINDOW CLOSE

# versions at the time of what is taken back, without an alias
SELECT p.id, p.ts, visits.ts AS since FROM profiles p LEFT JOIN visits FOR SYSTEM_TIME AS OF p.ts ON p.name = visits.name
