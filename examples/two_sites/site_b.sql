-- Site B fetches them by Flight over mutual TLS, keeps them as Parquet, counts them by second, and sends the counts back.
CREATE STREAM requests WITH (
    connector = 'flight', url = 'grpc+tls://HOST:FLIGHT', stream = 'requests', max_retry_delay = '500 ms',
    tls_ca = 'FOLDER/ca.pem', tls_cert = 'FOLDER/site_b.pem', tls_key = 'FOLDER/site_b.key'
);
CREATE STREAM kept AS SELECT * FROM requests;
CREATE STREAM counts AS
SELECT path, window_end, count(*) AS requests, sum(bytes) AS bytes
FROM TUMBLE(requests, at, INTERVAL '1 second') GROUP BY path, window_end EMIT ON WINDOW CLOSE;
CREATE STREAM back WITH (connector = 'socket', protocol = 'udp', address = 'HOST:UDP', format = 'json')
AS SELECT * FROM counts;
