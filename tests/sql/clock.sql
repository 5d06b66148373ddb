# the last moments
SELECT id, k, ts FROM moments WHERE ts > now() - INTERVAL '60 milliseconds'

# what is to come
SELECT id, ts FROM moments WHERE now() < ts + INTERVAL '20 milliseconds' AND p > 0

# what has come, and is not long ago
SELECT id, name FROM moments WHERE ts BETWEEN now() - INTERVAL '50 milliseconds' AND now()

# what has come
SELECT id, k FROM moments WHERE ts <= now()

# counts of the last moments
SELECT k, count(*) AS n, sum(id) AS s FROM moments WHERE ts >= now() - INTERVAL '40 milliseconds' GROUP BY k

# all of the last moments
SELECT count(*) AS n, max(ts) AS last FROM moments WHERE ts > now() - INTERVAL '70 milliseconds'

# groups whose last row is not long ago
SELECT k, max(ts) AS last, count(*) AS n FROM moments GROUP BY k HAVING max(ts) > now() - INTERVAL '30 milliseconds'

# a join of the last moments
SELECT m.id, a.name FROM moments m JOIN accounts a ON m.k = a.k WHERE m.ts > now() - INTERVAL '50 milliseconds'

# rows without a partner a while ago
SELECT m.id FROM (SELECT * FROM moments WHERE ts > now() - INTERVAL '50 milliseconds') m
LEFT JOIN (SELECT id FROM moments WHERE ts < now() - INTERVAL '10 milliseconds') o ON m.id = o.id WHERE o.id IS NULL

# the first of the last moments
SELECT id, k FROM moments WHERE ts > now() - INTERVAL '60 milliseconds' QUALIFY row_number() OVER (PARTITION BY k ORDER BY ts, id) = 1

# sessions of the last moments
SELECT k, window_start, window_end, count(*) AS n FROM SESSION((SELECT * FROM moments WHERE ts > now() - INTERVAL '60 milliseconds'), ts, INTERVAL '5 milliseconds', PARTITION BY k)
GROUP BY k, window_start, window_end

# windows that have closed a while ago
SELECT window_end, count(*) AS n FROM TUMBLE(moments, ts, INTERVAL '20 milliseconds') GROUP BY window_end HAVING window_end > now() - INTERVAL '40 milliseconds' EMIT CHANGES
