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

# texts
SELECT id, upper(name) AS u, lower(name) AS l, length(name) AS n, substr(name, 2, 3) AS s, trim(name) AS t,
  name || '!' AS e, reverse(name) AS r, strpos(name, 'a') AS p, split_part(name, ',', 2) AS q, lpad(name, 5, '*') AS lp,
  replace(name, 'a', 'bb') AS rp, initcap(name) AS i, starts_with(name, 'a') AS sw, left(name, 2) AS lf FROM bids

# regular expressions
SELECT id, name ~ '^a' AS m, name LIKE '%a%' AS k, name ILIKE 'A%' AS ik, regexp_replace(name, '[aeiou]', '_', 'g') AS r,
  regexp_like(name, 'x-\d') AS x, regexp_match(name, '([a-z])-(\d)') AS g, name SIMILAR TO 'a|b' AS st FROM bids

# mathematics
SELECT id, abs(price) AS a, price % 7 AS m, price / 2 AS h, round(x, 1) AS r, floor(x) AS fl, ceil(x) AS c, sqrt(abs(x)) AS s,
  power(x, 2) AS p, signum(x) AS sg, greatest(price, small) AS g, least(k, small) AS l, ln(abs(x) + 1) AS n, -f AS neg,
  isnan(f) AS nan, f + r AS fr, d * 2 AS d2, d + price AS dp, x > f AS gt, trunc(x) AS t FROM bids

# dates and times
SELECT id, date_trunc('minute', ts) AS m, extract(second FROM ts) AS s, ts + INTERVAL '1 day' AS t, day + INTERVAL '1 month' AS nm,
  date_part('dow', day) AS dow, CAST(ts AS DATE) AS d, to_char(day, '%Y-%m') AS ym, at - INTERVAL '1 hour' AS ah,
  date_bin(INTERVAL '7 seconds', ts) AS b, ts - INTERVAL '3 seconds' > TIMESTAMP '2024-01-01 00:00:30' AS late,
  to_timestamp(id) AS tt, extract(epoch FROM at) AS ep, make_date(2020, 2, 1) AS md FROM bids

# null handling and casts
SELECT id, coalesce(price, 0) AS p, nullif(k, 1) AS n, k IS DISTINCT FROM small AS ds, CAST(price AS TEXT) AS t, CAST(x AS BIGINT) AS xi,
  CAST(d AS DOUBLE) AS dd, TRY_CAST(name AS INT) AS ni, k IN (1, 2, NULL) AS i, price BETWEEN 1 AND 5 AS bt, b IS NOT TRUE AS bn,
  COALESCE(b, false) AND k > 0 AS c, NOT b AS nb FROM bids

# arrays and structs
SELECT id, make_array(k, small) AS a, array_length(make_array(k, 2)) AS n, named_struct('k', k, 'n', name) AS s,
  make_array(name, 'z')[1] AS first, array_to_string(string_to_array(name, ','), ';') AS j FROM bids

# hashes and encodings
SELECT id, md5(name) AS m, encode(CAST(name AS BYTEA), 'hex') AS h, ascii(name) AS a, chr(65 + abs(k)) AS c, to_hex(abs(price)) AS x FROM bids

# filters of all kinds
SELECT id FROM bids WHERE (name LIKE 'a%' OR k IN (1, 2, 3)) AND NOT (price IS NULL AND x > 1) AND f > -1e9

# a filter that lets nothing pass
SELECT id FROM bids WHERE id < 0

# constants only
SELECT 1 AS one, 'x' AS x FROM bids WHERE k = 1

# subquery in FROM, and a common table expression
WITH big AS (SELECT id, price * 2 AS p FROM bids WHERE price > 2) SELECT id, p + 1 AS q FROM (SELECT id, p FROM big WHERE p < 30)

# union of three, one of them a constant column
SELECT id, name, 1 AS w FROM bids UNION ALL SELECT id, name, 2 FROM clicks UNION ALL SELECT id, name, 3 FROM visits

