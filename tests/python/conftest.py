"""The binary, and the processes that the tests start with it: servers, scripts, temporary stores."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import duckdb
import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 30


def find_binary():
    named = os.environ.get("MILLSTREAM_BINARY")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    binary = pathlib.Path(named) if named else target / "release" / "millstream"
    if not binary.exists():
        pytest.exit(f"there is no {binary}: run `cargo build --release --workspace` first", returncode=2)
    return str(binary)


BINARY = find_binary()


class Process:
    """A running millstream whose output is read in the background, line by line."""

    def __init__(self, *args, stdin=None, before=(), **options):
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*before, BINARY, *map(str, args)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.lines = {"stdout": [], "stderr": []}
        self.grown = threading.Condition()
        self.readers = [threading.Thread(target=self._read, args=(which,), daemon=True) for which in self.lines]
        for reader in self.readers:
            reader.start()

    def _read(self, which):
        for line in getattr(self.process, which):
            with self.grown:
                self.lines[which].append(line.rstrip("\n"))
                self.grown.notify_all()

    @property
    def stdout(self):
        return "\n".join(self.lines["stdout"])

    @property
    def stderr(self):
        return "\n".join(self.lines["stderr"])

    def wait_for(self, pattern, which="stdout", patience=PATIENCE):
        """The first match of `pattern` in a line of output."""
        deadline = time.monotonic() + patience
        seen = 0
        with self.grown:
            while True:
                for line in self.lines[which][seen:]:
                    if match := re.search(pattern, line):
                        return match
                seen = len(self.lines[which])
                left = deadline - time.monotonic()
                ended = self.process.poll() is not None and not any(r.is_alive() for r in self.readers)
                assert left > 0 and not ended, f"no {pattern!r} in {which}:\n{self.stdout}\n{self.stderr}"
                self.grown.wait(min(left, 0.05))

    def kill(self):
        """As `kill -9` does."""
        self.process.kill()
        return self.wait()

    def stop(self):
        """Asks it to end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, patience=PATIENCE):
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running after {patience} s:\n{self.stdout}\n{self.stderr}") from None
        for reader in self.readers:
            reader.join(PATIENCE)
        assert "panicked" not in self.stderr, self.stderr
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


class Beside(threading.Thread):
    """Takes one `step` after the other beside a test, until it is told to end; what goes wrong in it is told then."""

    def __init__(self):
        super().__init__(daemon=True)
        self.going, self.wrong = True, None

    def run(self):
        try:
            while self.going:
                self.step()
        except Exception as e:  # told to the test, which looks at it
            self.wrong = e

    def end(self, patience=PATIENCE):
        self.going = False
        self.join(patience)
        assert not self.is_alive() and self.wrong is None, self.wrong


class Server(Process):
    """`millstream serve` on a free port."""

    def __init__(self, store, *args, listen="127.0.0.1:0", files="/", **options):
        reach = ["--files", files] if files else []
        super().__init__("serve", "--store", store, "--listen", listen, *reach, *args, **options)
        self.store = pathlib.Path(store)
        self.address = self.wait_for(r"on grpc(?:\+tls)?://(\S+)", "stderr").group(1)

    def connect(self, **options):
        import adbc_driver_flightsql.dbapi as flightsql

        return flightsql.connect(f"grpc://{self.address}", db_kwargs=options or None, autocommit=True)


def run(store, sql, *args, patience=120, ok=True, **options):
    """Runs a script to its end."""
    with Process("run", "-", "--store", store, *args, stdin=subprocess.PIPE, **options) as process:
        process.process.stdin.write(sql)
        process.process.stdin.close()
        code = process.wait(patience)
        if ok:
            assert code == 0, process.stderr
        else:
            assert code == 1, (code, process.stdout, process.stderr)
        return process


def start(store, path, sql, *args):
    """Starts a script that may run for long; its text is kept at `path`."""
    pathlib.Path(path).write_text(sql)
    return Process("run", path, "--store", store, *args)


def run_through_kills(file, args, store, seen, chance, kills=4):
    """Runs the script `file` through kills, of which the first comes once stream `seen` has kept something, then to its end."""
    for life in range(kills):
        with Process("run", file, *args) as process:
            until = time.monotonic() + PATIENCE
            while life == 0 and not list((store / "streams" / seen).glob("*.parquet")):
                assert time.monotonic() < until and process.process.poll() is None, process.stderr
                time.sleep(0.02)
            time.sleep(chance.uniform(0.1, 0.5))
            assert process.process.poll() is None, "the job has to outlive the kills"
            process.kill()
    with Process("run", file, *args) as process:
        assert process.wait(60) == 0, process.stderr


def parquet(store, stream):
    """The pattern that DuckDB reads a stream's files with."""
    return f"{pathlib.Path(store)}/streams/{stream}/*.parquet"


def duck(sql, *parameters):
    """DuckDB's answer, as rows."""
    with duckdb.connect() as connection:
        return connection.execute(sql, parameters).fetchall()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for the tests that need nothing special."""
    with Server(tmp_path_factory.mktemp("served") / "store") as server:
        yield server
        assert server.stop() == 0, server.stderr
