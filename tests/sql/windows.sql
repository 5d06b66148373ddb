# tumble
SELECT window_start, window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end

# hop by key
SELECT k, window_start, window_end, count(*) AS n, sum(price) AS s FROM HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY k, window_start, window_end

# hop whose size is no multiple of the slide
SELECT window_end, max(price) AS m FROM HOP(bids, ts, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end

# cumulate
SELECT window_start, window_end, avg(x) AS a FROM CUMULATE(bids, ts, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY window_start, window_end

# date_bin
SELECT date_bin(INTERVAL '15 seconds', ts) AS t, count(*) AS n FROM bids GROUP BY 1

# tumble with an offset
SELECT window_start, window_end, count(*) AS n, sum(x) AS s FROM TUMBLE(bids, ts, INTERVAL '10 seconds', INTERVAL '3 seconds') GROUP BY window_start, window_end

# hop with an offset, by two keys
SELECT window_start, window_end, k, name, count(*) AS n FROM HOP(bids, ts, INTERVAL '3 seconds', INTERVAL '9 seconds', INTERVAL '1 second') GROUP BY window_start, window_end, k, name

# hop of a slide that is the size
SELECT window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '5 seconds') GROUP BY window_start, window_end

# cumulate by key with an offset
SELECT k, window_start, window_end, count(*) AS n, max(x) AS m FROM CUMULATE(bids, ts, INTERVAL '4 seconds', INTERVAL '12 seconds', INTERVAL '2 seconds') GROUP BY k, window_start, window_end

# cumulate grouped by window_end first
SELECT window_end, window_start, count(DISTINCT k) AS n FROM CUMULATE(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_end, window_start

# months
SELECT window_start, window_end, count(*) AS n, sum(amount) AS s FROM TUMBLE(visits, ts, INTERVAL '1 month') GROUP BY window_start, window_end

# quarters
SELECT window_start, window_end, name, count(*) AS n FROM TUMBLE(visits, ts, INTERVAL '3 months') GROUP BY window_start, window_end, name

# three months, each month
SELECT window_start, window_end, avg(amount) AS a FROM HOP(visits, ts, INTERVAL '1 month', INTERVAL '3 months') GROUP BY window_start, window_end

# months of which the years before 1970 are no multiple
SELECT window_start, window_end, count(*) AS n FROM TUMBLE(visits, ts, INTERVAL '7 months') GROUP BY window_start, window_end

# named arguments
SELECT window_end, count(*) AS n FROM HOP(data => bids, timecol => ts, slide => INTERVAL '5 seconds', size => INTERVAL '15 seconds') GROUP BY window_start, window_end

# as Flink writes it
SELECT window_start, window_end, max(price) AS p FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end

# by window_end alone
SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_end

# by window_start alone
SELECT window_start, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start

# neither bound is shown
SELECT k, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end

# a filter below and one above
SELECT window_end, k, sum(price) AS s FROM HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '6 seconds') WHERE price > 0 AND name <> 'a' GROUP BY k, window_start, window_end HAVING sum(price) > 10

# windows whose bounds are looked at
SELECT window_end, count(*) AS n, min(ts - window_start) AS d FROM HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '6 seconds') GROUP BY window_start, window_end

# windows whose bounds are filtered
SELECT window_start, window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '2 seconds', INTERVAL '6 seconds') WHERE ts >= window_start + INTERVAL '1 second' GROUP BY window_start, window_end

# windowed rows without a group
SELECT id, window_start, window_end FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')

# every aggregate over hopping panes
SELECT window_end, count(*) AS n, count(name) AS c, sum(price) AS s, sum(d) AS sd, avg(x) AS a, avg(d) AS ad, min(name) AS lo, max(day) AS hi,
  count(DISTINCT name) AS dn, count(DISTINCT price) AS dp, sum(price) FILTER (WHERE k > 1) AS f, var_samp(x) AS v, bool_or(b) AS bo, min(x) AS mx
FROM HOP(bids, ts, INTERVAL '4 seconds', INTERVAL '12 seconds') GROUP BY window_start, window_end

# an aggregate of the windows' results
SELECT window_end, max(n) AS most, count(*) AS keys FROM (
  SELECT k, window_start, window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end)
GROUP BY window_end

