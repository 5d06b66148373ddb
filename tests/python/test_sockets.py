"""Sockets and WebSockets: what comes in, what goes out, and what becomes of it when the other side is slow, wrong or gone."""

import contextlib
import json
import re
import socket
import ssl
import threading
import time

import pytest
import websockets.exceptions
import websockets.sync.server
from certificates import Authority
from conftest import Server

OFTEN = ("--checkpoint-interval", "20ms", "--connect-to", "127.0.0.0/8", "--connect-to", "localhost")
# Far more than it takes.
PATIENCE = 30
# Far less than until a connection would be given up.
SOON = 5


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(look, enough, patience=PATIENCE):
    """Looks until `enough` holds for what is seen; gives that."""
    deadline = time.monotonic() + patience
    while not enough(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    return seen


class Store:
    """A server, and statements to it."""

    opened = []

    def __init__(self, store, *args):
        self.path, self.args = store, args or OFTEN
        self.opened.append(self)
        self.start()

    def start(self):
        self.server = Server(self.path, *self.args)
        self.connection = self.server.connect()

    def sql(self, statement):
        with self.connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def value(self, query):
        return self.sql(query)[0][0]

    def figures(self, stream):
        """What EXPLAIN ANALYZE says that sources and sinks have counted."""
        lines = "\n".join(row[0] for row in self.sql(f"EXPLAIN ANALYZE STREAM {stream}"))
        return {name: int(count) for name, count in re.findall(r", (\w+) (\d+)", lines)}

    def kill(self):
        with contextlib.suppress(Exception):
            self.connection.close()
        self.server.kill()

    def close(self):
        with contextlib.suppress(Exception):
            self.connection.close()
        assert self.server.stop() == 0, self.server.stderr


@pytest.fixture(autouse=True)
def none_is_left():
    yield
    while Store.opened:
        if (store := Store.opened.pop()).server.process.poll() is None:
            store.kill()


@pytest.fixture
def here(store):
    opened = Store(store)
    yield opened
    if opened.server.process.poll() is None:
        opened.close()


def listener(here, more="", columns="id BIGINT, note TEXT, peer TEXT METADATA, at TIMESTAMP METADATA FROM 'arrived'"):
    """A stream that listens, kept; gives its port."""
    port = free_port()
    here.sql(f"CREATE STREAM came ({columns}) WITH (connector = 'socket', mode = 'listener', address = '127.0.0.1:{port}'{more})")
    here.sql("CREATE STREAM kept AS SELECT * FROM came")
    return port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def kept(here, n, columns="id"):
    return until(lambda: here.sql(f"SELECT {columns} FROM kept ORDER BY id"), lambda rows: len(rows) >= n)


def dead(here, n):
    query = "SELECT source, line, reason, text FROM millstream.dead_letters ORDER BY source, position"
    return until(lambda: here.sql(query), lambda rows: len(rows) >= n)


def lines(ids, note="x"):
    return "".join(json.dumps({"id": i, "note": note}) + "\n" for i in ids).encode()


def is_closed(connection, patience=SOON):
    """Whether the other side closes it soon, whatever it says before."""
    connection.settimeout(patience)
    try:
        while connection.recv(1000):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


# Lines in.


def test_a_row_in_a_row_out_while_the_connection_is_open(here):
    port = listener(here)
    with connect(port) as client:
        for i, note in enumerate(["one", "two", "three"]):
            sent = time.time()
            client.sendall(lines([i], note))
            id, text, peer, at = kept(here, i + 1, "id, note, peer, at")[i]
            assert (id, text) == (i, note)
            assert peer == f"127.0.0.1:{client.getsockname()[1]}"
            assert abs(at.timestamp() - sent) < SOON or abs(at.replace(tzinfo=None).timestamp() - sent) < 90_000
        assert here.figures("kept")["connections"] == 1


def test_what_is_wrong_costs_nothing_but_itself(here):
    port = listener(here, ", max_line_bytes = 1000", "id BIGINT NOT NULL, note TEXT")
    with connect(port) as client:
        client.sendall(lines([1]) + b'{"id": "no"}\n' + lines([2], "y" * 2000) + b'\xff\n{"id": null}\n{"id":\n' + lines([3]))
        letters = dead(here, 5)
        assert [row[0] for row in kept(here, 2)] == [1, 3]
        origin = f"tcp listener 127.0.0.1:{port} from 127.0.0.1:{client.getsockname()[1]}"
        assert {row[0] for row in letters} == {origin}
        assert [row[1] for row in letters] == [2, 3, 4, 5, 6]
        assert letters[1][2] == "the line is longer than 1000 bytes" and letters[1][3].startswith('{"id": 2')
    with connect(port) as client:
        # A long line is skipped also when it comes in pieces; a whole object needs no line end, half a one is none.
        for _ in range(100):
            client.sendall(b"z" * 1000)
        client.sendall(b"\n" + lines([4]) + b'{"id": 5}')
    assert [row[0] for row in kept(here, 4)] == [1, 3, 4, 5]
    with connect(port) as client:
        client.sendall(lines([6]) + b'{"id": 7, "no')
    dead(here, 7)
    assert [row[0] for row in kept(here, 5)] == [1, 3, 4, 5, 6]


def test_half_a_line_of_csv_is_no_row(here):
    port = listener(here, ", format = 'csv', header = true", "id BIGINT, note TEXT")
    with connect(port) as client:
        client.sendall(b"note,id\nx,1\ny,22")
    assert "ended within the line" in dead(here, 1)[0][2]
    with connect(port) as client:
        client.sendall(b"note,other\nx,1\n")
        assert is_closed(client), "nothing can be read of it"
    assert "no column" in dead(here, 2)[1][2]
    with connect(port) as client:
        client.sendall(b"id,note\n2,z\n")
        assert kept(here, 2, "id, note") == [(1, "x"), (2, "z")]


def test_slow_clients_harm_nobody(here):
    port = listener(here, ", connection_timeout = '1 s', max_connections = 3")
    with connect(port) as half, connect(port) as slow:
        half.sendall(b'{"id": 1')
        stop = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                for byte in b'{"id": 2, "note": "' + b"x" * 500:
                    slow.sendall(bytes([byte]))
                    if stop.wait(0.05):
                        return

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        with connect(port) as good:
            good.sendall(lines([3]))
            assert [row[0] for row in kept(here, 1)] == [3]
            # Nobody who gives no whole line stays, and nobody is one too many for ever.
            with connect(port) as fourth:
                assert is_closed(fourth)
        assert is_closed(half) and is_closed(slow)
        stop.set()
        dripping.join()
    assert here.figures("kept")["connections_refused"] == 1
    with connect(port) as again:
        again.sendall(lines([4]))
        assert [row[0] for row in kept(here, 2)] == [3, 4]
    assert all("no whole line" in row[2] for row in dead(here, 2)[:2])


def test_many_connections_at_a_time(here):
    port = listener(here)
    clients = [connect(port) for _ in range(50)]
    for round in range(20):
        for i, client in enumerate(clients):
            client.sendall(lines([round * 50 + i]))
    assert [row[0] for row in kept(here, 1000)] == list(range(1000))
    for client in clients:
        client.close()


def test_a_client_comes_back_when_the_server_does(here):
    port = free_port()
    here.sql(f"CREATE STREAM came (id BIGINT) WITH (connector = 'socket', address = '127.0.0.1:{port}', max_retry_delay = '200 ms')")
    here.sql("CREATE STREAM kept AS SELECT * FROM came")
    for i in range(3):
        with socket.create_server(("127.0.0.1", port)) as server:
            peer, _ = server.accept()
            with peer:
                peer.sendall(lines([i * 2]))
                assert len(kept(here, i * 2 + 1)) == i * 2 + 1
                peer.sendall(lines([i * 2 + 1]))
                kept(here, i * 2 + 2)
    assert [row[0] for row in kept(here, 6)] == list(range(6))
    assert here.figures("kept")["connections_made"] == 3


def test_who_is_not_read_waits(store):
    here = Store(store, "--memory-limit", "200MB", *OFTEN)
    port = listener(here, ", queue_bytes = 100000")
    text = lines(range(2000), "x" * 200)
    with connect(port) as client:
        for _ in range(200):
            client.sendall(text)
        until(lambda: here.value("SELECT count(*) FROM kept"), lambda n: n == 400_000)
    here.close()


def test_a_kill_loses_what_was_not_committed_and_repeats_nothing(store):
    here = Store(store)
    port = listener(here)
    sent = 0
    for _ in range(3):
        client = until(lambda: try_connect(port), lambda c: c is not None)
        before = here.value("SELECT count(*) FROM kept")
        with client, contextlib.suppress(OSError):
            for _ in range(40):
                client.sendall(lines(range(sent, sent + 50)))
                sent += 50
                time.sleep(0.005)
            until(lambda: here.value("SELECT count(*) FROM kept"), lambda n: n > before)
            here.kill()
        here.start()
    rows = [row[0] for row in here.sql("SELECT id FROM kept")]
    assert len(rows) == len(set(rows)) and set(rows) <= set(range(sent))
    with until(lambda: try_connect(port), lambda c: c is not None) as client:
        client.sendall(lines([sent]))
        until(lambda: here.value(f"SELECT count(*) FROM kept WHERE id = {sent}"), lambda n: n == 1)
    here.close()


def try_connect(port):
    with contextlib.suppress(OSError):
        return connect(port)


def test_one_address_is_read_once(here):
    port = listener(here)
    with pytest.raises(Exception, match="cannot listen on 127.0.0.1"):
        here.sql("CREATE STREAM twice AS SELECT * FROM came")
    # It is free again when the stream is gone.
    here.sql("DROP STREAM kept")
    here.sql("CREATE STREAM kept AS SELECT * FROM came")
    with connect(port) as client:
        client.sendall(lines([1]))
        kept(here, 1)


@pytest.mark.parametrize(
    "options, words",
    [
        ("", "needs option"),
        ("address = 'here'", "which is not host:port"),
        ("address = '127.0.0.1:1', protocol = 'udp', mode = 'listener'", 'no option "mode"'),
        ("address = '127.0.0.1:1', max_connections = 3", 'no option "max_connections"'),
        ("address = '127.0.0.1:1', tls_ca = 'ca.pem'", "tls_ca without tls"),
        ("address = '127.0.0.1:1', tls = true, tls_ca = '/nowhere/ca.pem'", "cannot be read"),
        ("address = '127.0.0.1:1', mode = 'listener', tls = true", "has no certificate"),
        ("address = '127.0.0.1:1', mode = 'listener', max_connections = 0", "which is below 1"),
        ("address = '127.0.0.1:1', protocol = 'udp', max_datagram_bytes = 70000", "no datagram is longer"),
    ],
)
def test_wrong_options_are_told_at_once(here, options, words):
    with pytest.raises(Exception, match=words):
        here.sql(f"CREATE STREAM s (id BIGINT) WITH (connector = 'socket', {options})".replace(", )", ")"))


def test_promises_are_told(here):
    rows = here.sql("SHOW CONNECTORS")
    told = {(row[0], row[1]): row[2] for row in rows if row[2]}
    assert told["socket", "read"] == told["websocket", "read"] == "at most once"
    assert told["socket", "write"] == "tcp client: at least once; listener and udp: at most once"


# TLS.


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "authority")


