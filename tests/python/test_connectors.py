"""One row in, one result out, while the input stays open."""

import json
import subprocess
import threading
import time

import pyarrow
from conftest import Process, Server

# Far more than it takes, far less than until the input would end.
SOON = 5


def shell(store, *statements, stdin=None):
    commands = [word for statement in statements for word in ("-c", statement)]
    return Process("--store", store, "--format", "json", *commands, stdin=stdin)


def test_stdin_to_stdout(store):
    with shell(
        store,
        "CREATE STREAM lines (id BIGINT, note TEXT) WITH (connector = 'stdin', format = 'json')",
        "CREATE STREAM out WITH (connector = 'stdout', format = 'json') AS SELECT id + 1 AS next, upper(note) AS loud FROM lines",
        stdin=subprocess.PIPE,
    ) as process:
        for i, note in enumerate(["one", "two", "three"]):
            process.process.stdin.write(json.dumps({"id": i, "note": note}) + "\n")
            process.process.stdin.flush()
            line = process.wait_for(note.upper(), patience=SOON).string
            assert json.loads(line) == {"next": i + 1, "loud": note.upper()}
        assert len(process.lines["stdout"]) == 3
        process.process.stdin.close()
        assert process.wait() == 0, process.stderr


def test_stdin_with_emit_changes(store):
    with shell(
        store,
        "CREATE STREAM lines (id BIGINT) WITH (connector = 'stdin', format = 'csv', header = false)",
        "SELECT id % 2 AS odd, count(*) AS n FROM lines GROUP BY id % 2 EMIT CHANGES",
        stdin=subprocess.PIPE,
    ) as process:
        for text in ("1\n", "2\n", "3\n"):
            seen = len(process.lines["stdout"])
            process.process.stdin.write(text)
            process.process.stdin.flush()
            deadline = time.monotonic() + SOON
            while len(process.lines["stdout"]) == seen and time.monotonic() < deadline:
                time.sleep(0.01)
        process.process.stdin.close()
        assert process.wait() == 0, process.stderr
        changes = [tuple(json.loads(line).values()) for line in process.lines["stdout"]]
        assert changes == [("+I", 1, 1), ("+I", 0, 1), ("-U", 1, 1), ("+U", 1, 2)]


def test_all_of_stdin_is_kept_at_its_end(store):
    """A pipe is read to its end also when no statement asks for the result."""
    with shell(
        store,
        "CREATE STREAM lines (id BIGINT) WITH (connector = 'stdin', format = 'json')",
        "CREATE STREAM kept AS SELECT * FROM lines",
        stdin=subprocess.PIPE,
    ) as process:
        process.process.stdin.write("".join(f'{{"id": {i}}}\n' for i in range(100_000)))
        process.process.stdin.close()
        assert process.wait() == 0, process.stderr
    with shell(store, "SELECT count(*) AS n, sum(id) AS total FROM kept") as process:
        assert process.wait() == 0, process.stderr
        assert json.loads(process.stdout) == {"n": 100_000, "total": 4_999_950_000}


def test_a_file_that_grows(store, tmp_path):
    file = tmp_path / "log.json"
    file.write_text('{"id": 0}\n')
    with shell(
        store,
        f"CREATE STREAM log (id BIGINT) WITH (connector = 'file', format = 'json', path = '{file}', follow = true)",
        "SELECT id, id * id AS square FROM log EMIT CHANGES",
    ) as process:
        process.wait_for('"id":0,', patience=SOON)
        took = []
        for i in range(1, 6):
            begun = time.monotonic()
            with open(file, "a") as out:
                out.write(f'{{"id": {i}')
                out.flush()
                time.sleep(0.15)
                out.write("}\n")
            process.wait_for(f'"id":{i},"square":{i * i}', patience=SOON)
            took.append(time.monotonic() - begun)
        assert sorted(took)[2] < 1, took
        assert len(process.lines["stdout"]) == 6
        assert process.stop() == 143, "as a shell says of SIGTERM"


def test_a_paced_generator(store):
    with shell(
        store,
        "CREATE STREAM bids WITH (connector = 'nexmark', table = 'bid', pace = 50)",
        "SELECT auction, price FROM bids EMIT CHANGES",
    ) as process:
        process.wait_for("auction", patience=SOON)
        deadline = time.monotonic() + SOON
        while len(process.lines["stdout"]) < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        early = len(process.lines["stdout"])
        assert 40 <= early < 400
        assert process.stop() == 143, "as a shell says of SIGTERM"


def test_rows_sent_to_a_server(store):
    """Median time from sending a row to seeing what a query over a query makes of it."""
    with Server(store) as server, server.connect() as sender, server.connect() as follower:
        with sender.cursor() as cursor, follower.cursor() as reader:
            cursor.execute("CREATE STREAM readings (id BIGINT, value DOUBLE)")
            cursor.execute("CREATE STREAM halves AS SELECT id, value / 2 AS half FROM readings")
            reader.execute("SELECT id, half FROM halves EMIT CHANGES")
            changes = reader.fetch_record_batch()
            seen, arrived = [], threading.Condition()

            def follow():
                try:
                    for batch in changes:
                        with arrived:
                            seen.extend(zip(batch.column("id").to_pylist(), batch.column("half").to_pylist(), strict=True))
                            arrived.notify()
                except Exception:  # the end: cancelled below
                    pass

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            for i in range(5):
                cursor.adbc_ingest("readings", pyarrow.table({"id": [i], "value": [i * 1.0]}), mode="append")
                with arrived:
                    assert arrived.wait_for(lambda: len(seen) > i, SOON), seen
            assert seen == [(i, i / 2) for i in range(5)]
            reader.adbc_cancel()
            thread.join(SOON)
            assert not thread.is_alive()
        assert server.stop() == 0, server.stderr


def test_connectors_are_listed_with_their_options(store):
    with shell(store, "SHOW CONNECTORS LIKE 'FI%'", "SHOW CONNECTORS") as process:
        assert process.wait() == 0, process.stderr
        rows = [json.loads(line) for line in process.lines["stdout"]]
    files = [row for row in rows if row["connector"] == "file"]
    assert rows[: len(files) // 2] == files[len(files) // 2 :], "the pattern takes those of the name"
    ways = {(row["connector"], row["use"]): row["guarantee"] for row in rows if row.get("option") is None}
    assert ways[("file", "read")] == ways[("file", "write")] == "exactly once"
    assert ways[("stdin", "read")] == "at most once" and ("stdin", "write") not in ways
    follow = next(row for row in files if row.get("option") == "follow")
    assert (follow["use"], follow["takes"], follow["default"]) == ("read", "true or false", "false")
    assert any(row.get("option") == "fields.<column>.min" for row in rows)


def test_the_help_of_the_shell_lists_connectors(store):
    with Process("--store", store, "shell", stdin=subprocess.PIPE) as process:
        process.process.stdin.write("\\?\n")
        process.process.stdin.close()
        assert process.wait() == 0, process.stderr
        for line in ("connector = 'file', write", "connector = 'blackhole', write", "SHOW CONNECTORS"):
            assert line in process.stdout, process.stdout
