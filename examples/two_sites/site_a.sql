-- Site A takes requests and keeps them until site B has fetched them.
CREATE STREAM requests (id BIGINT, path TEXT, bytes BIGINT, at TIMESTAMP, WATERMARK FOR at AS at - INTERVAL '1 second')
WITH (content_retention = '1 day');
CREATE USER gate PASSWORD 'opens the gate';
CREATE USER site_b;
GRANT write ON STREAM requests TO gate;
GRANT read ON STREAM requests TO site_b;