def client_context(authority, identity=None):
    context = ssl.create_default_context(cafile=authority.cert)
    if identity:
        context.load_cert_chain(*identity)
    return context


def test_a_listener_over_mutual_tls(here, authority, tmp_path):
    cert, key = authority.issue("server")
    port = listener(here, f", tls = true, tls_cert = '{cert}', tls_key = '{key}', tls_ca = '{authority.cert}'")
    other = Authority(tmp_path, "other")

    def send(context, id):
        with context.wrap_socket(connect(port), server_hostname="localhost") as client:
            client.sendall(lines([id]))
            assert not is_closed(client, 0.3)

    for identity in [None, other.issue("client"), authority.issue("late", ended=True)]:
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            send(client_context(authority, identity), 1)
    with connect(port) as plain:
        plain.sendall(lines([1]))
        assert is_closed(plain)
    send(client_context(authority, authority.issue("client")), 2)
    assert [row[0] for row in kept(here, 1)] == [2]


def test_a_client_over_tls_looks_whom_it_talks_to(here, authority, tmp_path):
    other = Authority(tmp_path, "other")
    port, context = free_port(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("feed.example"))
    stop = threading.Event()

    def serve():
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    peer, _ = server.accept()
                    with context.wrap_socket(peer, server_side=True) as wire:
                        wire.sendall(lines([1]))
                        wire.settimeout(PATIENCE)
                        wire.recv(1)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    here.sql("CREATE STREAM kept (id BIGINT)")
    for name, ca, server_name in [("wrong_ca", other.cert, "localhost"), ("wrong_name", authority.cert, "somebody.else"), ("right", authority.cert, "feed.example")]:
        here.sql(
            f"CREATE STREAM {name} (id BIGINT) WITH (connector = 'socket', address = '127.0.0.1:{port}', tls = true,"
            f" tls_ca = '{ca}', tls_server_name = '{server_name}', max_retry_delay = '100 ms')"
        )
        here.sql(f"CREATE STREAM kept_{name} AS SELECT * FROM {name}")
        if name == "right":
            until(lambda: here.value("SELECT count(*) FROM kept_right"), lambda n: n == 1)
        else:
            until(lambda: here.figures(f"kept_{name}")["connections_failed"], lambda n: n > 1)
            assert here.value(f"SELECT count(*) FROM kept_{name}") == 0
        here.sql(f"DROP STREAM kept_{name}")
    stop.set()
    serving.join()


