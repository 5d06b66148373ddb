"""Stores in buckets: what is committed is there after a kill, faults lose and double nothing, and one process at a time has a store."""

import base64
import contextlib
import email.utils
import hashlib
import hmac
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request

import adbc_driver_manager
import pyarrow.parquet
import pytest
from buckets import ACCOUNT, azurite, names, s3
from conftest import BINARY, PATIENCE, Process, Server, run

VENV = os.path.dirname(os.path.dirname(sys.executable))
AZURITE = os.path.join(VENV, "azurite", "node_modules", "azurite", "dist", "src", "blob", "main.js")
HTTPFS = os.path.join(VENV, "httpfs")
OFTEN = ("--checkpoint-interval", "100ms")
LEASE = 6

ORDERS = """
CREATE STREAM orders (id BIGINT, customer TEXT, amount BIGINT);
CREATE STREAM totals AS SELECT customer, count(*) AS n, sum(amount) AS total FROM orders GROUP BY customer;
"""


def execute(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetch_arrow_table().to_pylist()


def insert(connection, ids):
    rows = ", ".join(f"({i}, 'c{i % 7}', {i * i})" for i in ids)
    execute(connection, f"INSERT INTO orders VALUES {rows}")


def check(connection, n):
    execute(connection, "FLUSH")
    assert [r["id"] for r in execute(connection, "SELECT id FROM orders ORDER BY id")] == list(range(n))
    expected = {}
    for i in range(n):
        count, total = expected.get(f"c{i % 7}", (0, 0))
        expected[f"c{i % 7}"] = (count + 1, total + i * i)
    found = {r["customer"]: (r["n"], int(r["total"])) for r in execute(connection, "SELECT * FROM totals")}
    assert found == expected


def live_files(files, folder, stream):
    """What the list of live files says. pyarrow (26.0.1) reads as many bytes of it as it had when it was opened: one that was replaced
    meanwhile is no JSON, and is read again."""
    for _ in range(10):
        with files.open_input_stream(f"{folder}/live/{stream}.json") as f:
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads(f.read())
    raise AssertionError("the list was replaced ten times while it was read")


def listed(files, folder, stream):
    """The rows in the files that the list of live ones names."""
    live = live_files(files, folder, stream)
    tables = [pyarrow.parquet.read_table(f"{folder}/{file['path']}", filesystem=files) for file in live["files"]]
    return pyarrow.concat_tables(tables).to_pylist()


def shown(files, folder, stream):
    """The rows in the files below the stream's name."""
    place = f"{folder}/streams/{stream}"
    tables = [pyarrow.parquet.read_table(f"{place}/{name}", filesystem=files) for name in names(files, place)]
    return pyarrow.concat_tables(tables).to_pylist() if tables else []


def ids(rows):
    return sorted(row["id"] for row in rows)


def lives(url, environment, check_bucket):
    """A store goes through kills, and is what it should be after each."""
    for life in range(3):
        with Server(url, *OFTEN, env=environment) as server, server.connect() as connection:
            if life == 0:
                for statement in ORDERS.split(";")[:2]:
                    execute(connection, statement)
            check(connection, life * 40)
            for i in range(4):
                insert(connection, range(life * 40 + i * 10, life * 40 + i * 10 + 10))
            check_bucket((life + 1) * 40)
            server.kill()
    with Server(url, env=environment) as server, server.connect() as connection:
        check(connection, 120)
        assert [r["name"] for r in execute(connection, "SHOW STREAMS")] == ["orders", "totals"]
        execute(connection, "DROP STREAM totals")
        assert server.stop() == 0, server.stderr


def test_what_is_acknowledged_is_in_the_bucket():
    with s3("lake") as bucket:
        def check_bucket(n):
            # Each row was acknowledged, so it is committed, and shown right behind.
            assert ids(listed(bucket.files, "lake/shop", "orders")) == list(range(n))
            assert ids(shown(bucket.files, "lake/shop", "orders")) == list(range(n))

        lives("s3://lake/shop", bucket.environment, check_bucket)
        assert not names(bucket.files, "lake/shop/streams/totals"), "it was dropped"
        assert all(name.startswith("shop/") for name in names(bucket.files, "lake"))


def test_a_store_in_azure(tmp_path):
    with azurite(AZURITE, tmp_path) as endpoint:
        environment = os.environ | {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": endpoint.rsplit("/", 1)[0],
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        }
        make_container(endpoint, "lake")
        lives("az://lake/shop", environment, lambda n: None)


def make_container(endpoint, name):
    """As Azure's documents say that a request is signed; the key is the emulator's, which they name too."""
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    date, version = email.utils.formatdate(usegmt=True), "2020-10-02"
    canonical = f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = "PUT" + "\n" * 12 + canonical
    signature = base64.b64encode(hmac.new(base64.b64decode(key), signed.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
    request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def test_duckdb_reads_the_bucket_while_the_job_runs():
    with s3("lake") as bucket, Server("s3://lake/live", *OFTEN, env=bucket.environment) as server, server.connect() as connection:
        for statement in ORDERS.split(";")[:2]:
            execute(connection, statement)
        seen = 0
        for round in range(12):
            insert(connection, range(round * 5, round * 5 + 5))
            found = ids(listed(bucket.files, "lake/live", "orders"))
            assert found == list(range(len(found))) and len(found) >= (round + 1) * 5
            seen = len(found)
        script = f"""
import sys
sys.path.insert(0, {HTTPFS!r})
import pathlib, duckdb, duckdb_extension_httpfs
c = duckdb.connect()
(extension,) = pathlib.Path(duckdb_extension_httpfs.__file__).parent.glob("extensions/*/httpfs.duckdb_extension")
c.load_extension(str(extension))
c.execute("CREATE SECRET (TYPE s3, KEY_ID 'key', SECRET 'secret', REGION 'us-east-1', ENDPOINT '{bucket.endpoint.removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)")
print(c.execute("SELECT count(*), count(DISTINCT id), max(id) FROM read_parquet('s3://lake/live/streams/orders/*.parquet')").fetchone())
"""
        answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
        assert answer.stdout.strip() == str((seen, seen, seen - 1)), answer.stderr
        assert server.stop() == 0, server.stderr


EVENTS = 60_000
SCRIPT = f"""
CREATE STREAM IF NOT EXISTS bids (auction BIGINT, bidder BIGINT, price BIGINT, date_time TIMESTAMP,
    WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds')
WITH (connector = 'nexmark', table = 'bid', events = {EVENTS}, rate = 1000, pace = 5000);
CREATE STREAM IF NOT EXISTS passed AS SELECT auction, bidder, price, date_time FROM bids WHERE price % 4 = 0;
CREATE STREAM IF NOT EXISTS counted AS
SELECT auction % 10 AS lot, window_start, count(*) AS n, sum(price) AS total
FROM TUMBLE(bids, date_time, INTERVAL '10 seconds') GROUP BY auction % 10, window_start EMIT ON WINDOW CLOSE;
CREATE STREAM IF NOT EXISTS again AS SELECT lot, sum(n) AS bids FROM counted GROUP BY lot EMIT CHANGES;
"""


def answers(store, **options):
    """What a finished store says, in text."""
    queries = ["passed ORDER BY ALL", "counted ORDER BY ALL", "again ORDER BY ALL"]
    return [run(store, f"SELECT * FROM {q};", "--format", "csv", **options).stdout for q in queries]


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_of_the_store_and_kills_lose_and_double_nothing(tmp_path, seed):
    run(tmp_path / "store", SCRIPT.replace(", pace = 5000", ""))
    expected = answers(tmp_path / "store")
    assert all(len(answer.splitlines()) > 10 for answer in expected)
    chance = random.Random(seed)
    file = tmp_path / "script.sql"
    file.write_text(SCRIPT)
    with s3("lake", seed) as bucket:
        bucket.chance = 0.05
        for _ in range(3):
            with Process("run", file, "--store", "s3://lake/faults", *OFTEN, env=bucket.environment) as process:
                time.sleep(chance.uniform(1, 2.5))
                assert process.process.poll() is None, process.stderr
                process.kill()
        with Process("run", file, "--store", "s3://lake/faults", *OFTEN, env=bucket.environment) as process:
            assert process.wait(120) == 0, process.stderr
        bucket.chance = 0
        assert bucket.failed > 20, bucket.requests
        assert answers("s3://lake/faults", env=bucket.environment) == expected
        passed = [str(row) for row in shown(bucket.files, "lake/faults", "passed")]
        assert sorted(passed) == sorted(str(row) for row in listed(bucket.files, "lake/faults", "passed"))
        assert len(passed) == len(expected[0].splitlines()) - 1


def test_a_store_that_is_away_holds_commits_up_and_ends_nothing():
    with s3("lake") as bucket, Server("s3://lake/away", *OFTEN, env=bucket.environment) as server, server.connect() as connection:
        for statement in ORDERS.split(";")[:2]:
            execute(connection, statement)
        insert(connection, range(10))
        check(connection, 10)
        bucket.away = True
        with subprocess.Popen(
            [BINARY, "shell", "--connect", f"grpc://{server.address}", "-c", "INSERT INTO orders VALUES (10, 'c3', 100)"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as waits:
            until = time.monotonic() + PATIENCE
            while True:
                jobs = {job["stream"]: job for job in execute(connection, "SHOW JOBS")}
                if "the store has not answered" in (jobs["orders"]["error"] or ""):
                    break
                assert time.monotonic() < until, jobs
                time.sleep(0.2)
            # For longer than a lease and longer than others wait.
            time.sleep(25)
            jobs = {job["stream"]: job for job in execute(connection, "SHOW JOBS")}
            assert {job["state"] for job in jobs.values()} == {"running"}, jobs
            assert waits.poll() is None, "it is not acknowledged"
            bucket.away = False
            assert waits.wait(PATIENCE) == 0, waits.stdout.read()
        check(connection, 11)
        jobs = execute(connection, "SHOW JOBS")
        assert all(job["error"] is None for job in jobs), jobs
        assert ids(listed(bucket.files, "lake/away", "orders")) == list(range(11))
        assert server.stop() == 0, server.stderr


def elsewhere(environment, folder):
    """The environment of another machine, which does not see that a process of this one has ended."""
    folder.mkdir()
    return environment | {"TMPDIR": str(folder)}


def test_one_process_at_a_time_has_a_store(tmp_path):
    with s3("lake") as bucket:
        other = elsewhere(bucket.environment, tmp_path / "other")
        with Server("s3://lake/one", *OFTEN, env=bucket.environment) as first, first.connect() as connection:
            for statement in ORDERS.split(";")[:2]:
                execute(connection, statement)
            insert(connection, range(10))
            for environment in (bucket.environment, other):
                refused = run("s3://lake/one", "SHOW STREAMS;", ok=False, env=environment)
                assert f'store "s3://lake/one" is open in another process: process {first.process.pid} on ' in refused.stderr
            # It stands still for longer than its lease, and somebody else goes on.
            first.process.send_signal(signal.SIGSTOP)
            with Server("s3://lake/one", *OFTEN, env=other) as second, second.connect() as its:
                check(its, 10)
                for i in range(1, 6):
                    insert(its, range(i * 10, i * 10 + 10))
                check(its, 60)
                first.process.send_signal(signal.SIGCONT)
                # It says so, and passes on to the one that has the store now.
                first.wait_for("leads no more", "stderr")
                first.wait_for("joined the cluster", "stderr")
                with first.connect() as again:
                    insert(again, range(60, 70))
                    check(again, 70)
                check(its, 70)
                assert ids(listed(bucket.files, "lake/one", "orders")) == list(range(70))
                first.kill()
                assert second.stop() == 0, second.stderr
        # One that was released is not waited for, nor one that has died here.
        for end in ("kill", "stop"):
            began = time.monotonic()
            with Server("s3://lake/one", env=other) as server, server.connect() as connection:
                assert time.monotonic() - began < LEASE - 1
                check(connection, 70)
                getattr(server, end)()


def test_what_is_wrong_is_said():
    def says(store, message, hint, environment):
        failed = run(store, "SHOW STREAMS;", ok=False, env=environment)
        assert message in failed.stderr and hint in failed.stderr, failed.stderr

    with s3("lake") as bucket:
        here = bucket.environment
        says("ftp://lake/a", '"ftp://lake/a" is no place for a store: nothing is known of ftp://', "s3://bucket/prefix", here)
        says("s3://sea/a", 'there is no bucket "s3://sea"', "Make it", here)
        closed = here | {"AWS_ENDPOINT": "http://127.0.0.1:1"}
        says("s3://lake/a", 'store "s3://lake/a" does not answer', "AWS_ENDPOINT", closed)
        insecure = {k: v for k, v in here.items() if k != "AWS_ALLOW_HTTP"}
        says("s3://lake/a", "s3://lake/a", "AWS_ALLOW_HTTP", insecure)
        demo = Process("demo", "--store", "s3://lake/a", env=here)
        assert demo.wait() == 1 and "the demo needs a folder" in demo.stderr
        export = Process("export", "orders", "o.csv", "--store", "s3://lake/a", env=here)
        assert export.wait() == 1 and 'there is no store at "s3://lake/a"' in export.stderr
        # A look leaves nothing.
        run("s3://lake/a", "SHOW STREAMS;", env=here)
        assert names(bucket.files, "lake") == []


def test_copy_to_a_bucket():
    with s3("lake") as bucket:
        here = {"env": bucket.environment}
        rows = "SELECT i AS id, i % 3 AS part FROM unnest(range(1000)) AS t(i)"
        run("s3://lake/store", f"COPY ({rows}) TO 's3://lake/out/all.parquet'; COPY ({rows}) TO 's3://lake/top.csv';", **here)
        table = pyarrow.parquet.read_table("lake/out/all.parquet", filesystem=bucket.files)
        assert sorted(table["id"].to_pylist()) == list(range(1000))
        with bucket.files.open_input_stream("lake/top.csv") as f:
            assert f.read().decode().splitlines()[:2] == ["id,part", "0,0"]
        parts = f"COPY ({rows}) TO 's3://lake/parts/' STORED AS PARQUET PARTITIONED BY (part)"
        run("s3://lake/store", f"{parts};", **here)
        first = names(bucket.files, "lake/parts")
        assert [name.split("/")[0] for name in first] == ["part=0", "part=1", "part=2"]
        refused = run("s3://lake/store", f"{parts};", ok=False, **here)
        assert 'folder "s3://lake/parts/" has files already' in refused.stderr and "OVERWRITE" in refused.stderr
        assert names(bucket.files, "lake/parts") == first
        run("s3://lake/store", f"{parts} OVERWRITE;", **here)
        assert not set(names(bucket.files, "lake/parts")) & set(first) and len(names(bucket.files, "lake/parts")) == 3
        run("s3://lake/store", f"{parts} APPEND;", **here)
        tables = [pyarrow.parquet.read_table(f"lake/parts/{n}", filesystem=bucket.files) for n in names(bucket.files, "lake/parts")]
        assert sorted(pyarrow.concat_tables(tables)["id"].to_pylist()) == sorted(list(range(1000)) * 2)
        nowhere = run("s3://lake/store", f"COPY ({rows}) TO 's3://sea/x.parquet';", ok=False, **here)
        assert 'there is no bucket "s3://sea"' in nowhere.stderr
        with Server("s3://lake/served", **here) as server, server.connect() as connection:
            with pytest.raises(adbc_driver_manager.Error, match="no place that statements from outside may touch"):
                execute(connection, "COPY (SELECT 1 AS a) TO 's3://lake/x.parquet'")


def test_what_is_sent_to_others_waits_in_the_bucket(tmp_path):
    def taken(there, n):
        until = time.monotonic() + PATIENCE
        while True:
            with there.connect() as connection:
                found = ids(execute(connection, "SELECT id FROM inbox"))
            if len(found) >= n or time.monotonic() > until:
                assert found == list(range(n))
                return
            time.sleep(0.1)

    with s3("lake") as bucket:
        other = elsewhere(bucket.environment, tmp_path / "other")
        with Server(tmp_path / "there") as there:
            address = there.address
            with there.connect() as connection:
                execute(connection, "CREATE STREAM inbox (id BIGINT)")
            with Server("s3://lake/sender", *OFTEN, "--connect-to", "127.0.0.1", env=bucket.environment) as here, here.connect() as connection:
                execute(connection, ORDERS.split(";")[0])
                options = f"connector = 'flight', url = 'grpc://{address}', stream = 'inbox', max_retry_delay = '200 ms'"
                execute(connection, f"CREATE STREAM sent WITH ({options}) AS SELECT id FROM orders")
                insert(connection, range(10))
                taken(there, 10)
                there.kill()
                insert(connection, range(10, 20))
                until = time.monotonic() + PATIENCE
                while not any("/sinks/" in name for name in names(bucket.files, "lake/sender")):
                    assert time.monotonic() < until, names(bucket.files, "lake/sender")
                    time.sleep(0.05)
                here.kill()
        # On another machine, which has nothing of the first one's folders.
        with Server("s3://lake/sender", *OFTEN, "--connect-to", "127.0.0.1", env=other) as here, here.connect() as connection:
            with Server(tmp_path / "there", listen=address) as there:
                taken(there, 20)
                insert(connection, range(20, 30))
                taken(there, 30)
            assert here.stop() == 0, here.stderr
        assert not any("/sinks/" in name for name in names(bucket.files, "lake/sender"))
