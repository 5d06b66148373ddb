# by key
SELECT k, count(*) AS n, sum(price) AS s, avg(x) AS a FROM bids GROUP BY k

# all in one group
SELECT count(*) AS n, count(name) AS c, sum(price) AS s, min(price) AS lo, max(price) AS hi FROM bids

# over nothing
SELECT count(*) AS n, sum(x) AS s FROM nothing

# over rows that are taken back
SELECT k, count(*) AS n, sum(price) AS s, min(price) AS lo, max(price) AS hi, avg(x) AS a FROM accounts GROUP BY k

# aggregate of an aggregate
SELECT n, count(*) AS groups FROM (SELECT name, count(*) AS n FROM bids GROUP BY name) GROUP BY n

# integers
SELECT k, sum(small) AS ss, min(small) AS ls, max(small) AS hs, avg(small) AS av, avg(price) AS ap, sum(k) AS sk, min(id) AS li FROM bids GROUP BY k

# decimals
SELECT k, sum(d) AS s, avg(d) AS a, min(d) AS lo, max(d) AS hi, count(d) AS c FROM bids GROUP BY k

# floats
SELECT k, sum(x) AS s, avg(x) AS a, sum(r) AS sr, avg(r) AS ar, min(x) AS lo, max(r) AS hi FROM bids GROUP BY k

# floats with NaN and infinities
SELECT k, sum(f) AS s, avg(f) AS a, count(f) AS c FROM bids GROUP BY k

# texts, dates, times, booleans
SELECT k, min(name) AS ln, max(name) AS hn, min(day) AS ld, max(day) AS hd, min(ts) AS lt, max(at) AS ha, min(b) AS lb, max(b) AS hb FROM bids GROUP BY k

# distinct counts (of f + 0: count(DISTINCT) in batch tells -0.0 from 0.0, GROUP BY does not)
SELECT k, count(DISTINCT name) AS n, count(DISTINCT price) AS p, count(DISTINCT day) AS d, count(DISTINCT f + 0) AS f, count(DISTINCT b) AS b FROM bids GROUP BY k

# distinct sums
SELECT k, sum(DISTINCT price) AS p, sum(DISTINCT small) AS s, avg(DISTINCT x) AS a FROM bids GROUP BY k

# filters on calls
SELECT k, count(*) FILTER (WHERE price > 3) AS n, sum(price) FILTER (WHERE b) AS s, min(x) FILTER (WHERE x > 0) AS m,
  count(DISTINCT name) FILTER (WHERE k > 0) AS d FROM bids GROUP BY k

# variance and deviation
SELECT k, var_samp(x) AS vs, var_pop(x) AS vp, stddev(x) AS ss, stddev_pop(x) AS sp FROM bids GROUP BY k

# correlation and regression
SELECT k, corr(x, small) AS c, covar_samp(x, small) AS cs, covar_pop(x, small) AS cp, regr_slope(x, small) AS rs, regr_count(x, small) AS rc FROM bids GROUP BY k

# booleans and bits
SELECT name, bool_and(b) AS ba, bool_or(b) AS bo, bit_and(price) AS x, bit_or(price) AS o, bit_xor(price) AS e FROM bids GROUP BY name

# median and percentile
SELECT name, median(price) AS m, percentile_cont(0.25) WITHIN GROUP (ORDER BY x) AS q FROM bids GROUP BY name

# arrays in order
SELECT k, array_agg(price ORDER BY id) AS a, string_agg(name, ',' ORDER BY id) AS s FROM bids GROUP BY k

# first, last and nth in order
SELECT k, first_value(name ORDER BY id) AS f, last_value(name ORDER BY id) AS l, nth_value(price, 2 ORDER BY id) AS n, first_value(x ORDER BY ts DESC NULLS LAST, id) AS d FROM bids GROUP BY k

