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
