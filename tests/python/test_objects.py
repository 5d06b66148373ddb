"""Objects that others put into buckets, read as files are: every format, new ones as they come, exactly once through kills and faults."""

import gzip
import json
import random
import signal
import time

import adbc_driver_manager
import pyarrow
import pyarrow.fs
import pyarrow.parquet
import pytest
from buckets import s3
from conftest import PATIENCE, Process, Server, run

PLACE = ("--bucket", "s3://lake")


def put(bucket, path, content):
    # By itself it would compress what is called .gz.
    with bucket.files.open_output_stream(path, compression=None) as out:
        out.write(content if isinstance(content, bytes) else content.encode())


def put_parquet(bucket, path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, filesystem=bucket.files)


def rows(store, sql, env):
    return [json.loads(line) for line in run(store, sql, "--format", "json", env=env).stdout.splitlines()]


def lines(ids):
    return "".join(json.dumps({"id": i, "text": f"t{i}"}) + "\n" for i in ids)


def test_every_format_in_batch_and_in_a_stream(tmp_path):
    with s3("lake") as bucket:
        put(bucket, "lake/json/1.jsonl", lines(range(10)))
        put(bucket, "lake/json/deep/2.jsonl.gz", gzip.compress(lines(range(10, 20)).encode()))
        put(bucket, "lake/json/_unfinished/3.jsonl", "not to be read")
        put(bucket, "lake/csv/a b/1.csv", "id,text\n1,x\n2,y\n")
        put(bucket, "lake/csv/c+d/2.csv", "id,text\n3,z\n")
        for day, ids in ((1, [1, 2]), (2, [3])):
            put_parquet(bucket, f"lake/parts/day={day}/x.parquet", id=ids, text=[f"p{i}" for i in ids])
        with pyarrow.fs.FileSystem.open_output_stream(bucket.files, "lake/x.arrow") as out:
            table = pyarrow.table({"id": [7, 8]})
            with pyarrow.ipc.new_file(out, table.schema) as writer:
                writer.write_table(table)
        script = """
            CREATE STREAM json WITH (connector = 'file', path = 's3://lake/json/');
            CREATE STREAM csv (id BIGINT, text TEXT, file TEXT METADATA, modified TIMESTAMP WITH TIME ZONE METADATA)
                WITH (connector = 'file', path = 's3://lake/csv/*/*.csv');
            CREATE STREAM parts WITH (connector = 'file', path = 's3://lake/parts/**/*.parquet');
            CREATE STREAM arrow WITH (connector = 'file', path = 's3://lake/x.arrow, s3://lake/nothing/*.arrow');
            CREATE STREAM sums AS SELECT day, count(*) AS n, sum(id) AS total FROM parts GROUP BY day;
            CREATE STREAM early AS SELECT id FROM parts WHERE day = 1;
        """
        env = bucket.environment
        run(tmp_path, script, env=env)
        assert rows(tmp_path, "SELECT count(*) AS n, sum(id) AS total, max(text) AS t FROM json;", env) == [{"n": 20, "total": 190, "t": "t9"}]
        found = rows(tmp_path, "SELECT id, text, file, modified > now() - INTERVAL '1 hour' AS fresh FROM csv ORDER BY id;", env)
        place = "s3://lake/csv"
        assert [tuple(row.values()) for row in found] == [
            (1, "x", f"{place}/a b/1.csv", True), (2, "y", f"{place}/a b/1.csv", True), (3, "z", f"{place}/c+d/2.csv", True)
        ]  # fmt: skip
        assert rows(tmp_path, "SELECT * FROM sums ORDER BY day;", env) == [{"day": 1, "n": 2, "total": 3}, {"day": 2, "n": 1, "total": 3}]
        assert rows(tmp_path, "SELECT * FROM early ORDER BY id;", env) == [{"id": 1}, {"id": 2}]
        assert rows(tmp_path, "SELECT * FROM arrow;", env) == [{"id": 7}, {"id": 8}]
        shown = run(tmp_path, "SHOW CREATE STREAM json;", env=env).stdout
        assert "s3://lake/json/" in shown and "text" in shown, "columns are found out once"


