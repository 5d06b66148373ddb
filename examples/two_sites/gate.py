"""What is around the two sites: clients that POST requests to site A, and the receiver of the counts that come back.

gate.py HTTP_PORT FOLDER COUNT: prints its UDP port, waits for a line of input, posts COUNT requests with a retry for each that is
not answered, receives until the counts are whole or nothing comes any more, and prints what arrived and how long it took.
"""

import json
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request

BATCH = 50
PATHS = ["/", "/cart", "/search", "/login"]
START = 1_796_000_000
# The last request is this much later, so that all seconds before it are over.
LATER = 3600


class Receiver(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
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


def request(n, count):
    second = START + n // 100 if n < count else START + count // 100 + LATER
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
    return {"id": n, "path": PATHS[n % 4], "bytes": 100 + n % 900, "at": f"{at}.{n % 100:02}0"}


class Client:
    def __init__(self, port, folder):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.load_cert_chain(f"{folder}/gate.pem", f"{folder}/gate.key")
        self.opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        self.url = f"https://127.0.0.1:{port}/streams/requests"
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
    port, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    receiver = Receiver()
    print(receiver.port, flush=True)
    sys.stdin.readline()
    client, begun = Client(port, folder), time.monotonic()
    for first in range(0, count, BATCH):
        client.post([request(n, count) for n in range(first, first + BATCH)], f"batch-{first}")
        # A retry of what was answered already is harmless.
        if first % 500 == 0:
            client.post([request(n, count) for n in range(first, first + BATCH)], f"batch-{first}")
    posted = time.monotonic()
    client.post([request(count, count)], "last")
    closed = time.monotonic()
    receiver.last = closed
    while sum(receiver.counts.values()) < count and time.monotonic() - receiver.last < 10:
        time.sleep(0.01)
    arrived = sum(receiver.counts.values())
    print(f"site A took {count} requests in {posted - begun:.1f} s, each batch within {client.longest * 1000:.0f} ms")
    print(f"counts of {arrived} of them came back by UDP, {receiver.twice} rows twice; the last {(receiver.last - closed) * 1000:.0f} ms after the second was over")
    sys.exit(0 if arrived <= count else 1)


main()