# Datagrams in.


def datagrams(here, more="", columns="id BIGINT, note TEXT, peer TEXT METADATA"):
    port = free_port(socket.SOCK_DGRAM)
    here.sql(f"CREATE STREAM came ({columns}) WITH (connector = 'socket', protocol = 'udp', address = '127.0.0.1:{port}'{more})")
    here.sql("CREATE STREAM kept AS SELECT * FROM came")
    return port


def test_a_datagram_is_a_row(here):
    port = datagrams(here, ", max_datagram_bytes = 100")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        mine = f"127.0.0.1:{client.getsockname()[1]}"
        for i in range(3):
            client.send(lines([i]))
            assert kept(here, i + 1, "id, peer")[i] == (i, mine)
        client.send(lines([3], "y" * 200))
        client.send(b'{"id": "no"}')
        client.send(b'[{"id": 4}, {"id": 5}]')
        assert [row[0] for row in kept(here, 5)] == [0, 1, 2, 4, 5]
        letters = dead(here, 2)
        assert {row[0] for row in letters} == {f"udp 127.0.0.1:{port} from {mine}"}
        assert {row[2] for row in letters} == {"the datagram is longer than 100 bytes", letters[1][2]}


def test_csv_in_datagrams(here):
    port = datagrams(here, ", format = 'csv', delimiter = ';'", "id BIGINT, note TEXT")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.send(b"1;plain")
        client.send(b"2;with a line end\r\n")
        assert kept(here, 2, "id, note") == [(1, "plain"), (2, "with a line end")]


