# by key
SELECT k, window_start, window_end, count(*) AS n, sum(price) AS s FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_start, window_end

# of all rows
SELECT window_start, window_end, count(*) AS n, min(name) AS first FROM SESSION(bids, ts, INTERVAL '200 milliseconds') GROUP BY window_start, window_end

# rows with their sessions
SELECT id, k, ts, window_start, window_end FROM SESSION(bids, ts, INTERVAL '3 seconds', PARTITION BY k)

# rows with their sessions, on close
SELECT id, window_start, window_end FROM SESSION(bids, ts, INTERVAL '3 seconds', PARTITION BY k, name) EMIT ON WINDOW CLOSE

# by two columns, as Flink writes it
SELECT k, name, window_start, window_end, count(*) AS n FROM TABLE(SESSION(TABLE bids PARTITION BY (k, name), DESCRIPTOR(ts), INTERVAL '5' SECOND)) GROUP BY k, name, window_start, window_end

# named arguments
SELECT k, window_end, max(price) AS p FROM SESSION(data => clicks, timecol => ts, gap => INTERVAL '2 seconds', partition => k) JOIN (SELECT max(price) AS price FROM accounts) ON true GROUP BY k, window_end

# a longest length
SELECT k, window_start, window_end, count(*) AS n, sum(price) AS s FROM SESSION(bids, ts, INTERVAL '4 seconds', PARTITION BY k, max => INTERVAL '6 seconds') GROUP BY k, window_start, window_end

# rows that are taken back
SELECT k, window_start, window_end, count(*) AS n, sum(price) AS s FROM SESSION(profiles, ts, INTERVAL '5 seconds', PARTITION BY k) GROUP BY k, window_start, window_end

# rows that are taken back, with their sessions
SELECT id, name, window_start, window_end FROM SESSION(profiles, ts, INTERVAL '9 seconds')

# rows that are taken back, cut
SELECT window_start, window_end, count(*) AS n FROM SESSION(profiles, ts, INTERVAL '6 seconds', max => INTERVAL '20 seconds') GROUP BY window_start, window_end EMIT CHANGES

# rows whose times are computed never close
SELECT k, window_start, window_end, count(*) AS n FROM SESSION((SELECT k, ts + INTERVAL '1 hour' AS later FROM bids), later, INTERVAL '3 seconds', PARTITION BY k) GROUP BY k, window_start, window_end

# groups that never close
SELECT k, count(DISTINCT window_start) AS sessions, max(window_end - window_start) AS longest FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k

# by the start alone
SELECT window_start, count(*) AS n FROM SESSION(bids, ts, INTERVAL '1 second', PARTITION BY k) GROUP BY window_start

# by the end alone
SELECT window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '1 second', PARTITION BY k) GROUP BY window_end

# partitioned by what is not grouped by
SELECT name, window_start, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY name, window_start, window_end

# filters below and above
SELECT k, window_start, window_end, count(*) AS n FROM SESSION((SELECT * FROM bids WHERE price > 0), ts, INTERVAL '3 seconds', PARTITION BY k) WHERE k > 1 AND x > 0 GROUP BY k, window_start, window_end HAVING count(*) > 1

# an aggregate of sessions
SELECT window_end, count(*) AS sessions, max(n) AS most FROM (
  SELECT k, window_start, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_start, window_end)
GROUP BY window_end

# sessions of sessions
SELECT k, window_start, window_end, count(*) AS n FROM SESSION((
  SELECT k, window_start AS began, count(*) AS rows FROM SESSION(bids, ts, INTERVAL '1 second', PARTITION BY k) GROUP BY k, window_start), began, INTERVAL '5 seconds', PARTITION BY k)
GROUP BY k, window_start, window_end

# hours of sessions
SELECT window_start, window_end, count(*) AS sessions FROM TUMBLE((
  SELECT k, window_end AS ended, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_end), ended, INTERVAL '10 seconds')
GROUP BY window_start, window_end

# sessions that are joined with rows
SELECT s.k, s.window_start, s.n, a.name FROM (
  SELECT k, window_start, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_start, window_end) s
JOIN accounts a ON s.k = a.k

# sessions that are joined with sessions
SELECT a.k, a.window_end, a.n, b.n AS m FROM
  (SELECT k, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_end) a
LEFT JOIN (SELECT k, window_end, count(*) AS n FROM SESSION(clicks, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_end) b
ON a.k = b.k AND a.window_end = b.window_end

# the longest sessions
SELECT k, window_start, n FROM (
  SELECT k, window_start, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_start, window_end)
ORDER BY n DESC, k, window_start LIMIT 5

# the last row of each session
SELECT id, k, window_start FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) QUALIFY row_number() OVER (PARTITION BY k, window_start, window_end ORDER BY ts DESC, id) = 1

# months without a row
SELECT name, window_start, window_end, count(*) AS n, sum(amount) AS s FROM SESSION(visits, ts, INTERVAL '1 month', PARTITION BY name) GROUP BY name, window_start, window_end

# times that no clock shows
SELECT k, window_start, window_end, count(*) AS n FROM SESSION(far, ts, INTERVAL '3 seconds', PARTITION BY k) GROUP BY k, window_start, window_end

# sessions of nothing
SELECT window_start, window_end, count(*) AS n FROM SESSION(nothing, ts, INTERVAL '3 seconds') GROUP BY window_start, window_end

# sessions of a union
SELECT k, window_start, window_end, count(*) AS n FROM SESSION((SELECT k, ts FROM bids UNION ALL SELECT k, ts FROM clicks), ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_start, window_end

# windows and sessions
SELECT k, window_end, count(*) AS n FROM SESSION(bids, ts, INTERVAL '2 seconds', PARTITION BY k) GROUP BY k, window_end
UNION ALL
SELECT k, window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_end
