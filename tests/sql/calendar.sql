# years that begin in April
SELECT window_start, window_end, count(*) AS n, sum(amount) AS s FROM TUMBLE(visits, ts, INTERVAL '12 months', INTERVAL '3 months') GROUP BY window_start, window_end

# half years, each quarter, one month later
SELECT name, window_start, window_end, count(*) AS n FROM HOP(visits, ts, INTERVAL '3 months', INTERVAL '6 months', INTERVAL '1 month') GROUP BY name, window_start, window_end

# by the start alone
SELECT window_start, count(*) AS n FROM TUMBLE(visits, ts, INTERVAL '2 months', INTERVAL '1 month') GROUP BY window_start

# quarters that grow by months
SELECT window_start, window_end, avg(amount) AS a FROM CUMULATE(visits, ts, INTERVAL '1 month', INTERVAL '3 months') GROUP BY window_start, window_end

# years that grow by quarters from March on, by the end
SELECT window_end, count(DISTINCT name) AS n FROM CUMULATE(visits, ts, INTERVAL '3 months', INTERVAL '1 year', INTERVAL '2 months') GROUP BY window_end

# months that grow are not told apart by their starts
SELECT window_start, count(*) AS n FROM CUMULATE(visits, ts, INTERVAL '1 month', INTERVAL '3 months') GROUP BY window_start

# quarters that grow, a day later
SELECT id, window_start, window_end FROM CUMULATE(visits, ts, INTERVAL '1 month', INTERVAL '3 months', INTERVAL '1 day')