def test_what_udp_drops_is_counted(here):
    """A flood: each datagram is a row, or was dropped here, or by the system, and both are told."""
    port = datagrams(here, ", queue_bytes = 2000")
    sent = 20_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        for i in range(sent):
            client.send(lines([i], "x" * 50))

    def seen():
        figures = here.figures("kept")
        rows = here.value("SELECT count(*) FROM kept")
        return rows, figures["datagrams_dropped"], figures["datagrams_dropped_by_system"]

    rows, dropped, _ = until(seen, lambda counts: sum(counts) == sent)
    assert rows > 0 and dropped > 0
    assert "datagrams come faster than they are read" in here.server.stderr


# Lines out.


class Receiver:
    """Takes connections one after the other, and the lines that come over them."""

    def __init__(self, port=0):
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.rows, self.connections, self.grown = [], [], threading.Condition()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            self.connections.append(peer)
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer):
        with contextlib.suppress(OSError), peer.makefile("rb") as text:
            for line in text:
                if line.endswith(b"\n"):
                    with self.grown:
                        self.rows.append(json.loads(line))
                        self.grown.notify_all()

    def wait(self, enough, patience=PATIENCE):
        with self.grown:
            assert self.grown.wait_for(lambda: enough(self.rows), patience), self.rows[-5:]
            return list(self.rows)

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for peer in self.connections:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def ids(rows):
    return [row["id"] for row in rows]


def sends(here, port, more="", query="SELECT * FROM fed"):
    here.sql("CREATE STREAM IF NOT EXISTS fed (id BIGINT, note TEXT)")
    here.sql(f"CREATE STREAM out WITH (connector = 'socket', address = '127.0.0.1:{port}'{more}) AS {query}")


def insert(here, numbers):
    here.sql("INSERT INTO fed VALUES " + ", ".join(f"({i}, 'n{i}')" for i in numbers))


def test_a_row_out_while_the_input_is_open(here):
    receiver = Receiver()
    sends(here, receiver.port)
    for i in range(3):
        insert(here, [i])
        assert receiver.wait(lambda rows: len(rows) > i, SOON)[i] == {"id": i, "note": f"n{i}"}
    until(lambda: here.figures("out")["rows_sent"], lambda n: n == 3)
    receiver.close()


def test_a_changelog_goes_out_with_its_operations(here):
    receiver = Receiver()
    sends(here, receiver.port, query="SELECT id % 2 AS odd, count(*) AS n FROM fed GROUP BY id % 2")
    insert(here, [1])
    receiver.wait(lambda rows: len(rows) == 1)
    insert(here, [3])
    rows = receiver.wait(lambda rows: len(rows) == 3)
    assert [(row["_op"], row["odd"], row["n"]) for row in rows] == [("+I", 1, 1), ("-U", 1, 1), ("+U", 1, 2)]
    receiver.close()


def test_csv_lines_out_begin_with_a_header(here):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sends(here, server.getsockname()[1], ", format = 'csv', header = true")
        insert(here, [1])
        peer, _ = server.accept()
        peer.settimeout(PATIENCE)
        with peer, peer.makefile("r") as text:
            assert [text.readline(), text.readline()] == ["id,note\n", "1,n1\n"]


