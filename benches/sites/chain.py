"""How long does a row take through a chain of three derived streams to who follows the last?

chain.py [CHANGES_A_SECOND [SECONDS [INTERVAL]]]: a put over Flight replaces rows of a stored stream with a key, a batch every 10 ms. They are joined to
their customers, added up by customer, and the sums joined to the customers' names; a follower (`SELECT … EMIT CHANGES` over Flight SQL) reads that.
Checkpoints every INTERVAL (`20ms`; `default` is the default, where commits come early when the job has room). A row is timed from before its batch is
sent to when a change is there that holds it. Prints percentiles, and the CPU seconds of the server.
"""

import pathlib
import sys
import tempfile
import threading
import time

import numpy
import pyarrow
import pyarrow.flight

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from link import Server, ask, cpu  # noqa: E402

RATE = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 20
INTERVAL = sys.argv[3] if len(sys.argv) > 3 else "default"
EVERY, WARM = 0.01, 3
BATCH = int(RATE * EVERY)
ORDERS, CUSTOMERS = 100_000, 10_000

CHAIN = [
    "CREATE STREAM orders (id BIGINT, customer BIGINT, amount BIGINT, number BIGINT, PRIMARY KEY (id))",
    "CREATE STREAM customers (id BIGINT, name TEXT, region BIGINT, PRIMARY KEY (id))",
    "CREATE STREAM placed AS SELECT o.id, o.customer, o.amount, o.number, c.region FROM orders o JOIN customers c ON o.customer = c.id",
    "CREATE STREAM sums AS SELECT customer, count(*) AS orders, sum(amount) AS amount, max(number) AS number FROM placed GROUP BY customer",
    "CREATE STREAM named AS SELECT s.customer, c.name, s.orders, s.amount, s.number FROM sums s JOIN customers c ON s.customer = c.id",
]


class Follower(threading.Thread):
    """Notes when the change was there that holds each row."""

    def __init__(self, address, rows):
        super().__init__(daemon=True)
        self.address, self.there, self.last = address, numpy.zeros(rows), numpy.arange(-CUSTOMERS, 0)
        self.begun = threading.Event()
        self.changes, self.missing = 0, rows

    def run(self):
        import adbc_driver_flightsql.dbapi

        with adbc_driver_flightsql.dbapi.connect(f"grpc://{self.address}", autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT customer, number FROM named EMIT CHANGES")
            self.begun.set()
            for batch in cursor.fetch_record_batch():
                now = time.monotonic()
                self.changes += batch.num_rows
                for op, customer, number in zip(*(batch.column(name).to_pylist() for name in ("_op", "customer", "number"))):
                    if op.startswith("+") and number > self.last[customer]:
                        # All rows of the customer up to this one.
                        self.there[self.last[customer] + CUSTOMERS : number + 1 : CUSTOMERS] = now
                        self.missing -= (number - self.last[customer]) // CUSTOMERS
                        self.last[customer] = number
                if not self.missing:
                    return


def put(address, rows, sent):
    schema = pyarrow.schema([(name, pyarrow.int64()) for name in ("id", "customer", "amount", "number")])
    client = pyarrow.flight.connect(f"grpc://{address}")
    writer, reader = client.do_put(pyarrow.flight.FlightDescriptor.for_path("orders"), schema)

    def acknowledge():
        while reader.read() is not None:
            pass

    acknowledged = threading.Thread(target=acknowledge, daemon=True)
    acknowledged.start()
    begun = time.monotonic()
    for first in range(0, rows, BATCH):
        time.sleep(max(0, begun + first / RATE - time.monotonic()))
        number = numpy.arange(first, first + BATCH)
        order = number % ORDERS
        columns = [pyarrow.array(values) for values in (order, order % CUSTOMERS, number % 997, number)]
        sent[first : first + BATCH] = time.monotonic()
        writer.write_batch(pyarrow.record_batch(columns, schema=schema))
    writer.done_writing()
    acknowledged.join(30)
    took = time.monotonic() - begun
    writer.close()
    return took


def main():
    rows = int(RATE * SECONDS) // BATCH * BATCH
    args = ["--parallelism", "1"] + ([] if INTERVAL == "default" else ["--checkpoint-interval", INTERVAL])
    with tempfile.TemporaryDirectory() as name, Server(pathlib.Path(name) / "store", *args) as server:
        url = f"grpc://{server.address}"
        for statement in CHAIN:
            ask(url, statement)
        ask(url, f"INSERT INTO customers SELECT value, 'customer ' || value, value % 7 FROM generate_series(0, {CUSTOMERS - 1})")
        ask(url, "FLUSH")
        follower = Follower(server.address, rows)
        follower.start()
        follower.begun.wait()
        sent, before = numpy.zeros(rows), cpu(server.process.pid)
        took = put(server.address, rows, sent)
        follower.join(20)
        used = cpu(server.process.pid) - before
        assert not follower.missing, f"{follower.missing} of {rows} rows never came"
        amounts = ask(url, "SELECT sum(amount), sum(orders) FROM named")
        assert amounts == ask(url, "SELECT sum(amount), count(*) FROM orders"), amounts
        steady = ((follower.there - sent) * 1000)[int(RATE * WARM) :]
        p50, p90, p99 = numpy.percentile(steady, [50, 90, 99])
        print(f"{rows / took:,.0f} changes/s, checkpoints {INTERVAL}: p50 {p50:.1f} ms, p90 {p90:.1f}, p99 {p99:.1f}, most {steady.max():.1f}; "
              f"{follower.changes:,} changes followed; CPU s a second {used / took:.2f}")  # fmt: skip
        assert server.stop() == 0, server.stderr


if __name__ == "__main__":
    main()
