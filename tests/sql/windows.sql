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