def test_a_peer_that_is_gone_gets_all_when_it_is_back(here):
    port = free_port()
    sends(here, port, ", max_retry_delay = '200 ms'")
    insert(here, range(10))
    time.sleep(0.3)
    first = Receiver(port)
    first.wait(lambda rows: set(ids(rows)) == set(range(10)))
    first.close()
    insert(here, range(10, 20))
    second = Receiver(port)
    rows = second.wait(lambda rows: set(range(10, 20)) <= set(ids(rows)))
    # What was sent last may not have been read, and went again, in order.
    assert set(ids(rows)) <= set(range(20))
    assert here.figures("out")["rows_sent_again"] >= 10
    second.close()


def test_what_has_been_read_for_long_does_not_go_again(here):
    receiver = Receiver()
    sends(here, receiver.port, ", max_retry_delay = '100 ms', resend_for = '200 ms'")
    insert(here, range(10))
    receiver.wait(lambda rows: len(rows) == 10)
    time.sleep(2.5)
    port = receiver.port
    receiver.close()
    again = Receiver(port)
    insert(here, [10])
    again.wait(lambda rows: 10 in ids(rows))
    assert ids(again.rows) == [10]
    again.close()


def test_a_pause_neither_loses_nor_repeats(here):
    receiver = Receiver()
    sends(here, receiver.port)
    insert(here, [1])
    receiver.wait(lambda rows: ids(rows) == [1])
    here.sql("PAUSE STREAM out")
    insert(here, [2])
    here.sql("RESUME STREAM out")
    receiver.wait(lambda rows: 2 in ids(rows))
    time.sleep(0.3)
    assert ids(receiver.rows) == [1, 2]
    receiver.close()


def test_a_stream_whose_peer_is_gone_can_be_stopped_and_goes_on(here):
    port = free_port()
    sends(here, port, ", max_retry_delay = '100 ms'")
    insert(here, range(5))
    started = time.monotonic()
    here.sql("PAUSE STREAM out")
    assert time.monotonic() - started < SOON
    insert(here, range(5, 10))
    here.sql("RESUME STREAM out")
    receiver = Receiver(port)
    assert set(ids(receiver.wait(lambda rows: len(set(ids(rows))) == 10))) == set(range(10))
    here.sql("DROP STREAM out")
    receiver.close()