# all of it over rows that are taken back
SELECT k, count(*) AS n, count(name) AS c, sum(price) AS s, sum(d) AS sd, avg(d) AS ad, sum(x) AS sx, avg(f) AS af, sum(f) AS sf,
  min(name) AS ln, max(day) AS hd, count(DISTINCT name) AS dn, sum(DISTINCT price) AS dp, var_samp(x) AS v, bool_or(price > 3) AS bo,
  count(*) FILTER (WHERE price > 0) AS pos, median(price) AS m, string_agg(name, ',' ORDER BY id) AS sa FROM accounts GROUP BY k

# all of it over weights
SELECT k, count(*) AS n, sum(price) AS s, avg(x) AS a, sum(f) AS sf, min(price) AS lo, max(x) AS hi, count(DISTINCT name) AS dn, bool_and(b) AS ba FROM loose GROUP BY k

# one row over rows that are taken back
SELECT count(*) AS n, sum(price) AS s, max(price) AS m, avg(x) AS a FROM loose

# having
SELECT k, count(*) AS n FROM bids GROUP BY k HAVING count(*) > 10 AND min(price) < 0

# by an expression
SELECT k % 2 AS odd, upper(name) AS u, count(*) AS n FROM bids GROUP BY 1, 2

# keys that are null, NaN or a zero
SELECT f, count(*) AS n FROM bids GROUP BY f

# keys of other types
SELECT b, day, d, count(*) AS n FROM bids GROUP BY b, day, d

# many keys
SELECT id, count(*) AS n, max(x) AS m FROM bids GROUP BY id

# keys that are arrays and structs
SELECT make_array(k, small % 2) AS a, named_struct('b', b) AS s, count(*) AS n FROM bids GROUP BY 1, 2

# distinct rows
SELECT DISTINCT k, name FROM bids

# distinct rows of what is taken back
SELECT DISTINCT k, b FROM loose

# union without duplicates
SELECT k, name FROM bids UNION SELECT k, name FROM clicks

# an aggregate of an aggregate, with extremes
SELECT min(n) AS lo, max(n) AS hi, sum(n) AS s, count(*) AS g FROM (SELECT name, count(*) AS n FROM bids GROUP BY name)

# three aggregates deep
SELECT g, count(*) AS c, max(n) AS m FROM (
  SELECT n, count(*) AS g FROM (SELECT k, name, count(*) AS n FROM bids GROUP BY k, name) GROUP BY n) GROUP BY g

# the largest of the sums by key
SELECT k, max(s) AS m, min(s) AS l, avg(s) AS a FROM (SELECT k, name, sum(price) AS s FROM bids GROUP BY k, name) GROUP BY k

# a filter between aggregates
SELECT n % 3 AS r, count(*) AS c FROM (SELECT name, k, count(*) AS n FROM bids GROUP BY name, k HAVING count(*) > 1) GROUP BY 1

# distinct of an aggregate
SELECT DISTINCT n FROM (SELECT k, name, count(*) AS n FROM bids GROUP BY k, name)

# a union of aggregates
SELECT 'bids' AS t, k, count(*) AS n FROM bids GROUP BY k UNION ALL SELECT 'clicks', k, count(*) FROM clicks GROUP BY k

# an aggregate of a union of aggregates
SELECT k, sum(n) AS n FROM (SELECT k, count(*) AS n FROM bids GROUP BY k UNION ALL SELECT k, count(*) AS n FROM accounts GROUP BY k) GROUP BY k

# aggregates at intervals
SELECT k, count(*) AS n, sum(price) AS s FROM bids GROUP BY k EMIT EVERY INTERVAL '2 milliseconds'

# expressions over aggregates
SELECT k, sum(price) * 2 + count(*) AS e, CASE WHEN count(*) > 5 THEN 'many' ELSE 'few' END AS c, max(x) - min(x) AS span FROM bids GROUP BY k

# the same call twice
SELECT k, sum(price) AS a, sum(price) AS b, sum(price) / count(price) AS c, count(*) AS n, avg(price) AS d FROM bids GROUP BY k