# the windows of a union
SELECT window_end, count(*) AS n, count(DISTINCT name) AS d FROM TUMBLE((SELECT name, ts FROM bids UNION ALL SELECT name, ts FROM clicks), ts, INTERVAL '10 seconds') GROUP BY window_start, window_end

# a union of windows
SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY window_end
UNION ALL
SELECT window_end, count(*) AS n FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_end

# a union of windows with groups that never close
SELECT k, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_end UNION ALL SELECT k, sum(price) AS n FROM bids GROUP BY k

# a union of windows with rows that are taken back
SELECT k, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_end UNION ALL SELECT k, price AS n FROM accounts

# date_bin and a key
SELECT k, date_bin(INTERVAL '10 seconds', ts) AS t, sum(price) AS s FROM bids GROUP BY k, 2

# date_trunc
SELECT date_trunc('minute', ts) AS t, count(*) AS n, max(x) AS m FROM bids GROUP BY date_trunc('minute', ts)

# by month through date_trunc
SELECT date_trunc('month', ts) AS t, count(*) AS n, sum(amount) AS m FROM visits GROUP BY 1

# by day through a cast
SELECT CAST(ts AS DATE) AS day, count(*) AS n FROM visits GROUP BY CAST(ts AS DATE)

# by the event time itself
SELECT ts, count(*) AS n FROM bids GROUP BY ts

# by the event time moved
SELECT ts + INTERVAL '1 hour' AS t, count(*) AS n FROM clicks GROUP BY 1

# on close, said
SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '7 seconds') GROUP BY window_end EMIT ON WINDOW CLOSE

# distinct windows
SELECT DISTINCT window_end, k FROM TUMBLE(bids, ts, INTERVAL '10 seconds')

# windows over nothing
SELECT window_end, count(*) AS n FROM TUMBLE(nothing, ts, INTERVAL '7 seconds') GROUP BY window_end

# windows that no row reaches
SELECT window_end, count(*) AS n FROM TUMBLE(bids, ts, INTERVAL '7 seconds') WHERE id < 0 GROUP BY window_end

# windows of a filtered subquery with renamed columns
SELECT window_end, who, count(*) AS n FROM TUMBLE((SELECT name AS who, ts AS t FROM bids WHERE k > 0), t, INTERVAL '10 seconds') GROUP BY window_end, who

# tumble over times that no clock shows
SELECT window_start, window_end, count(*) AS n FROM TUMBLE(far, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end

# hop over times that no clock shows
SELECT k, window_start, window_end, count(*) AS n FROM HOP(far, ts, INTERVAL '2 seconds', INTERVAL '10 seconds') GROUP BY k, window_start, window_end

# hop by months over times that no clock shows
SELECT window_start, window_end, count(*) AS n FROM HOP(far, ts, INTERVAL '1 month', INTERVAL '2 months') GROUP BY window_start, window_end

# cumulate over times that no clock shows
SELECT window_start, window_end, max(id) AS m FROM CUMULATE(far, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY window_start, window_end

# rows with their windows over times that no clock shows
SELECT id, ts, window_end FROM HOP(far, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')

# windows of alike windows
SELECT first_end, window_end, count(*) AS n FROM HOP((SELECT ts, window_end AS first_end FROM HOP(bids, ts, INTERVAL '5 seconds', INTERVAL '10 seconds')), ts, INTERVAL '5 seconds', INTERVAL '10 seconds') GROUP BY first_end, window_end

# windows added up by their end, where their rows lie
SELECT k, window_end, max(n) AS m, sum(s) AS s FROM (SELECT k, window_start, window_end, count(*) AS n, sum(price) AS s FROM CUMULATE(bids, ts, INTERVAL '5 seconds', INTERVAL '15 seconds') GROUP BY k, window_start, window_end) GROUP BY k, window_end

# all windows of a key added up, where their rows lie
SELECT k, sum(n) AS n, max(m) AS m, count(DISTINCT n) AS d FROM (SELECT k, window_end, count(*) AS n, max(x) AS m FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_end) GROUP BY k

# windows of a key rolled up where their rows lie
SELECT k, date_trunc('minute', window_start) AS t, sum(n) AS n, max(m) AS m FROM (SELECT k, window_start, window_end, count(*) AS n, max(x) AS m FROM TUMBLE(bids, ts, INTERVAL '10 seconds') GROUP BY k, window_start, window_end) GROUP BY k, date_trunc('minute', window_start)
