-- Departures of US airlines, 1 to 28 January 2001, in order of scheduled time.
-- Source: US Bureau of Transportation Statistics, Airline On-Time Performance; public domain.
CREATE STREAM flights (
  date TIMESTAMP, delay BIGINT, distance BIGINT, origin TEXT, destination TEXT,
  WATERMARK FOR date AS date - INTERVAL '1 hour'
) WITH (connector = 'file', format = 'parquet', path = '{flights}'{options});

-- departures and mean delay of each airport in each hour
CREATE STREAM hourly AS
SELECT origin, window_start, window_end, count(*) AS departures, avg(delay) AS mean_delay
FROM TUMBLE(flights, date, INTERVAL '1 hour')
GROUP BY origin, window_start, window_end
EMIT ON WINDOW CLOSE;

-- every hour, the departures of each airport in the 24 hours before
CREATE STREAM busiest AS
SELECT origin, window_start, window_end, count(*) AS departures
FROM HOP(flights, date, INTERVAL '1 hour', INTERVAL '24 hours')
GROUP BY origin, window_start, window_end
EMIT ON WINDOW CLOSE;