def test_a_peer_that_does_not_read_stops_the_query_and_not_the_server(here):
    """Rows wait on the disk up to the bound; then the query waits, and goes on when the peer reads."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        rows = 400_000
        here.sql(f"CREATE STREAM many (id BIGINT, note TEXT) WITH (connector = 'datagen', rows = {rows}, 'fields.id.kind' = 'sequence')")
        here.sql(
            f"CREATE STREAM out WITH (connector = 'socket', address = '127.0.0.1:{server.getsockname()[1]}',"
            " buffer_bytes = 1000000) AS SELECT id, repeat('x', 100) AS note FROM many"
        )
        peer, _ = server.accept()
        with peer:
            time.sleep(1)
            waiting = here.figures("out")
            assert waiting["bytes_waiting"] > 0
            peer.settimeout(PATIENCE)
            seen = set()
            with peer.makefile("rb") as text:
                while len(seen) < rows:
                    seen.add(json.loads(text.readline())["id"])
            assert len(seen) == rows


def test_a_kill_repeats_rows_and_loses_none(store):
    here = Store(store)
    receiver = Receiver()
    # Of one task: several have no order among them.
    sends(here, receiver.port, ", max_retry_delay = '100 ms', parallelism = 1")
    sent = 0
    for _ in range(5):
        for _ in range(20):
            insert(here, range(sent, sent + 10))
            sent += 10
        here.kill()
        here.start()
    rows = ids(receiver.wait(lambda rows: set(ids(rows)) == set(range(sent))))
    # What goes again goes in order: each first time is after those of all rows before it.
    first = list(dict.fromkeys(rows))
    assert first == sorted(first)
    here.close()
    receiver.close()


def test_rows_that_wait_survive_a_kill(store):
    here = Store(store)
    port = free_port()
    sends(here, port, ", max_retry_delay = '100 ms'")
    insert(here, range(100))
    time.sleep(0.5)
    here.kill()
    here.start()
    receiver = Receiver(port)
    receiver.wait(lambda rows: set(ids(rows)) == set(range(100)))
    here.close()
    receiver.close()


def test_a_bounded_query_ends_when_all_is_sent(store):
    """`run` ends when the peer has been given everything."""
    from conftest import run

    receiver = Receiver()
    run(
        store,
        "CREATE STREAM some (id BIGINT) WITH (connector = 'datagen', rows = 1000, 'fields.id.kind' = 'sequence');"
        f"CREATE STREAM out WITH (connector = 'socket', address = '127.0.0.1:{receiver.port}') AS SELECT id FROM some;",
    )
    assert len(receiver.wait(lambda rows: len(rows) == 1000)) == 1000
    receiver.close()


def test_all_who_listen_get_what_is_committed(here):
    port = free_port()
    sends(here, port, ", mode = 'listener', max_connections = 2")
    with connect(port) as one, connect(port) as two, connect(port) as three:
        until(lambda: here.figures("out")["connections"], lambda n: n == 2)
        assert is_closed(three)
        texts = [c.makefile("rb") for c in (one, two)]
        for i in range(3):
            insert(here, [i])
            assert [json.loads(text.readline())["id"] for text in texts] == [i, i]
        one.close()
        texts[0].close()
        until(lambda: here.figures("out")["connections"], lambda n: n == 1)
        insert(here, [3])
        assert json.loads(texts[1].readline())["id"] == 3


def test_who_listens_too_slowly_is_let_go(here):
    port = free_port()
    here.sql("CREATE STREAM many (id BIGINT) WITH (connector = 'datagen', rate = 100000, 'fields.id.kind' = 'sequence')")
    here.sql(
        f"CREATE STREAM out WITH (connector = 'socket', mode = 'listener', address = '127.0.0.1:{port}', buffer_bytes = 1000000)"
        " AS SELECT id, repeat('x', 100) AS note FROM many"
    )
    with connect(port) as sleeper, connect(port) as reader:
        reader.settimeout(PATIENCE)
        with reader.makefile("rb") as text:
            deadline = time.monotonic() + PATIENCE
            while here.figures("out")["connections_let_go"] == 0:
                assert time.monotonic() < deadline
                for _ in range(20_000):
                    assert text.readline().endswith(b"\n"), "who reads stays"
        assert here.figures("out")["connections_let_go"] == 1
        sleeper.close()


def test_rows_go_out_over_mutual_tls(here, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost"))
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = authority.issue("millstream")
    with socket.create_server(("127.0.0.1", 0)) as server:
        more = f", tls = true, tls_ca = '{authority.cert}', tls_cert = '{cert}', tls_key = '{key}'"
        sends(here, server.getsockname()[1], more)
        server.settimeout(PATIENCE)
        peer, _ = server.accept()
        peer.settimeout(PATIENCE)
        with context.wrap_socket(peer, server_side=True) as wire, wire.makefile("rb") as text:
            insert(here, [1])
            assert json.loads(text.readline()) == {"id": 1, "note": "n1"}


# Datagrams out.


def test_a_row_is_a_datagram(here):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE)
        sends(here, receiver.getsockname()[1], ", protocol = 'udp', max_datagram_bytes = 100")
        for i in range(3):
            insert(here, [i])
            assert json.loads(receiver.recv(1000)) == {"id": i, "note": f"n{i}"}
        here.sql(f"INSERT INTO fed VALUES (3, '{'y' * 200}'), (4, 'z')")
        assert json.loads(receiver.recv(1000)) == {"id": 4, "note": "z"}
        letters = dead(here, 1)
        assert letters[0][2] == "the row is longer than a datagram of 100 bytes" and '"id":3' in letters[0][3]
        until(lambda: here.figures("out")["datagrams_sent"], lambda n: n == 4)


def test_datagrams_are_sent_at_a_rate(here):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE)
        sends(here, receiver.getsockname()[1], ", protocol = 'udp', rate = 200")
        insert(here, range(300))
        seen, times = set(), []
        for _ in range(300):
            seen.add(json.loads(receiver.recv(1000))["id"])
            times.append(time.monotonic())
        assert seen == set(range(300))
        # The last of 300 is due after 1.5 s.
        assert times[-1] - times[0] > 1.4


def test_datagrams_to_nobody_are_counted(here):
    port = free_port(socket.SOCK_DGRAM)
    sends(here, port, ", protocol = 'udp'")
    for i in range(20):
        insert(here, [i])
    until(lambda: here.figures("out")["datagrams_lost"], lambda n: n > 0)
    assert "datagrams are lost" in here.server.stderr


def test_a_kill_sends_no_datagram_twice(store):
    here = Store(store)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        sends(here, receiver.getsockname()[1], ", protocol = 'udp'")
        sent, seen = 0, []

        def receive():
            while datagram := receiver.recv(1000):
                seen.append(json.loads(datagram)["id"])

        receiving = threading.Thread(target=receive, daemon=True)
        receiving.start()
        for _ in range(4):
            for _ in range(20):
                insert(here, range(sent, sent + 5))
                sent += 5
            here.kill()
            here.start()
        insert(here, [sent])
        until(lambda: list(seen), lambda ids: sent in ids)
        assert len(seen) == len(set(seen)) > sent // 2
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", receiver.getsockname())
        receiving.join()
    here.close()


# WebSockets.


class Feed:
    """A WebSocket server that notes what it is told, and says what it is given."""

    def __init__(self, port=0, context=None):
        self.told, self.headers, self.sockets = [], [], []
        self.changed = threading.Condition()
        self.server = websockets.sync.server.serve(self._handle, "127.0.0.1", port, ssl=context)
        self.port = self.server.socket.getsockname()[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handle(self, connection):
        with self.changed:
            self.headers.append({name.lower(): value for name, value in connection.request.headers.raw_items()})
            self.sockets.append(connection)
            self.changed.notify_all()
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            for message in connection:
                with self.changed:
                    self.told.append(message)
                    self.changed.notify_all()

    def wait(self, enough, patience=PATIENCE):
        with self.changed:
            assert self.changed.wait_for(lambda: enough(self), patience), (self.told, len(self.sockets))

    def say(self, *messages):
        for message in messages:
            self.sockets[-1].send(message)

    def close(self):
        self.server.shutdown()


def feeds(here, url, more="", columns="id BIGINT, note TEXT, at TIMESTAMP METADATA FROM 'arrived'"):
    here.sql(f"CREATE STREAM came ({columns}) WITH (connector = 'websocket', url = '{url}', max_retry_delay = '200 ms'{more})")
    here.sql("CREATE STREAM kept AS SELECT * FROM came")


def test_messages_are_rows(store):
    # Secrets have tests of their own.
    here = Store(store, *OFTEN, "--insecure")
    feed = Feed()
    feeds(here, f"ws://127.0.0.1:{feed.port}/trades?key=hidden", ", subscribe = '{\"subscribe\": \"a\"}\n{\"subscribe\": \"b\"}', headers = 'X-Who: me', authorization = 'Bearer hidden'")
    feed.wait(lambda f: len(f.told) == 2)
    assert feed.told == ['{"subscribe": "a"}', '{"subscribe": "b"}']
    assert feed.headers[0]["x-who"] == "me" and feed.headers[0]["authorization"] == "Bearer hidden"
    for i in range(3):
        feed.say(json.dumps({"id": i}))
        assert len(kept(here, i + 1)) == i + 1
    feed.say('[{"id": 3}, {"id": 4}]', b'{"id": 5}', "no json", '{"id": []}', '{"id": 6}')
    assert [row[0] for row in kept(here, 7)] == list(range(7))
    letters = dead(here, 2)
    # What stands behind the question mark may be a secret.
    assert {row[0] for row in letters} == {f"websocket ws://127.0.0.1:{feed.port}/trades"}
    assert "hidden" not in here.server.stderr
    feed.close()


def test_statements_from_outside_reach_what_they_may(store):
    here = Store(store, "--connect-to", "127.0.0.1:7000")
    for options in [
        "connector = 'socket', address = '127.0.0.1:7001'",
        "connector = 'socket', address = '10.0.0.1:7000', protocol = 'udp'",
        "connector = 'websocket', url = 'ws://feed.example.com/'",
    ]:
        with pytest.raises(Exception, match="is no address that statements from outside may connect to"):
            here.sql(f"CREATE STREAM s (id BIGINT) WITH ({options})")
    here.sql("CREATE STREAM s (id BIGINT) WITH (connector = 'socket', address = '127.0.0.1:7000')")
    here.close()


def test_a_feed_is_subscribed_to_again(here):
    feed = Feed()
    feeds(here, f"ws://127.0.0.1:{feed.port}/", ", subscribe = 'all'")
    feed.wait(lambda f: f.told == ["all"])
    feed.say('{"id": 1}')
    kept(here, 1)
    feed.sockets[-1].close()
    feed.wait(lambda f: f.told == ["all", "all"])
    feed.say('{"id": 2}')
    kept(here, 2)
    port = feed.port
    feed.sockets[-1].socket.shutdown(socket.SHUT_RDWR)
    feed.close()
    again = Feed(port)
    again.wait(lambda f: f.told == ["all"])
    again.say('{"id": 3}')
    assert [row[0] for row in kept(here, 3)] == [1, 2, 3]
    again.close()


def test_a_message_that_is_too_long(here):
    feed = Feed()
    feeds(here, f"ws://127.0.0.1:{feed.port}/", ", max_message_bytes = 1000")
    feed.wait(lambda f: len(f.sockets) == 1)
    feed.say('{"id": 1}', json.dumps({"id": 2, "note": "x" * 5000}))
    feed.wait(lambda f: len(f.sockets) == 2)
    feed.say('{"id": 3}')
    assert [row[0] for row in kept(here, 2)] == [1, 3]
    assert "longer than 1000 bytes" in dead(here, 1)[0][2]
    feed.close()


def test_a_server_that_says_nothing_is_asked_and_left(here):
    """It answers no ping: it takes the connection and then does nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        feeds(here, f"ws://127.0.0.1:{server.getsockname()[1]}/", ", ping_interval = '100 ms', connection_timeout = '500 ms'")
        for _ in range(2):
            peer, _ = server.accept()
            with peer:
                assert is_closed(peer, PATIENCE)


