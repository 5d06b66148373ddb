"""Followed files: rotated, compressed, half written, odd, gone and back; while the job runs, is paused, stopped or killed."""

import contextlib
import gzip
import json
import os
import pathlib
import random
import shutil
import signal
import time

import adbc_driver_manager
import duckdb
import pyarrow
import pyarrow.parquet
import pytest
from conftest import Server, run

OFTEN = ("--checkpoint-interval", "30ms", "--parallelism", "2")
PATIENCE = 20
HOW = ["running", "paused", "stopped", "killed"]


class Job:
    """A server with a stream `kept` of the ids of followed files."""

    def __init__(self, store, path, options="format = 'json'", columns="id BIGINT", query="SELECT id FROM app"):
        self.store = store
        self.setup = (
            f"CREATE STREAM app ({columns}) WITH (connector = 'file', path = '{path}', follow = true, "
            f"poll_interval = '20ms', {options})",
            f"CREATE STREAM kept AS {query}",
        )
        self.server = None

    def __enter__(self):
        self.start()
        for statement in self.setup:
            self.ask(statement)
        return self

    def __exit__(self, *_):
        self.server.__exit__()

    def start(self):
        self.server = Server(self.store, *OFTEN)

    def ask(self, sql):
        with self.server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def ids(self):
        return sorted(row[0] for row in self.ask("SELECT * FROM kept"))

    def dead(self):
        return self.ask("SELECT source, reason FROM millstream.dead_letters")

    def expect(self, ids, patience=PATIENCE):
        """Exactly these rows come."""
        ids = sorted(ids)
        deadline = time.monotonic() + patience
        while len(got := self.ids()) < len(ids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert got == ids, self.difference(got, ids) + "\n" + self.account()

    def account(self):
        """What the server says, and what the last checkpoint knows of the files."""
        last = max(self.store.glob("jobs/*/checkpoints/*.json"), default=None)
        manifest = json.loads(last.read_text()) if last else {}
        known = {key: manifest.get(key) for key in ("sources", "source_states")}
        return f"{self.server.stderr}\n{self.ask('SHOW JOBS')}\n{json.dumps(known, indent=1)}"

    @staticmethod
    def difference(got, ids):
        missing, extra = sorted(set(ids) - set(got)), sorted(set(got) - set(ids))
        twice = sorted({i for i in got if got.count(i) > 1})
        return f"{len(got)} of {len(ids)}, missing {missing[:10]}, extra {extra[:10]}, twice {twice[:10]}"

    def await_dead(self, pattern, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            if any(pattern in reason for _, reason in self.dead()):
                return
            assert time.monotonic() < deadline, f"{self.dead()}\n{self.server.stderr}"
            time.sleep(0.05)

    @contextlib.contextmanager
    def meanwhile(self, how):
        """What is done while the job is `how`."""
        if how == "paused":
            self.ask("PAUSE STREAM kept")
        elif how == "stopped":
            # It may be asked before it listens to that.
            assert self.server.stop() in (0, -signal.SIGTERM), self.server.stderr
        elif how == "killed":
            self.server.kill()
        yield
        if how == "paused":
            self.ask("RESUME STREAM kept")
        elif how != "running":
            self.start()

    def again(self):
        """After another restart nothing is lost, and nothing comes twice."""
        ids = self.ids()
        with self.meanwhile("killed"):
            pass
        time.sleep(0.4)
        self.expect(ids)


def lines(ids):
    return "".join(f'{{"id": {i}}}\n' for i in ids)


def append(path, ids):
    with open(path, "a") as file:
        file.write(lines(ids))


def compress(path):
    """As gzip does: the old file goes when the new one is whole."""
    data = gzip.compress(path.read_bytes())
    to = path.with_name(path.name + ".gz")
    with open(to, "wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(0.1)
        file.write(data[len(data) // 2 :])
    path.unlink()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_rotation_by_rename(store, tmp_path, pattern, how):
    file = tmp_path / "app.log"
    append(file, range(10))
    with Job(store, tmp_path / pattern) as job:
        job.expect(range(10))
        with job.meanwhile(how):
            # Lines that nobody has seen yet go with the old file.
            append(file, range(10, 15))
            file.rename(tmp_path / "app.log.1")
            append(file, range(15, 40))
        job.expect(range(40))
        # Whoever has the old file open writes on, and the chain goes on.
        append(tmp_path / "app.log.1", range(40, 45))
        job.expect(range(45))
        with job.meanwhile(how):
            (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
            file.rename(tmp_path / "app.log.1")
            append(tmp_path / "app.log.1", range(45, 50))
            append(file, range(50, 60))
        job.expect(range(60))
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_rotation_compresses(store, tmp_path, pattern, how):
    file = tmp_path / "app.log"
    append(file, range(3000))
    with Job(store, tmp_path / pattern) as job:
        job.expect(range(3000))
        with job.meanwhile(how):
            append(file, range(3000, 4000))
            file.rename(tmp_path / "app.log.1")
            append(file, range(4000, 4010))
            compress(tmp_path / "app.log.1")
        job.expect(range(4010))
        time.sleep(0.3)
        job.again()
        with job.meanwhile(how):
            (tmp_path / "app.log.1.gz").rename(tmp_path / "app.log.2.gz")
            file.rename(tmp_path / "app.log.1")
            append(file, range(4010, 4020))
            compress(tmp_path / "app.log.1")
        job.expect(range(4020))
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", ["app.log", "app*.log"])
def test_rotated_twice_with_dates(store, tmp_path, pattern, how):
    """The name of the first rotation is not in the pattern, and its file came and went between two looks."""
    file = tmp_path / "app.log"
    append(file, range(10))
    with Job(store, tmp_path / pattern) as job:
        job.expect(range(10))
        with job.meanwhile(how):
            time.sleep(0.01)
            file.rename(tmp_path / "app-20240228.log")
            append(file, range(10, 13))
            time.sleep(0.01)
            file.rename(tmp_path / "app-20240229.log")
            append(file, range(13, 20))
        job.expect(range(20))
        job.again()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_copy_and_truncate(store, tmp_path, pattern, how):
    file = tmp_path / "app.log"
    append(file, range(10))
    with Job(store, tmp_path / pattern) as job:
        job.expect(range(10))
        for turn in range(2):
            at = 10 + 30 * turn
            with job.meanwhile(how):
                append(file, range(at, at + 5))
                if turn:
                    (tmp_path / "app.log.1").rename(tmp_path / "app.log.2")
                shutil.copy(file, tmp_path / "app.log.1")
                time.sleep(0.1)
                os.truncate(file, 0)
                # More than there was before, before anybody looks.
                append(file, range(at + 5, at + 30))
            job.expect(range(at + 30))
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", HOW)
def test_cut_without_a_copy_is_an_error(store, tmp_path, how):
    file = tmp_path / "app.log"
    append(file, range(10))
    with Job(store, file) as job:
        job.expect(range(10))
        refused = pytest.raises(adbc_driver_manager.Error, match="was cut from 100 to 12 bytes, and no copy of it")
        with refused if how == "paused" else contextlib.nullcontext():
            with job.meanwhile(how):
                file.write_text('{"id": 777}\n')
        if how != "paused":
            job.server.wait_for("was cut from 100 to 12 bytes", "stderr")
        with refused:
            job.ask("RESUME STREAM kept")
            job.ask("FLUSH")
        assert job.ids() == list(range(10))


@pytest.mark.parametrize("how", HOW)
def test_a_file_replaced_for_good_is_an_error(store, tmp_path, how):
    """Unless it was open: then it has been read to its end."""
    file = tmp_path / "app.log"
    append(file, range(10))
    with Job(store, file) as job:
        job.expect(range(10))
        message = "was replaced by another file after 100 bytes of it were taken, and is not found beside it"
        refused = pytest.raises(adbc_driver_manager.Error, match=message)
        with refused if how == "paused" else contextlib.nullcontext():
            with job.meanwhile(how):
                append(tmp_path / "new", range(20, 60))
                if how == "running":
                    append(file, range(10, 20))
                (tmp_path / "new").rename(file)
        if how == "running":
            job.expect(range(60))
            job.again()
        elif how != "paused":
            job.server.wait_for(message, "stderr")


@pytest.mark.parametrize("how", HOW)
def test_places_on_the_disk_are_only_hints(store, tmp_path, how):
    """As after a mount: the same files with other numbers, and a number that is used again."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abc":
        append(folder / name, [ord(name) * 100 + i for i in range(10)])
    ids = [ord(name) * 100 + i for name in "abc" for i in range(10)]
    with Job(store, folder) as job:
        job.expect(ids)
        with job.meanwhile(how):
            shutil.copytree(folder, tmp_path / "copy")
            if how != "running":
                shutil.rmtree(folder)
                (tmp_path / "copy").rename(folder)
            append(folder / "b", [1, 2, 3])
        job.expect(ids + [1, 2, 3])
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", HOW)
def test_files_that_begin_alike(store, tmp_path, how):
    """Only the header had been read: which of two is the old one, their places tell."""
    file = tmp_path / "app.csv"
    file.write_text("id,v\n")
    with Job(store, file, "format = 'csv'") as job:
        time.sleep(0.3)
        with job.meanwhile(how):
            with open(file, "a") as out:
                out.write("1,a\n2,b\n")
            file.rename(tmp_path / "app.csv.1")
            file.write_text("id,v\n3,c\n")
        job.expect([1, 2, 3])
        job.again()


def test_files_with_equal_rows_are_all_read(store, tmp_path):
    for name in ("a", "b", "app.log", "app.log.1"):
        append(tmp_path / name, [1, 2])
    with Job(store, tmp_path / "*[ab1g]", "format = 'json', settle = '1 second'") as job:
        job.expect([1, 1, 1, 1, 2, 2, 2, 2])
        append(tmp_path / "app.log", [3])
        job.expect([1, 1, 1, 1, 2, 2, 2, 2, 3])
        job.again()


@pytest.mark.parametrize("how", HOW)
def test_files_that_vanish_and_return(store, tmp_path, how):
    folder = tmp_path / "in"
    folder.mkdir()
    append(folder / "a.json", range(10))
    (folder / "b.json.gz").write_bytes(gzip.compress(lines(range(10, 20)).encode()))
    pyarrow.parquet.write_table(pyarrow.table({"id": range(20, 30)}), tmp_path / "c.parquet")
    with Job(store, folder) as job:
        job.expect(range(20))
        for back in (tmp_path / "x", tmp_path / "y"):
            with job.meanwhile(how):
                folder.rename(back)
                time.sleep(0.2)
            time.sleep(0.3)
            back.rename(folder)
            time.sleep(0.2)
        append(folder / "a.json", [100])
        job.expect([*range(20), 100])
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", HOW)
def test_gzip_in_two_writes_and_more_members(store, tmp_path, how):
    file = tmp_path / "rows.json.gz"
    data = gzip.compress(lines(random.Random(1).sample(range(10**6), 1000)).encode())
    ids = [json.loads(line)["id"] for line in gzip.decompress(data).splitlines()]
    file.write_bytes(data[: len(data) // 2])
    with Job(store, tmp_path / "*.gz") as job:
        with job.meanwhile(how):
            time.sleep(0.7)
        with open(file, "ab") as out:
            out.write(data[len(data) // 2 :])
        job.expect(ids)
        with job.meanwhile(how), open(file, "ab") as out:
            out.write(gzip.compress(lines([-1, -2]).encode()))
        job.expect([*ids, -1, -2])
        more = gzip.compress(lines([-3]).encode())
        with open(file, "ab") as out:
            out.write(more[:5])
        time.sleep(0.3)
        with job.meanwhile(how), open(file, "ab") as out:
            out.write(more[5:])
        job.expect([*ids, -1, -2, -3])
        assert job.dead() == []
        job.again()


@pytest.mark.parametrize("how", ["running", "killed"])
def test_a_damaged_gzip_settles_and_goes_on(store, tmp_path, how):
    file = tmp_path / "rows.json.gz"
    first = gzip.compress(lines(range(100)).encode())
    torn = gzip.compress(lines(range(100, 20_000)).encode())
    file.write_bytes(first + torn[: len(torn) // 2])
    (tmp_path / "next.json.gz").write_bytes(gzip.compress(lines([-1]).encode()))
    with Job(store, tmp_path / "*.gz", "format = 'json', settle = '1 second'") as job:
        job.await_dead("unexpected end of gzip data")
        got = job.ids()
        assert got == list(range(-1, len(got) - 1)) and len(got) > 5000
        with job.meanwhile(how), open(file, "ab") as out:
            out.write(torn[len(torn) // 2 :])
        # All but the line that was put aside, of which the rest is told too.
        job.expect(sorted({*range(-1, 20_000)} - {len(got) - 1}))
        reasons = sorted(reason for _, reason in job.dead())
        assert reasons == ["the rest of a line that was taken before it was whole", "unexpected end of gzip data"]
        job.again()
        assert len(job.dead()) == 2


@pytest.mark.parametrize("how", HOW)
def test_parquet_half_written_and_written_again(store, tmp_path, how):
    file = tmp_path / "rows.parquet"

    def table(ids):
        pyarrow.parquet.write_table(pyarrow.table({"id": pyarrow.array(ids, pyarrow.int64())}), tmp_path / "whole")
        return (tmp_path / "whole").read_bytes()

    data = table(range(1000))
    file.write_bytes(data[: len(data) // 2])
    with Job(store, tmp_path / "*.parquet", "format = 'parquet', settle = '5 seconds'") as job:
        with job.meanwhile(how):
            time.sleep(0.5)
        with open(file, "ab") as out:
            out.write(data[len(data) // 2 :])
        job.expect(range(1000))
        # Another file of this name.
        with job.meanwhile(how):
            (tmp_path / "whole.new").write_bytes(table(range(2000, 2010)))
            (tmp_path / "whole.new").rename(file)
        job.expect([*range(1000), *range(2000, 2010)])
        assert job.dead() == []
        # One that stays as it is does not hold up the others, and is read once it is whole.
        data = table(range(3000, 3010))
        (tmp_path / "late.parquet").write_bytes(data[:-20])
        (tmp_path / "good.parquet").write_bytes(table([1, 2]))
        job.expect([*range(1000), 1, 2, *range(2000, 2010)])
        job.await_dead("late.parquet")
        with job.meanwhile(how):
            (tmp_path / "late.parquet").write_bytes(data)
        job.expect([*range(1000), 1, 2, *range(2000, 2010), *range(3000, 3010)])
        assert len(job.dead()) == 1
        job.again()
        assert len(job.dead()) == 1


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("how", ["running", "killed"])
def test_odd_files_are_put_aside(store, tmp_path, follow, how):
    (tmp_path / "readme.txt").write_text("These are files.\nThere are several.\n")
    (tmp_path / "a.csv").write_text("who,id\nx,1\ny,2\n")
    (tmp_path / "0.csv").write_text("who,number\nx,100\n")
    if not follow:
        sql = f"CREATE STREAM app (id BIGINT, who TEXT) WITH (connector = 'file', path = '{tmp_path}/*.*', format = 'csv');"
        run(store, sql + "CREATE STREAM kept AS SELECT id FROM app; FLUSH;")
        with Server(store, *OFTEN) as server, server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM kept ORDER BY id")
            assert cursor.fetchall() == [(1,), (2,)]
            cursor.execute("SELECT source FROM millstream.dead_letters ORDER BY source")
            assert [pathlib.Path(row[0]).name for row in cursor.fetchall()] == ["0.csv", "readme.txt"]
        return
    with Job(store, tmp_path / "*.*", "format = 'csv'", "id BIGINT, who TEXT") as job:
        job.expect([1, 2])
        job.await_dead("0.csv\" has no column \"id\"")
        job.await_dead("readme.txt\" has no column \"id\"")
        with job.meanwhile(how):
            (tmp_path / "b.csv").write_text("id\n5\n")
            (tmp_path / "c.csv").write_text("id,who\n3,z\n")
            with open(tmp_path / "0.csv", "a") as out:
                out.write("y,200\n")
        job.expect([1, 2, 3, 5])
        # Only what the query reads is looked for.
        assert len(job.dead()) == 2, job.dead()
        job.again()
        # Once it is mended, it is read.
        (tmp_path / "0.csv").write_text("who,id\nx,100\n")
        job.expect([1, 2, 3, 5, 100])
        job.again()
        assert len(job.dead()) == 2, job.dead()


def test_an_odd_file_may_be_an_error(store, tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    with Job(store, tmp_path / "*.csv", "format = 'csv', on_error = 'fail'") as job:
        job.expect([1])
        (tmp_path / "b.csv").write_text("number\n1\n")
        job.server.wait_for('b.csv" has no column "id"', "stderr")


def test_a_file_that_cannot_be_read(store, tmp_path):
    """Reading it fails, whoever asks."""
    write_only = ["/sys/kernel/mm/hugepages/*/demote", "/sys/devices/pci*/*/rescan", "/sys/class/zram-control/hot_remove"]
    blocked = [p for pattern in write_only for p in pathlib.Path("/").glob(pattern[1:]) if not can_read(p)]
    if not blocked:
        pytest.skip("this machine has no such file")
    append(tmp_path / "a.json", [1, 2])
    (tmp_path / "b.json").symlink_to(blocked[0])
    append(tmp_path / "c.json", [3])
    with Job(store, tmp_path / "*.json", "format = 'json', settle = '500ms'") as job:
        job.expect([1, 2, 3])
        job.await_dead("b.json")
        append(tmp_path / "a.json", [4])
        job.expect([1, 2, 3, 4])
        job.again()
        assert len(job.dead()) == 1


def can_read(path):
    try:
        path.read_bytes()
        return True
    except OSError:
        return False


def test_a_broken_parquet_file_among_others(store, tmp_path):
    for i in range(3):
        pyarrow.parquet.write_table(pyarrow.table({"id": [i]}), tmp_path / f"{i}.parquet")
    (tmp_path / "00.parquet").write_bytes(b"PAR1 but no more")
    sql = f"CREATE STREAM app (id BIGINT) WITH (connector = 'file', path = '{tmp_path}/*.parquet');"
    run(store, sql + "CREATE STREAM kept AS SELECT id FROM app; FLUSH;")
    assert duckdb.sql(f"SELECT id FROM read_parquet('{store}/streams/kept/*.parquet') ORDER BY 1").fetchall() == [(0,), (1,), (2,)]
    assert duckdb.sql(f"SELECT source FROM read_parquet('{store}/jobs/*/dead_letters/*.parquet')").fetchall() == [
        (f"{tmp_path}/00.parquet",)
    ]


def test_stores_without_fingerprints_are_taken_up(store, tmp_path):
    append(tmp_path / "a.json", range(10))
    append(tmp_path / "b.json", range(10, 20))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(lines(range(20, 30)).encode()))
    with Job(store, tmp_path / "*.json*") as job:
        job.expect(range(30))
        with job.meanwhile("stopped"):
            manifests = sorted(store.glob("jobs/*/checkpoints/*.json"))
            for path in manifests:
                manifest = json.loads(path.read_text())
                manifest.pop("source_states", None)
                path.write_text(json.dumps(manifest))
            append(tmp_path / "a.json", range(30, 35))
            (tmp_path / "b.json").rename(tmp_path / "away")
        job.expect(range(35))
        job.again()
        (tmp_path / "away").rename(tmp_path / "b.json")
        append(tmp_path / "b.json", [35])
        job.expect(range(36))
        job.again()


def test_many_files_are_cheap_to_watch(store, tmp_path):
    for i in range(10_000):
        append(tmp_path / f"{i}.json", [i])
    with Job(store, tmp_path / "*.json") as job:
        job.expect(range(10_000), patience=60)
        ticks = os.sysconf("SC_CLK_TCK")

        def used():
            text = pathlib.Path(f"/proc/{job.server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(text[11]) + int(text[12])) / ticks

        time.sleep(1)
        before = used()
        time.sleep(3)
        assert used() - before < 1.2, "most of the time nothing is done"
        append(tmp_path / "77.json", [-1])
        append(tmp_path / "new.json", [-2])
        job.expect([-2, -1, *range(10_000)])


class Rotation:
    """A log that is written to and rotated in every way, by chance."""

    def __init__(self, folder, chance):
        self.folder, self.chance, self.next = folder, chance, 0
        self.file = folder / "app.log"
        self.append()

    def append(self):
        n = self.chance.choice([1, 3, 40, 400])
        append(self.file, range(self.next, self.next + n))
        self.next += n

    def shift(self):
        """Makes room for `app.log.1`."""
        rotated = sorted(self.folder.glob("app.log.*"), key=lambda p: -int(p.name.split(".")[2]))
        for path in rotated:
            parts = path.name.split(".")
            parts[2] = str(int(parts[2]) + 1)
            path.rename(path.with_name(".".join(parts)))

    def rename(self):
        if self.file.exists():
            self.shift()
            self.file.rename(self.folder / "app.log.1")

    def rename_and_create(self):
        self.rename()
        self.file.touch()

    def rename_and_write_on(self):
        """Who writes takes notice a little later."""
        if self.file.exists():
            with open(self.file, "a") as out:
                self.rename()
                time.sleep(self.chance.choice([0, 0.05]))
                out.write(lines([self.next]))
                self.next += 1

    def copy_and_truncate(self):
        if self.file.exists():
            self.shift()
            shutil.copy(self.file, self.folder / "app.log.1")
            time.sleep(self.chance.choice([0, 0.05]))
            os.truncate(self.file, 0)

    def compress(self):
        plain = [p for p in self.folder.glob("app.log.*") if p.suffix != ".gz"]
        if plain:
            compress(self.chance.choice(plain))

    def half_a_line(self):
        text = lines([self.next])
        at = self.chance.randrange(1, len(text))
        self.next += 1
        with open(self.file, "a") as out:
            out.write(text[:at])
            out.flush()
            time.sleep(self.chance.choice([0, 0.05]))
            out.write(text[at:])

    def step(self):
        kinds = [
            self.append,
            self.append,
            self.append,
            self.rename,
            self.rename_and_create,
            self.rename_and_write_on,
            self.copy_and_truncate,
            self.compress,
            self.half_a_line,
        ]
        kind = self.chance.choice(kinds)
        kind()
        time.sleep(self.chance.choice([0.006, 0.03, 0.15]))
        return kind.__name__


SEED = int(os.environ.get("MILLSTREAM_SEED", "20240229"))


@pytest.mark.parametrize("turn", range(int(os.environ.get("MILLSTREAM_ROTATIONS", "6"))))
def test_rotations_by_chance(store, tmp_path, turn):
    seed = SEED + turn
    print(f"seed {seed}")
    chance = random.Random(seed)
    folder = tmp_path / "logs"
    folder.mkdir()
    rotation = Rotation(folder, chance)
    pattern = chance.choice(["app.log", "app.log*"])
    done = [pattern]
    with Job(store, folder / pattern, "format = 'json', settle = '2 seconds'") as job:
        # From its first checkpoint on a job knows what it follows.
        job.expect(range(rotation.next))
        for _ in range(6):
            how = chance.choice(HOW)
            done.append(how)
            with job.meanwhile(how):
                done += [rotation.step() for _ in range(chance.randrange(1, 5))]
        if not rotation.file.exists():
            rotation.append()
        print(done)
        print(*(f"{p.stat().st_ino} {p.stat().st_size} {p.name}" for p in sorted(folder.iterdir())), sep="\n")
        job.expect(range(rotation.next))
        assert job.dead() == [], done
        job.again()
