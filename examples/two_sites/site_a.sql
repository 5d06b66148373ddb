-- Site A takes requests, polls a server for others, and keeps them all until site B has fetched them.
CREATE STREAM posted (id BIGINT, path TEXT, bytes BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second')
WITH (content_retention = '1 day', idle_timeout = '1 day');
CREATE STREAM offered (id BIGINT, path TEXT, bytes BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second')
WITH (
    connector = 'http', url = 'http://HOST:OFFERS/requests', interval = '100 ms', max_retry_delay = '1 s', idle_timeout = '1 day',
    rows = '/data', cursor = '/next', cursor_param = 'after', key = '/id'
);
CREATE STREAM requests AS SELECT * FROM posted UNION ALL SELECT * FROM offered;
CREATE USER gate PASSWORD 'opens the gate';
CREATE USER site_b;
GRANT write ON STREAM posted TO gate;
GRANT read ON STREAM requests TO site_b;
