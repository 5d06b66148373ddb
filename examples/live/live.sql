-- A message is a trade. They come a little out of order.
CREATE STREAM trades (s TEXT, p TEXT, q TEXT, t TIMESTAMP, WATERMARK FOR t AS t - INTERVAL '200 milliseconds')
WITH (connector = 'websocket', url = 'ws://127.0.0.1:PORT/ws', subscribe = '{"subscribe": ["BTC-USD", "ETH-USD"]}');

-- Each second of each symbol, as soon as it is over; kept as Parquet, too.
CREATE STREAM seconds WITH (checkpoint_interval = '50 ms') AS
SELECT s AS symbol, window_end AS until, count(*) AS trades,
  min(CAST(p AS DECIMAL(12, 2))) AS low, max(CAST(p AS DECIMAL(12, 2))) AS high, repeat('#', CAST(count(*) AS INT)) AS busy
FROM TUMBLE(trades, t, INTERVAL '1 second')
GROUP BY s, window_end
EMIT ON WINDOW CLOSE;

SELECT * FROM seconds EMIT CHANGES;
