#!/usr/bin/env python3
"""Plays trades.jsonl, a quarter of a minute of a made-up market, to a client that connects by WebSocket and subscribes: at the pace of
the times in it. Prints its port, and when all has been said; ends when the client goes. Needs nothing but Python.

    feed.py [times as fast]
"""

import base64
import contextlib
import hashlib
import json
import pathlib
import socket
import sys
import time

TRADES = pathlib.Path(__file__).with_name("trades.jsonl")
# RFC 6455, section 1.3.
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def exactly(peer, n):
    """The next n bytes."""
    data = b""
    while len(data) < n:
        more = peer.recv(n - len(data))
        if not more:
            raise ConnectionError("the client is gone")
        data += more
    return data


def agree(peer):
    """Answers the request for a WebSocket."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += exactly(peer, 1)
    key = next(line.split(b":")[1].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    peer.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def hear(peer):
    """The next short message of the client."""
    head = exactly(peer, 2)
    length = head[1] & 127
    length = int.from_bytes(exactly(peer, 2), "big") if length == 126 else length
    mask, data = exactly(peer, 4), exactly(peer, length)
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def say(peer, text):
    """Sends a text."""
    data = text.encode()
    length = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    peer.sendall(b"\x81" + length + data)


def main(faster):
    trades = TRADES.read_text().splitlines()
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        peer, _ = server.accept()
        with peer:
            agree(peer)
            wanted = set(json.loads(hear(peer))["subscribe"])
            first, began = json.loads(trades[0])["t"], time.monotonic()
            for line in trades:
                trade = json.loads(line)
                due = (trade["t"] - first) / 1000 / faster
                time.sleep(max(0, began + due - time.monotonic()))
                if trade["s"] in wanted:
                    say(peer, line)
            print("all is said", flush=True)
            with contextlib.suppress(ConnectionError):
                while True:
                    exactly(peer, 1)


main(float(sys.argv[1]) if len(sys.argv) > 1 else 1)