def test_an_idle_feed_that_answers_pings_stays(here):
    feed = Feed()
    feeds(here, f"ws://127.0.0.1:{feed.port}/", ", ping_interval = '100 ms', connection_timeout = '500 ms'")
    feed.wait(lambda f: len(f.sockets) == 1)
    # A ping of the other side is answered, too.
    assert feed.sockets[0].ping().wait(SOON)
    time.sleep(1.5)
    assert len(feed.sockets) == 1
    feed.say('{"id": 1}')
    kept(here, 1)
    feed.close()


def test_a_feed_over_tls(here, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("localhost"))
    feed = Feed(context=context)
    feeds(here, f"wss://localhost:{feed.port}/", f", tls_ca = '{authority.cert}'")
    feed.wait(lambda f: len(f.sockets) == 1)
    feed.say('{"id": 1}')
    kept(here, 1)
    feed.close()


@pytest.mark.parametrize(
    "options, words",
    [
        ("url = 'http://127.0.0.1/'", "not with ws:// or wss://"),
        ("url = 'ws://me:hidden@127.0.0.1/'", "has a login in its address"),
        ("url = 'ws://127.0.0.1/', headers = 'hidden'", "is no header"),
        ("url = 'ws://127.0.0.1/', tls_ca = 'ca.pem'", 'no option "tls_ca"'),
        ("url = 'ws://127.0.0.1/', ping_interval = '0 s'", "is 0"),
    ],
)
def test_wrong_options_of_a_websocket(here, options, words):
    with pytest.raises(Exception, match=words) as told:
        here.sql(f"CREATE STREAM s (id BIGINT) WITH (connector = 'websocket', {options})")
    assert "hidden" not in str(told.value).split("CREATE STREAM")[0]


