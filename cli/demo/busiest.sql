-- the busiest airports of the last 24 hours, with their mean delay in minutes
SELECT b.origin, b.departures, h.mean_delay
FROM busiest b
JOIN (
  SELECT origin, round(sum(departures * mean_delay) / sum(departures), 1) AS mean_delay
  FROM hourly
  WHERE window_start >= TIMESTAMP '2001-01-28 00:00:00' AND window_end <= TIMESTAMP '2001-01-29 00:00:00'
  GROUP BY origin
) h ON h.origin = b.origin
WHERE b.window_end = TIMESTAMP '2001-01-29 00:00:00'
ORDER BY b.departures DESC, b.origin
LIMIT 5;