# union with rows that are taken back
SELECT name, price FROM accounts UNION ALL SELECT name, price FROM loose

# weights beyond one
SELECT k, name, price FROM loose WHERE k > 0

# changes at intervals
SELECT id, k FROM bids WHERE k > 0 EMIT EVERY INTERVAL '1 millisecond'

# nothing comes in
SELECT id, x FROM nothing

# rows of its own beside those of a stream
SELECT a, b FROM (VALUES (1, 'x'), (2, NULL)) AS v(a, b) UNION ALL SELECT id, name FROM bids

# no stream at all
SELECT 1 AS one, 'x' AS x

# a condition without columns over the one row of an aggregate
SELECT sum(price) AS s FROM bids HAVING 1 = 2

# an aggregate of which nothing is asked
SELECT 'a' AS a FROM (SELECT count(*) AS n FROM bids)

# a list with values that are chosen by row
SELECT id, k NOT IN (2, CASE WHEN price > 3 THEN k END) AS n, k IN (CASE WHEN false THEN k WHEN price > 1 THEN k END) AS i FROM bids

# what is never null before what may be
SELECT coalesce(CASE WHEN price IS NULL THEN DATE '1970-01-01' ELSE DATE '1970-01-02' END, CAST(ts AS DATE)) AS c FROM bids UNION SELECT CAST(window_start AS DATE) AS c FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '15 seconds')

# unnest
SELECT id, unnest(l) AS e FROM bids

# unnest of what is computed, side by side, over rows that are taken back
SELECT k, unnest(make_array(k, price)) AS a, unnest(l) AS b FROM loose

# unnest of structs in a list
SELECT id, unnest(ls) AS e FROM bids

# aggregates of what is unnested
SELECT e, count(*) AS n FROM (SELECT unnest(l) AS e FROM loose) GROUP BY e

# rows that replace each other as they are read
SELECT id, name, price + 1 AS more FROM profiles WHERE price > 0

# of rows that are replaced, without the key
SELECT k, x FROM profiles

# a series beside rows
SELECT id, g.n FROM bids, generate_series(1, 3) AS g(n) WHERE id < 20

# two series
SELECT a.n, b.n AS m FROM generate_series(1, 5) AS a(n) LEFT JOIN range(0, 9, 2) AS b(n) ON a.n = b.n

# a series of each row
SELECT a.id, g.value FROM accounts a CROSS JOIN LATERAL generate_series(1, a.k) AS g(value)

# the elements of a list beside it
SELECT b.id, u.x FROM bids b, unnest(b.l) AS u(x) WHERE u.x > b.k

# the elements of a list that changes
SELECT l.k, u.x FROM loose l CROSS JOIN LATERAL unnest(l.l) AS u(x)

# the elements of a list, or a row without
SELECT l.k, l.name, u.x FROM loose l LEFT JOIN LATERAL unnest(l.l) AS u(x) ON true

# elements with their places
SELECT b.id, u.x, u.o FROM bids b LEFT JOIN unnest(b.l) WITH ORDINALITY AS u(x, o) ON true

# a subquery beside each row
SELECT b.id, v.y, v.z FROM bids b, LATERAL (SELECT b.k + 1 AS y, b.name AS z) v

# a subquery with a list beside each row
SELECT l.k, v.y FROM loose l JOIN LATERAL (SELECT u.x * 2 AS y FROM unnest(l.l) AS u(x) WHERE u.x > l.k) v ON v.y <> 8

# elements added up
SELECT l.k, count(*) AS n, sum(u.x) AS s FROM loose l, unnest(l.l) AS u(x) GROUP BY l.k

# a list of what another list has
SELECT l.k, u.x, w.y FROM loose l, unnest(l.l) AS u(x), unnest([u.x, u.x + 1]) AS w(y)
