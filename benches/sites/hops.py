"""How long does a row take from a POST at site A to a datagram at site A, by way of site B?

hops.py [ROWS_A_SECOND [SECONDS [INTERVAL]]]: clients POST rows to A, B fetches them by a link and sends each back by UDP, with checkpoints every
INTERVAL on both sides (`20ms`; `default` is the default, where commits come early when the job has room). A row is timed from before its request is
sent to when its datagram is there. Prints percentiles, what UDP lost, and the CPU seconds of both sites.
"""

import http.client
import json
import pathlib
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from link import Site, cpu  # noqa: E402

RATE = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 10
INTERVAL = sys.argv[3] if len(sys.argv) > 3 else "20ms"
BATCH, CLIENTS = 50, 16


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        back.bind(("127.0.0.1", 0))
        args = ["--parallelism", "1"] + ([] if INTERVAL == "default" else ["--checkpoint-interval", INTERVAL])
        a, b = Site(folder / "a", "--http", "127.0.0.1:0", *args), Site(folder / "b", *args)
        port = int(a.server.wait_for(r"http://127.0.0.1:(\d+)", "stderr").group(1))
        a.ask("CREATE STREAM requests (id BIGINT, at DOUBLE)")
        b.ask(f"CREATE STREAM requests WITH (connector = 'flight', url = '{a.url}', stream = 'requests')")
        b.ask(f"CREATE STREAM back WITH (connector = 'socket', protocol = 'udp', address = '127.0.0.1:{back.getsockname()[1]}') AS SELECT id, at FROM requests")
        taken = []

        def receive():
            while True:
                row = json.loads(back.recv(65536))
                taken.append(time.monotonic() - row["at"])

        threading.Thread(target=receive, daemon=True).start()
        begun, end = time.monotonic() + 1, time.monotonic() + 1 + SECONDS
        sent = [0] * CLIENTS

        def post(client):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            every = BATCH * CLIENTS / RATE
            due = begun + every * client / CLIENTS
            while due < end:
                time.sleep(max(0, due - time.monotonic()))
                at = time.monotonic()
                body = "".join(f'{{"id":{client * 10**9 + sent[client] + i},"at":{at!r}}}\n' for i in range(BATCH))
                connection.request("POST", "/streams/requests", body, {"Content-Type": "application/x-ndjson"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                sent[client] += BATCH
                due += every

        before = cpu(a.pid), cpu(b.pid)
        clients = [threading.Thread(target=post, args=(i,)) for i in range(CLIENTS)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        took = time.monotonic() - begun
        deadline = time.monotonic() + 5
        while len(taken) < sum(sent) and time.monotonic() < deadline:
            time.sleep(0.05)
        ordered = sorted(taken)
        at = lambda q: ordered[int(q * (len(ordered) - 1))] * 1000
        print(f"{sum(sent) / took:,.0f} rows/s, checkpoints {INTERVAL}: p50 {at(0.5):.1f} ms, p90 {at(0.9):.1f}, p99 {at(0.99):.1f}, most {ordered[-1] * 1000:.1f}; "
              f"{sum(sent) - len(taken)} of {sum(sent)} lost; CPU s a second: A {(cpu(a.pid) - before[0]) / took:.2f}, B {(cpu(b.pid) - before[1]) / took:.2f}")
        a.server.stop()
        b.server.stop()


if __name__ == "__main__":
    main()
