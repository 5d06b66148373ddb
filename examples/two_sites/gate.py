"""What is around the two sites: clients that POST requests to site A, a server that offers others for site A to poll, and the
receiver of the counts that come back.

gate.py FOLDER COUNT [HOST [PACE]]: prints the ports of the receiver and of the server. A line of input says the port to which
it POSTs. It then brings COUNT requests, every other one by each way, at most PACE a second, with a retry for each that is not
answered, receives until the counts are whole or nothing comes any more, and prints what arrived and how long it took. What came
back is in FOLDER/back.json then.
"""

import http.server
import json
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

BATCH = 50
PATHS = ["/", "/cart", "/search", "/login"]
START = 1_796_000_000
# The last requests are this much later, so that all seconds before them are over.
LATER = 3600
# What the server gives in a page.
PAGE = 100
PATIENCE = 60


def request(n, count):
    second = START + n // 100 if n < count else START + count // 100 + LATER
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return {"id": n, "path": PATHS[n // 2 % 4], "bytes": 100 + n % 900, "at": f"{at}.{n % 100:02}0"}


class Receiver(threading.Thread):
    """Receives counts, a row a datagram."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.port = self.socket.getsockname()[1]
        self.counts, self.twice, self.last = {}, 0, time.monotonic()
        self.start()

    def run(self):
        while True:
            row = json.loads(self.socket.recv(65536))
            self.last = time.monotonic()
            key = (row["path"], row["window_end"])
            self.twice += key in self.counts
            self.counts[key] = row["requests"]


class Offers(http.server.ThreadingHTTPServer):
    """Offers every other request: those up to `self.until` that come behind `?after=`."""

    daemon_threads = True

    def __init__(self, host, count):
        self.count, self.until, self.polls = count, 0, 0
        super().__init__((host, 0), Page)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def page(self, after):
        self.polls += 1
        ids = range(after + 2, self.until, 2)[:PAGE]
        return {"data": [request(n, self.count) for n in ids], "next": ids[-1] if ids else after}


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        body = json.dumps(self.server.page(int(query.get("after", ["-1"])[0]))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Client:
    """POSTs requests until they are taken."""

    def __init__(self, host, port, folder):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.load_cert_chain(f"{folder}/gate.pem", f"{folder}/gate.key")
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        self.url = f"https://{host}:{port}/streams/posted"
        self.longest = 0

    def post(self, rows, key):
        body = "\n".join(map(json.dumps, rows)).encode()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": key}
        begun = time.monotonic()
        while True:
            try:
                with self.opener.open(urllib.request.Request(self.url, body, headers), timeout=10) as answer:
                    answer.read()
                    break
            except urllib.error.HTTPError as e:
                # A refusal stays one.
                if e.code < 500:
                    sys.exit(f"gate.py: {e.code}: {e.read().decode()}")
            except OSError:
                pass
            time.sleep(0.1)
        self.longest = max(self.longest, time.monotonic() - begun)


def main():
    folder, count = sys.argv[1], int(sys.argv[2])
    host = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    pace = float(sys.argv[4]) if len(sys.argv) > 4 else float("inf")
    receiver, offers = Receiver(host), Offers(host, count)
    print(receiver.port, offers.server_port, flush=True)
    client = Client(host, int(sys.stdin.readline()), folder)
    begun = time.monotonic()
    for first in range(0, count, BATCH):
        batch = [request(n, count) for n in range(first, first + BATCH, 2)]
        client.post(batch, f"batch-{first}")
        # A retry of what was answered already is harmless.
        if first % 500 == 0:
            client.post(batch, f"batch-{first}")
        offers.until = first + BATCH
        time.sleep(max(0, begun + offers.until / pace - time.monotonic()))
    brought = time.monotonic()
    client.post([request(count, count)], "last")
    offers.until = count + 2
    closed = receiver.last = time.monotonic()
    while sum(receiver.counts.values()) < count and time.monotonic() - receiver.last < PATIENCE:
        time.sleep(0.01)
    arrived = sum(receiver.counts.values())
    with open(f"{folder}/back.json", "w") as back:
        json.dump([[*key, n] for key, n in receiver.counts.items()], back)
    print(f"site A got {count} requests in {brought - begun:.1f} s: half by POST, each batch within {client.longest * 1000:.0f} ms, half by {offers.polls} polls")
    print(f"counts of {arrived} of them came back by UDP, {receiver.twice} rows twice; the last {(receiver.last - closed) * 1000:.0f} ms after the second was over")
    sys.exit(0 if arrived <= count else 1)


main()