@pytest.mark.parametrize("seed", [1, 2])
def test_new_objects_once_through_kills_and_faults(tmp_path, seed):
    chance = random.Random(seed)
    path = "path = 's3://lake/in/*.jsonl', follow = true, poll_interval = '200 ms'"
    streams = [
        f"CREATE STREAM lines (id BIGINT, text TEXT) WITH (connector = 'file', {path})",
        "CREATE STREAM kept AS SELECT id FROM lines",
    ]
    with s3("lake", seed) as bucket:
        bucket.chance = 0.05
        env, put_so_far, next_id = bucket.environment, 0, 0
        serve = ("serve", "--store", tmp_path / "store", "--listen", "127.0.0.1:0", "--checkpoint-interval", "50ms", *PLACE)
        with Server(tmp_path / "store", *PLACE, env=env) as server, server.connect() as connection, connection.cursor() as cursor:
            for stream in streams:
                cursor.execute(stream)
        for _ in range(5):
            process = Process(*serve, env=env)
            process.wait_for("connect:", "stderr")
            for _ in range(3):
                many = chance.choice([1, 10, 20_000])
                put(bucket, f"lake/in/{put_so_far:04}.jsonl", lines(range(next_id, next_id + many)))
                put_so_far, next_id = put_so_far + 1, next_id + many
                time.sleep(chance.random() * 0.5)
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()
        bucket.chance = 0
        with Server(tmp_path / "store", *PLACE, env=env) as server, server.connect() as connection, connection.cursor() as cursor:
            until = time.monotonic() + PATIENCE
            while True:
                cursor.execute("SELECT count(*) AS n, count(DISTINCT id) AS d, max(id) AS last FROM kept")
                found = cursor.fetchall()
                if found[0][0] >= next_id or time.monotonic() > until:
                    break
                time.sleep(0.2)
            assert found == [(next_id, next_id, next_id - 1)]
        assert bucket.failed > 0


def test_what_is_wrong_is_said(tmp_path):
    with s3("lake") as bucket:
        env = bucket.environment
        put(bucket, "lake/a/1.jsonl", lines([1]))

        def refused(path, more=""):
            return run(tmp_path, f"CREATE STREAM s WITH (connector = 'file', path = '{path}'{more});", ok=False, env=env).stderr

        assert 'cannot read from "s3://sea"' in (said := refused("s3://sea/a/*.jsonl")) and "See that it is there" in said
        assert 'there are no files in "s3://lake/none/*.jsonl"' in refused("s3://lake/none/*.jsonl")
        assert 'there are no files in "s3://lake/none.jsonl"' in refused("s3://lake/none.jsonl")
        assert "nothing is known of http://" in refused("http://lake/a.jsonl")
        assert "goes by . or .." in refused("s3://lake/a/../b.jsonl")
        assert "among objects of buckets" in refused(f"s3://lake/a/*.jsonl, {tmp_path}/x.jsonl")
        assert "is not a pattern" in refused("s3://lake/[a.jsonl", ", format = 'json'")
        assert 'option "settle"' in refused("s3://lake/a/", ", follow = true, settle = '1 s'")
        # An object that was read must stay what it was.
        with Server(tmp_path, "--checkpoint-interval", "50ms", *PLACE, env=env) as server, server.connect() as connection, connection.cursor() as cursor:
            path = "path = 's3://lake/a/', follow = true, poll_interval = '100 ms'"
            cursor.execute(f"CREATE STREAM s WITH (connector = 'file', {path})")
            cursor.execute("CREATE STREAM d AS SELECT id FROM s")

            def until(sql, good):
                end = time.monotonic() + PATIENCE
                while True:
                    cursor.execute(sql)
                    found = cursor.fetchall()
                    if good(found):
                        return
                    assert time.monotonic() < end, found
                    time.sleep(0.1)

            until("SELECT id FROM d", lambda found: found == [(1,)])
            put(bucket, "lake/a/2.jsonl", lines([2]))
            until("SELECT count(*) FROM d", lambda found: found == [(2,)])
            put(bucket, "lake/a/1.jsonl", lines([3]))
            until("SHOW JOBS", lambda found: 'object "s3://lake/a/1.jsonl" was replaced by another one' in str(found))


def test_a_server_reads_and_writes_the_buckets_that_it_names(tmp_path):
    with s3("lake") as bucket:
        put(bucket, "lake/in/1.jsonl", lines([1, 2]))
        put(bucket, "lake/else/1.jsonl", lines([3]))
        stream = "CREATE STREAM {} WITH (connector = 'file', path = '{}')"
        denied = "no place that statements from outside may touch"
        places = ("--bucket", "s3://lake/in", "--bucket", "s3://lake/out/")
        with Server("s3://lake/store", *places, env=bucket.environment) as server, server.connect() as connection:
            with connection.cursor() as cursor:
                cursor.execute(stream.format("lines", "s3://lake/in/*.jsonl"))
                cursor.execute("SELECT count(*) FROM lines")
                assert cursor.fetchall() == [(2,)]
                for path in ("s3://lake/else/*.jsonl", "s3://lake/i*/1.jsonl", "s3://lake/store/catalog/", "s3://lake/"):
                    with pytest.raises(adbc_driver_manager.Error, match=denied):
                        cursor.execute(stream.format("other", path))
                cursor.execute("COPY lines TO 's3://lake/out/x.parquet'")
                assert pyarrow.parquet.read_table("lake/out/x.parquet", filesystem=bucket.files).num_rows == 2
                with pytest.raises(adbc_driver_manager.Error, match=denied):
                    cursor.execute("COPY lines TO 's3://lake/else/x.parquet'")