# nothing in one group with several calls
SELECT count(*) AS n, max(x) AS m, avg(x) AS a, count(DISTINCT k) AS d, min(ts) AS t FROM nothing

# nothing by key
SELECT k, count(*) AS n FROM nothing GROUP BY k

# one group that a filter empties
SELECT count(*) AS n, sum(price) AS s, array_agg(name ORDER BY id) AS a FROM bids WHERE id < 0

# the time of day rises and falls
SELECT CAST(ts AS TIME) AS t, count(*) AS n FROM bids GROUP BY CAST(ts AS TIME)

# a month later is no steady function of time
SELECT ts + INTERVAL '1 month' AS m, count(*) AS n FROM bids GROUP BY ts + INTERVAL '1 month'

# rows that are remembered whole
SELECT k, last_value(s ORDER BY id DESC) AS l, first_value(s ORDER BY id) AS f, count(*) AS n FROM bids GROUP BY k

# a condition that nothing meets, told apart
SELECT c7 AS c1 FROM (SELECT DISTINCT CASE WHEN k NOT IN (19, NULL) THEN NULL ELSE true END AS c6, id AS c7 FROM nothing)

# what is never null in a case, by two rules
SELECT CAST(CASE WHEN price = nullif(k, id) THEN nullif(k, id) ELSE 11 END AS BIGINT) AS c FROM bids UNION SELECT CAST(9 AS BIGINT) AS c FROM nothing

# groups of groups of the same keys, where their rows lie
SELECT k, name, max(s) AS m, count(*) AS n FROM (SELECT name, k, s FROM (SELECT k, name, sum(price) AS s FROM bids GROUP BY k, name) WHERE s > 1) GROUP BY k, name

# groups of all keys beside one group of all rows
SELECT k, count(*) AS n FROM bids GROUP BY k UNION ALL SELECT -1, count(*) FROM accounts

# groups of more keys than those by which their rows lie
SELECT k, n, max(s) AS m, count(*) AS g FROM (SELECT k, count(*) AS n, sum(price) AS s FROM bids GROUP BY k) GROUP BY k, n

# groups of the same keys in another order and a third
SELECT DISTINCT n, name, k FROM (SELECT k, name, count(*) AS n FROM accounts GROUP BY k, name)

# by rollup
SELECT k, name, count(*) AS n, sum(price) AS s, grouping(k) AS gk, grouping(name) AS gn FROM bids GROUP BY ROLLUP (k, name)

# by cube, over rows that are taken back
SELECT k, name, min(price) AS lo, max(price) AS hi FROM accounts GROUP BY CUBE (k, name)

# by grouping sets, one of them for all
SELECT k, day, count(*) AS n FROM bids GROUP BY GROUPING SETS ((k), (day), ())

# by grouping sets that are one
SELECT k, count(*) AS n FROM loose GROUP BY GROUPING SETS ((k), (k))

# by a group and a rollup, in windows
SELECT window_end, k, name, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '1 minute') GROUP BY window_end, ROLLUP (k, name)

# by rollup over nothing
SELECT k, count(*) AS n FROM nothing GROUP BY ROLLUP (k)

# groups between which rows move that are replaced as they are read
SELECT k, count(*) AS n, sum(price) AS s, min(price) AS least, max(name) AS most, avg(d) AS a FROM profiles GROUP BY k

# one group of rows that are replaced
SELECT count(*) AS n, sum(x) AS s, count(DISTINCT k) AS ks FROM profiles

# groups of the key itself
SELECT id, count(*) AS n, max(price) AS p FROM profiles GROUP BY id HAVING max(price) > 0

# rows that are replaced beside others
SELECT k, count(*) AS n FROM (SELECT k FROM profiles UNION ALL SELECT k FROM accounts UNION ALL SELECT k FROM clicks) AS u GROUP BY k
