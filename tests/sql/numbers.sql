# literals of all kinds
SELECT id, 1.5 AS a, 1e3 AS b, -0.05 AS c, 123456789012345678901 AS d, price + 0.5 AS e, 2. AS f FROM bids

# decimals beside floats
SELECT id, x * 1.1 AS a, r + 0.5 AS b, d + x AS c, f > 0.5 AS g, d > f AS h, coalesce(f, 0.5) AS i, nullif(x, 2.5) AS j,
  CASE WHEN b THEN x ELSE 0.25 END AS k, greatest(d, x) AS l, f IN (0.5, 1.5, 2) AS m, f BETWEEN 0.5 AND d AS n FROM bids

# floats of any size are compared as floats
SELECT id FROM bids WHERE f * 1e20 > 0.5 AND x / 1e20 < 0.5 AND f <> 0.25

# decimals and integers
SELECT id, d * 1.1 AS a, d + 0.005 AS b, d - price AS c, price * 0.908 AS e, d * d AS g, d % 2.5 AS h, -d AS i,
  d * price * small AS j FROM bids

# quotients are rounded
SELECT id, d / 3 AS a, price / 3.0 AS b, d / 7.25 AS c, small / 1.5 AS e, (d / 3) / 7 AS g, d * 100.0 / 3 AS h FROM bids

# comparisons of integers and decimals
SELECT id, price > 0.5 AS a, price = 3.0 AS b, d = 2.5 AS c, small IN (1.0, 2.5) AS e, price BETWEEN 0.5 AND 4.5 AS g,
  d < price AS h, k * 9007199254740993 = k * 9007199254740992.0 AS i, d <> '1.005' AS j FROM bids WHERE price < 1000

# decimals of many digits
SELECT id, CAST(d AS DECIMAL(30, 10)) * CAST(small AS DECIMAL(8, 0)) AS a, CAST(d AS DECIMAL(38, 18)) / 3 AS b,
  d > 0.12345678901234567890 AS c FROM bids WHERE price < 1000000

# casts round
SELECT id, CAST(x AS BIGINT) AS a, CAST(d AS INT) AS b, CAST(x AS DECIMAL(20, 1)) AS c, CAST(d AS DECIMAL(12, 1)) AS e,
  TRY_CAST(f AS INT) AS g, TRY_CAST(f AS DECIMAL(10, 2)) AS h, round(d, 1) AS i, trunc(d, 1) AS j, ceil(d) AS k, floor(d) AS l,
  abs(d) AS m, round(x, 1) AS n FROM bids

# functions of decimals
SELECT id, sqrt(abs(d)) AS a, power(d, 2) AS b, power(x, 0.5) AS c, ln(abs(d) + 1.5) AS e, signum(d) AS g, make_array(d, 1.5, price) AS h,
  make_array(x, 0.5) AS i, named_struct('a', 0.50, 'x', x)['a'] AS j FROM bids

# unions of decimals, integers and floats
SELECT id, d AS v FROM bids UNION ALL SELECT id, price FROM bids UNION ALL SELECT id, x FROM bids

# groups by decimals
SELECT d * 1.5 AS g, count(*) AS n, sum(d * 0.5) AS s, max(d / 3) AS m FROM bids GROUP BY d * 1.5

# sums of products over what is taken back
SELECT k, sum(d * 1.1) AS a, sum(price * 0.908) AS b, sum(d / 3) AS c, sum(CASE WHEN price > 2.5 THEN d ELSE 0 END) AS e,
  sum(x * 0.5) AS g, count(*) FILTER (WHERE d > 1.005) AS h, max(d * 2.5) AS i FROM accounts GROUP BY k

# averages of decimals
SELECT k, avg(d) AS a, avg(d * 1.1) AS b, avg(x * 0.5) AS e, avg(price) AS g FROM bids GROUP BY k

# averages of decimals that are taken back
SELECT k, avg(d) AS a, avg(d * 0.5) AS b FROM accounts GROUP BY k

# distinct decimals
SELECT k, count(DISTINCT d * 0.5) AS n, sum(DISTINCT d) AS s FROM bids GROUP BY k HAVING sum(d) > 0.5

# sums of decimals beside one of distinct values
SELECT sum(d) AS s, avg(d) AS a, sum(DISTINCT price % 100) AS t FROM bids
