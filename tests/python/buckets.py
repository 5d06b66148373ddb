"""Servers of object stores on this machine: one that speaks S3, which can be told to fail, and one that speaks Azure's protocol."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pyarrow.fs
from conftest import PATIENCE
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
ERROR = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


class S3:
    """An S3 server whose requests come one after the other: moto by itself is not atomic where a write has a condition.

    `chance` of 0.1 fails a tenth of all requests: half of those after they were done. While it is `away` it fails all.
    """

    def __init__(self, seed=0, host="127.0.0.1"):
        self.moto, self.lock = DomainDispatcherApplication(create_backend_app), threading.Lock()
        self.random, self.chance, self.away, self.delay = random.Random(seed), 0, False, 0
        self.requests, self.failed = 0, 0
        self.server = make_server(host, 0, self, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://{host}:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        # What the last server of this process had is kept otherwise.
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"").close()

    def __call__(self, environ, start):
        time.sleep(self.delay)
        # Read here, since a body that nobody reads would be taken for the next request.
        with self.lock:
            self.requests += 1
            fails = self.away or self.random.random() < self.chance
            done = not self.away and (not fails or self.random.random() < 0.5)
            answer = self.moto(environ, start if not fails else lambda *_: None) if done else None
            body = b"".join(answer) if answer is not None else b""
        if not fails:
            return [body]
        self.failed += 1
        if not done:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(ERROR)))])
        return [ERROR]

    @property
    def environment(self):
        """What a process needs to know to find it."""
        return os.environ | KEYS | {"AWS_ENDPOINT": self.endpoint, "AWS_ALLOW_HTTP": "true"}

    @property
    def files(self):
        """The buckets as files, by a client that is not ours."""
        place = {"endpoint_override": self.endpoint.removeprefix("http://"), "scheme": "http", "region": "us-east-1"}
        return pyarrow.fs.S3FileSystem(access_key="key", secret_key="secret", allow_bucket_creation=True, **place)

    def make(self, bucket):
        self.files.create_dir(bucket)

    def close(self):
        self.server.shutdown()


@contextlib.contextmanager
def s3(bucket, seed=0, host="127.0.0.1"):
    server = S3(seed, host)
    try:
        server.make(bucket)
        yield server
    finally:
        server.close()


def names(files, folder):
    """The objects below `folder`, without it."""
    found = files.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True))
    return sorted(f.path.removeprefix(folder + "/") for f in found if f.type == pyarrow.fs.FileType.File)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# What Azurite's account is called, as its documentation says.
ACCOUNT = "devstoreaccount1"


@contextlib.contextmanager
def azurite(program, folder):
    """An Azure server; `program` is Azurite's."""
    port = free_port()
    command = [shutil.which("node"), program, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence"]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None and time.monotonic() < until, "Azurite does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.kill()
        process.wait()
