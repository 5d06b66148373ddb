"""The shell as somebody at a terminal has it."""

import re
import signal
import statistics
import subprocess
import time

import pexpect
import pytest
from conftest import BINARY
from window import Answering

PATIENCE = 15
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[78]")


class Terminal(Answering):
    """The shell in a terminal of 40 lines that tells where its cursor is when asked."""

    patience = PATIENCE

    def __init__(self, store, home):
        environment = {"TERM": "xterm", "PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_STATE_HOME": str(home), "LANG": "C.UTF-8"}
        self.child = pexpect.spawn(
            BINARY, ["--store", str(store)], encoding="utf-8", timeout=PATIENCE, dimensions=(40, 160), env=environment
        )
        self.raw = ""
        self.read_to = 0

    def pump(self, seconds):
        try:
            some = self.child.read_nonblocking(65_536, timeout=seconds)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += some
        for _ in range(some.count("\x1b[6n")):
            self.child.send("\x1b[1;1R")
        return True

    @property
    def text(self):
        return ESCAPES.sub("", self.raw).replace("\r", "")

    def send(self, keys):
        self.child.send(keys)

    def end(self):
        """Waits for the end of the process and gives its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self.pump(0.05):
            assert time.monotonic() < deadline, f"still there: {self.text[self.read_to:]!r}"
        self.child.close()
        assert "panicked" not in self.text
        return self.child.exitstatus


@pytest.fixture
def terminal(store, tmp_path):
    terminal = Terminal(store, tmp_path)
    yield terminal
    terminal.child.close(force=True)
    assert "panicked" not in terminal.text


def test_a_conversation(terminal, store):
    terminal.expect(r"millstream 0\.\d+\.\d+: 0 streams, 0 jobs")
    terminal.expect(re.escape(str(store)) + r"; \\\? for help")
    terminal.expect("millstream> ")
    terminal.type("SELECT 6 * 7 AS answer;")
    terminal.expect(r"answer\n─+\n +42\n\(1 row")

    terminal.type("CREATE STREAM readings (sensor TEXT, value DOUBLE);")
    terminal.expect("CREATE STREAM")
    terminal.type("INSERT INTO readings VALUES ('a', 1.5), ('b', 2.5);")
    terminal.expect("INSERT 2")
    terminal.type("CREATE STREAM means AS SELECT sensor, avg(value) AS mean FROM readings GROUP BY sensor;")
    terminal.expect("CREATE STREAM")

    terminal.type("\\d")
    listed = terminal.expect(r"means.*\n(.*\n)*?.*readings").group(0)
    assert "derived" in listed.lower(), listed
    terminal.type("\\d readings")
    terminal.expect(r"sensor .*\n.*value ")
    terminal.type("\\q")
    assert terminal.end() == 0


def test_an_error_points_at_the_place(terminal):
    terminal.expect("millstream> ")
    terminal.type("SELECT 1 + nothing FROM nowhere;")
    terminal.expect(r"error: .*nowhere")
    shown = terminal.expect(r" *LINE 1: .*\n *\^")
    line, caret = shown.group(0).split("\n")[:2]
    assert line[caret.index("^") :].startswith("nowhere"), shown.group(0)
    terminal.type("SELECT 'as good as before' AS is;")
    terminal.expect("as good as before")
    terminal.expect("1 row")


def test_ctrl_c_ends_the_query_and_not_the_shell(terminal):
    terminal.expect("millstream> ")
    terminal.type("CREATE STREAM bids WITH (connector = 'nexmark', table = 'bid', pace = 200);")
    terminal.expect("CREATE STREAM")
    terminal.type("SELECT auction, price FROM bids EMIT CHANGES;")
    terminal.expect(r"auction")
    terminal.expect(r"\d+ │ +\d+")
    terminal.child.sendintr()
    terminal.expect(r"\(.*changes?")
    terminal.type("SELECT 'still here' AS note;")
    terminal.expect(r"still here *\n\(1 row")
    # at the prompt it only drops what is typed
    terminal.child.send("SELECT oops")
    terminal.expect("SELECT oops")
    terminal.child.send("\x03")
    terminal.type("SELECT 'and here' AS note;")
    terminal.expect(r"and here *\n\(1 row")
    terminal.child.send("\x04")
    assert terminal.end() == 0


def test_a_job_that_fails_is_noticed(terminal, tmp_path):
    terminal.expect("millstream> ")
    file = tmp_path / "lines.json"
    file.write_text('{"id": 1}\n')
    options = f"connector = 'file', format = 'json', path = '{file}', follow = true, on_error = 'fail'"
    terminal.type(f"CREATE STREAM lines (id BIGINT) WITH ({options});")
    terminal.expect("CREATE STREAM")
    terminal.type("CREATE STREAM kept AS SELECT * FROM lines;")
    terminal.expect("CREATE STREAM")
    with open(file, "a") as out:
        out.write("nonsense\n")
    terminal.expect(r'notice: the job of stream "kept" has stopped: .*nonsense')
    terminal.expect("RESUME STREAM kept")
    terminal.type("\\dj")
    terminal.expect(r"kept.*failed")


def test_streams_go_on_when_the_shell_is_opened_again(terminal, store, tmp_path):
    terminal.expect("millstream> ")
    terminal.type("CREATE STREAM bids WITH (connector = 'nexmark', table = 'bid', pace = 1000);")
    terminal.expect("CREATE STREAM")
    terminal.type("CREATE STREAM kept AS SELECT auction FROM bids;")
    terminal.expect("CREATE STREAM")
    time.sleep(1.5)
    terminal.type("SELECT count(*) > 0 AS there FROM kept;")
    terminal.expect("true")
    terminal.child.kill(signal.SIGTERM)
    terminal.expect("1 running job")
    terminal.end()
    again = Terminal(store, tmp_path)
    again.expect("2 streams, 1 job")
    again.expect("millstream> ")
    again.type("\\dj")
    again.expect(r"kept.*running")
    again.type("exit")
    assert again.end() == 0


def test_a_look_leaves_no_store(tmp_path):
    def look(store, *sql):
        commands = [word for statement in sql for word in ("-c", statement)]
        done = subprocess.run([BINARY, "--store", store, *commands], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    look(tmp_path / "a" / "b", "SELECT 1", "SHOW STREAMS")
    assert list(tmp_path.iterdir()) == []
    # a folder that was there stays, as it was
    (tmp_path / "empty").mkdir()
    look(tmp_path / "empty", "SELECT 1")
    assert list((tmp_path / "empty").iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("mine")
    look(tmp_path / "mine", "SELECT 1")
    assert [file.name for file in (tmp_path / "mine").iterdir() if file.name != "LOCK"] == ["note.txt"]
    # and so does a store in which something was made, also when it is gone again
    look(tmp_path / "store", "CREATE VIEW one AS SELECT 1 AS one")
    look(tmp_path / "store", "SELECT one FROM one", "DROP VIEW one")
    look(tmp_path / "store", "SELECT 1")
    assert (tmp_path / "store" / "catalog").is_dir()


def test_idle_splits_are_said_to_be_idle(terminal, tmp_path):
    file = tmp_path / "lines.json"
    file.write_text('{"at": "2026-01-01 00:00:00"}\n')
    terminal.expect("millstream> ")
    options = f"connector = 'file', path = '{file}', follow = true, idle_timeout = '100 ms'"
    terminal.type(f"CREATE STREAM lines (at TIMESTAMP, WATERMARK FOR at AS at) WITH ({options});")
    terminal.expect("CREATE STREAM")
    terminal.type("CREATE STREAM days AS SELECT window_end, count(*) AS n FROM TUMBLE(lines, at, INTERVAL '1 day') GROUP BY window_end;")
    terminal.expect("CREATE STREAM")
    time.sleep(1)
    terminal.type("EXPLAIN ANALYZE STREAM days;")
    terminal.expect(r'watermark: 2026-01-01 00:00:00, all splits of stream "lines" are idle')


def test_it_starts_at_once(store):
    """Prints the median; a machine under load makes it slower, so the bound is wide."""
    took = []
    for _ in range(7):
        begun = time.monotonic()
        subprocess.run([BINARY, "--store", store, "-c", "SELECT 1"], check=True, capture_output=True)
        took.append(time.monotonic() - begun)
    print(f"start to end of a statement: {statistics.median(took) * 1000:.0f} ms")
    assert statistics.median(took) < 2
