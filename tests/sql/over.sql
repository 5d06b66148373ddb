# numbers of rows
SELECT id, k, row_number() OVER (PARTITION BY k ORDER BY ts, id) AS n FROM bids

# ranks, over rows that are taken back
SELECT id, k, rank() OVER (PARTITION BY k ORDER BY price DESC) AS r, dense_rank() OVER (PARTITION BY k ORDER BY price DESC) AS d FROM accounts

# of all rows
SELECT id, rank() OVER (ORDER BY price) AS r, percent_rank() OVER (ORDER BY price) AS p, cume_dist() OVER (ORDER BY price) AS c FROM accounts

# without an order
SELECT id, k, count(*) OVER (PARTITION BY k) AS n, sum(price) OVER (PARTITION BY k) AS s, max(name) OVER () AS m FROM accounts

# what has come so far
SELECT id, k, sum(price) OVER (PARTITION BY k ORDER BY ts, id) AS s, count(*) OVER (PARTITION BY k ORDER BY ts) AS n FROM bids

# rows around each
SELECT id, name, sum(price) OVER (PARTITION BY name ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s,
  min(price) OVER (PARTITION BY name ORDER BY id ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS m FROM accounts

# values around each
SELECT id, k, count(*) OVER (PARTITION BY k ORDER BY price RANGE BETWEEN 2 PRECEDING AND 2 FOLLOWING) AS n FROM accounts

# times around each
SELECT id, k, count(*) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW) AS n FROM bids

# groups around each
SELECT id, k, count(*) OVER (PARTITION BY k ORDER BY price GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS n FROM accounts

# the rows before and behind
SELECT id, k, lag(price) OVER (PARTITION BY k ORDER BY id) AS before, lead(name, 2, 'none') OVER (PARTITION BY k ORDER BY id) AS behind,
  price - lag(price) OVER (PARTITION BY k ORDER BY id) AS rise FROM accounts

# the first, the last, another
SELECT id, k, first_value(price) OVER w AS f, last_value(name) OVER w AS l, nth_value(id, 2) OVER w AS n
FROM accounts WINDOW w AS (PARTITION BY k ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)

# in tiles
SELECT id, k, ntile(3) OVER (PARTITION BY k ORDER BY id) AS t FROM accounts

# of what is computed
SELECT id, sum(price * 2) OVER (PARTITION BY k + 1, upper(name) ORDER BY id % 5, id) AS s FROM accounts

# by a float that may be NaN or minus zero
SELECT id, f, count(*) OVER (PARTITION BY f) AS n, rank() OVER (ORDER BY f) AS r FROM accounts

# floats whose sum does not depend on the order
SELECT id, k, max(x) OVER (PARTITION BY k ORDER BY id) AS m, min(x) OVER (PARTITION BY k ORDER BY id DESC) AS n FROM accounts

# nulls first, nulls last
SELECT id, rank() OVER (ORDER BY price NULLS FIRST) AS a, rank() OVER (ORDER BY price DESC NULLS LAST) AS b FROM accounts

# several partitions and orders
SELECT id, row_number() OVER (PARTITION BY k ORDER BY id) AS a, row_number() OVER (PARTITION BY name ORDER BY id) AS b,
  row_number() OVER (PARTITION BY k ORDER BY id DESC) AS c FROM accounts

# over groups
SELECT k, name, count(*) AS n, rank() OVER (PARTITION BY k ORDER BY count(*) DESC) AS r FROM accounts GROUP BY k, name

# groups over it
SELECT r, count(*) AS n FROM (SELECT rank() OVER (PARTITION BY k ORDER BY price) AS r FROM accounts) GROUP BY r

# over a join
SELECT a.id, b.id AS other, row_number() OVER (PARTITION BY a.id ORDER BY b.id) AS n FROM accounts a JOIN bids b ON a.k = b.k

# rows that are there several times
SELECT k, name, price, count(*) OVER (PARTITION BY k) AS n, rank() OVER (PARTITION BY k ORDER BY price) AS r FROM loose

# of no rows
SELECT id, row_number() OVER (ORDER BY id) AS n FROM nothing

# the first of each
SELECT id, k, price FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY price DESC NULLS LAST, id) AS n FROM bids) WHERE n = 1

# the first of each, over rows that are taken back
SELECT id, k, price, n FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY price DESC NULLS LAST, id) AS n FROM accounts) WHERE n <= 2