# Changes in.


def envelope(op, before=None, after=None):
    return json.dumps({"op": op, "before": before, "after": after, "source": {"table": "notes"}})


@pytest.mark.parametrize("protocol", ["tcp", "udp", "websocket"])
def test_changes_come_over_the_network(here, protocol):
    """A row comes, changes, and goes by its key; what cannot be followed is put aside; with _op as well."""
    columns = "id BIGINT PRIMARY KEY, note TEXT"
    said = [
        [envelope("c", after={"id": 1, "note": "a"}), envelope("r", after={"id": 2, "note": "b"})],
        [envelope("u", after={"id": 1, "note": "c"}), envelope("d", before={"id": 2}), envelope("d"), "null"],
        [envelope("c", after={"id": 3, "note": "d"})],
    ]
    expected = [[(1, "a"), (2, "b")], [(1, "c")], [(1, "c"), (3, "d")]]
    for name, form in [("told", "format = 'debezium_json'"), ("said", "changes = true")]:
        feed = Feed() if protocol == "websocket" else None
        if feed:
            way = f"connector = 'websocket', url = 'ws://127.0.0.1:{feed.port}/'"
        else:
            port = free_port(socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
            mode = "protocol = 'udp'" if protocol == "udp" else "mode = 'listener'"
            way = f"connector = 'socket', {mode}, address = '127.0.0.1:{port}'"
        here.sql(f"CREATE STREAM {name} ({columns}) WITH ({way}, {form})")
        here.sql(f"CREATE STREAM {name}_kept AS SELECT id, note FROM {name}")
        with contextlib.ExitStack() as stack:
            if feed:
                stack.callback(feed.close)
                feed.wait(lambda f: f.sockets)
                say = feed.say
            elif protocol == "udp":
                sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                say = lambda *all: [sender.sendto(one.encode(), ("127.0.0.1", port)) for one in all]
            else:
                client = stack.enter_context(connect(port))
                say = lambda *all: client.sendall("".join(f"{one}\n" for one in all).encode())
            ops = {"c": "+I", "r": "+I", "u": "+U", "d": "-D"}
            for part, rows in zip(said, expected):
                if name == "said":
                    part = [json.loads(one) for one in part if one != "null"]
                    part = [json.dumps({"_op": ops[e["op"]], **(e["after"] or e["before"] or {})}) for e in part]
                say(*part)
                until(lambda: here.sql(f"SELECT id, note FROM {name}_kept ORDER BY id"), lambda found: found == rows)
    letters = dead(here, 2)
    reasons = {row[2] for row in letters}
    assert len(letters) == 2 and 'column "id" is null' in reasons
    assert any("op 'd' comes without the row before" in reason for reason in reasons), reasons
