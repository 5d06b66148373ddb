"""A server that speaks S3, for this machine alone: prints where it is reached. What it has is in memory.

Requests come one after the other: of two that write under one name where there is nothing, one is refused, as a bucket does it."""

import threading
import urllib.request

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


backend, one_by_one = DomainDispatcherApplication(create_backend_app), threading.Lock()


def answer(environ, start):
    with one_by_one:
        return [b"".join(backend(environ, start))]


server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever).start()
place = f"http://127.0.0.1:{server.port}"
urllib.request.urlopen(urllib.request.Request(f"{place}/lake", method="PUT")).close()
print(place, flush=True)
