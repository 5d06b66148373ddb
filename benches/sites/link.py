"""How fast is a link between two servers, beside a bare DoPut of the same batches?

link.py [ROWS]: ROWS narrow rows (id, g: BIGINT) are in a stored stream of server A. Server B reads them by connector `flight` and counts
them (into `blackhole`), or keeps them; or A puts them into a stored stream of B. Beside it a client and a server of pyarrow that do nothing with the
batches. Each without TLS and with. Prints seconds, rows a second, and CPU seconds of both processes. Needs what the tests need.
"""

import multiprocessing
import os
import pathlib
import sys
import tempfile
import time

import pyarrow
import pyarrow.flight

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "python"))
from certificates import Authority  # noqa: E402
from conftest import Server  # noqa: E402

ROWS = int(sys.argv[1]) if __name__ in ("__main__", "__mp_main__") and len(sys.argv) > 1 else 20_000_000
BATCH = 8192
TICK = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def certificates(folder):
    authority = Authority(folder, "ca")
    cert, key = authority.issue("one")
    return {name: path.read_bytes() for name, path in (("ca", authority.cert), ("cert", cert), ("key", key))} | {"paths": (cert, key)}


def ask(url, sql, ca=None):
    import adbc_driver_flightsql.dbapi

    options = {"adbc.flight.sql.client_option.tls_root_certs": ca.read_text()} if ca else {}
    with adbc_driver_flightsql.dbapi.connect(url, options, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else None


class Site:
    def __init__(self, store, *args, tls=None):
        args = ["--connect-to", "127.0.0.0/8", "--insecure", *args]
        args += ["--tls-cert", str(tls[0]), "--tls-key", str(tls[1])] if tls else []
        self.server = Server(store, *args, files="/")
        self.url = f"grpc{'+tls' if tls else ''}://{self.server.address}"
        self.ca = store.parent / "ca.pem" if tls else None

    def ask(self, sql):
        return ask(self.url, sql, self.ca)

    @property
    def pid(self):
        return self.server.process.pid


def report(what, tls, seconds, *cpus):
    print(f"{what:34} {'TLS' if tls else 'plain':5} {seconds:6.2f} s  {ROWS / seconds / 1e6:6.2f} M rows/s  CPU s {' '.join(f'{c:.2f}' for c in cpus)}", flush=True)


def links(folder, files, tls):
    args = ["--checkpoint-interval", "1s", "--parallelism", "2"]
    a, b = (Site(folder / f"{name}{tls}", *args, tls=files["paths"] if tls else None) for name in "ab")
    a.ask("CREATE STREAM numbers (id BIGINT, g BIGINT)")
    for first in range(0, ROWS, 1_000_000):
        a.ask(f"INSERT INTO numbers SELECT value, value % 1000 FROM generate_series({first}, {min(ROWS, first + 1_000_000) - 1})")
    a.ask("FLUSH")
    b.ask("CREATE STREAM arrived (id BIGINT, g BIGINT)")
    options = f"connector = 'flight', url = '{a.url}', stream = 'numbers'" + (f", tls_ca = '{folder}/ca.pem'" if tls else "")
    out = f"connector = 'flight', url = '{b.url}', stream = 'arrived'" + (f", tls_ca = '{folder}/ca.pem'" if tls else "")
    b.ask(f"CREATE STREAM far WITH ({options})")
    for what, where, sql, done in (
        ("link read, counted", b, "CREATE STREAM counted AS SELECT count(*) AS n, sum(id) AS s FROM far", "SELECT n FROM counted"),
        ("link read, kept as Parquet", b, "CREATE STREAM kept AS SELECT * FROM far", "SELECT count(*) FROM kept"),
        ("link written, kept as Parquet", a, f"CREATE STREAM away WITH ({out}) AS SELECT * FROM numbers", "SELECT count(*) FROM arrived"),
    ):
        before, begun = (cpu(a.pid), cpu(b.pid)), time.monotonic()
        where.ask(sql)
        while [tuple(map(int, row)) for row in b.ask(done)] != [(ROWS,)]:
            time.sleep(0.05)
        report(what, tls, time.monotonic() - begun, cpu(a.pid) - before[0], cpu(b.pid) - before[1])
        where.ask("DROP STREAM " + sql.split()[2])
    a.server.stop()
    b.server.stop()


class Sink(pyarrow.flight.FlightServerBase):
    def do_put(self, context, descriptor, reader, writer):
        rows = 0
        for chunk in reader:
            rows += chunk.data.num_rows
        assert rows == ROWS


def serve(queue, tls, files):
    sink = Sink("grpc+tls://127.0.0.1:0" if tls else "grpc://127.0.0.1:0", tls_certificates=[(files["cert"], files["key"])] if tls else None)
    queue.put(sink.port)
    sink.serve()


def bare(tls, files):
    queue = multiprocessing.get_context("spawn").Queue()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(queue, tls, files), daemon=True)
    server.start()
    port = queue.get()
    client = pyarrow.flight.FlightClient(f"grpc{'+tls' if tls else ''}://127.0.0.1:{port}", **({"tls_root_certs": files["ca"]} if tls else {}))
    batch = pyarrow.record_batch({"id": pyarrow.array(range(BATCH), pyarrow.int64()), "g": pyarrow.array([n % 1000 for n in range(BATCH)], pyarrow.int64())})
    before, begun = (cpu(os.getpid()), cpu(server.pid)), time.monotonic()
    writer, _ = client.do_put(pyarrow.flight.FlightDescriptor.for_path("x"), batch.schema)
    left = ROWS
    while left > 0:
        writer.write_batch(batch.slice(0, min(left, BATCH)))
        left -= BATCH
    writer.done_writing()
    writer.close()
    report("bare DoPut, dropped", tls, time.monotonic() - begun, cpu(os.getpid()) - before[0], cpu(server.pid) - before[1])
    server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        files = certificates(folder)
        for tls in (False, True):
            bare(tls, files)
            links(folder, files, tls)
            bare(tls, files)