# ranks up to some
SELECT id, k, price, r FROM (SELECT *, rank() OVER (PARTITION BY k ORDER BY price) AS r FROM bids) WHERE r < 3 AND id % 2 = 0

# dense ranks up to some, over rows that are taken back
SELECT id, k, price, r FROM (SELECT *, dense_rank() OVER (PARTITION BY k ORDER BY price) AS r FROM accounts) WHERE 2 >= r

# numbers between some
SELECT id, n FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM accounts) WHERE n BETWEEN 3 AND 6

# qualify
SELECT id, k FROM bids QUALIFY row_number() OVER (PARTITION BY k ORDER BY id DESC) <= 2

# qualify by what is not given
SELECT k, sum(price) AS s FROM bids GROUP BY k QUALIFY rank() OVER (ORDER BY count(*) DESC, k) <= 2

# a few rows
SELECT id, name FROM bids ORDER BY id LIMIT 5

# a few rows behind others
SELECT id, name, price FROM accounts ORDER BY price DESC NULLS LAST, id LIMIT 4 OFFSET 3

# all but a few
SELECT id FROM accounts ORDER BY id OFFSET 3

# by what is not given
SELECT name FROM accounts ORDER BY price + id, id LIMIT 3

# a few groups
SELECT k, count(*) AS n FROM bids GROUP BY k ORDER BY n DESC, k LIMIT 2

# no rows
SELECT id FROM bids ORDER BY id LIMIT 0

# a few of a union
SELECT id FROM bids UNION ALL SELECT id FROM accounts ORDER BY id DESC LIMIT 4

# a few, then more
SELECT count(*) AS n, sum(id) AS s FROM (SELECT id FROM accounts ORDER BY id DESC LIMIT 5)

# a few in a subquery
SELECT id, name FROM bids WHERE k IN (SELECT k FROM accounts ORDER BY price DESC NULLS LAST, id LIMIT 3)

# of a few those that come first
SELECT id FROM (SELECT id, price FROM accounts ORDER BY price NULLS FIRST, id LIMIT 6) ORDER BY id LIMIT 3

# as many as there are
SELECT k, count(*) AS n FROM (SELECT k FROM loose LIMIT 100000) GROUP BY k

# the best of each window
SELECT window_end, k, n FROM (
  SELECT window_end, k, count(*) AS n, row_number() OVER (PARTITION BY window_end ORDER BY count(*) DESC, k) AS r
  FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k) WHERE r <= 2

# the best of each window, when it closes
SELECT window_start, window_end, k, n, r FROM (
  SELECT window_start, window_end, k, n, rank() OVER (PARTITION BY window_start, window_end ORDER BY n DESC) AS r
  FROM (SELECT window_start, window_end, k, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY window_start, window_end, k))
WHERE r = 1 EMIT ON WINDOW CLOSE

# numbers in each window
SELECT id, window_end, row_number() OVER (PARTITION BY window_end ORDER BY id) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds')

# groups of the best of each window
SELECT window_end, sum(n) AS s FROM (
  SELECT window_end, k, count(*) AS n, rank() OVER (PARTITION BY window_end ORDER BY count(*) DESC, k) AS r
  FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k) WHERE r <= 3 GROUP BY window_end

# by the event time
SELECT ts, id, count(*) OVER (PARTITION BY ts) AS n FROM bids

# of rows of which no column is read
SELECT count(*) OVER () AS n, row_number() OVER () AS r FROM loose

# a few rows of which no column is read
SELECT count(*) AS n FROM (SELECT * FROM accounts LIMIT 3)

# all but a few of them, of rows that only come
SELECT count(*) AS n FROM (SELECT * FROM bids OFFSET 4)

# the first few and those that tie
SELECT id, price FROM accounts ORDER BY price FETCH FIRST 3 ROWS WITH TIES

# ties by what is not given, over rows that only come
SELECT id FROM bids ORDER BY small DESC, k FETCH FIRST 5 ROWS WITH TIES

# groups that tie
SELECT k, count(*) AS n FROM accounts GROUP BY k ORDER BY count(*) DESC FETCH NEXT 2 ROWS WITH TIES

# how many tie for the first place
SELECT count(*) AS n FROM (SELECT id FROM accounts ORDER BY price FETCH FIRST ROW WITH TIES)

# fetched behind others
SELECT id FROM accounts ORDER BY price, id OFFSET 2 ROWS FETCH FIRST 3 ROWS ONLY
