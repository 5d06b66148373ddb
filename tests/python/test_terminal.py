"""The shell in a window that is closed, resized, typed at ahead of time; and a server that goes and comes back."""

import os
import pathlib
import re
import signal
import time

import pytest
from conftest import BINARY, PATIENCE, Process, Server, run
from window import Window, connected, shell

# Runs until it is ended, on any machine.
LONG = "SELECT count(*) FROM generate_series(1, 3000000000000) AS long;"
# Long enough that keys come while it runs.
SHORT = "SELECT count(*) AS short FROM generate_series(1, 20000000) AS s;"


def answers(window, *names):
    """That each name has been the header of a result, in this order."""
    for name in names:
        window.expect(rf"^ +{name}\n[─┼]+\n.*\n\(1 row")


@pytest.mark.parametrize("enter", ["\r", "\n"])
def test_all_that_is_typed_ahead_runs_in_order(store, tmp_path, enter):
    with shell(store, tmp_path) as window:
        window.send(enter.join([SHORT, "SELECT 1 AS one;", "SELECT", "  2 AS two;", "\\timing off", "SELECT 3 AS three;", ""]))
        answers(window, "short", "one", "two")
        window.expect("timing is off")
        answers(window, "three")
        # what has no Enter yet is at the prompt, to be gone on with
        window.send(enter.join([SHORT, "SELECT 4 AS fo"]))
        answers(window, "short")
        window.expect("^millstream> SELECT 4 AS fo$")
        window.send(f"ur;{enter}")
        answers(window, "four")


@pytest.mark.parametrize("enter", ["\r", "\n"])
def test_what_is_pasted_without_brackets_runs_as_it_is(store, tmp_path, enter):
    with shell(store, tmp_path) as window:
        statements = ["SELECT", "\t\t'a text with white space' AS\ttext,", "\t1\tAS\tone;", *(f"SELECT {i} AS n{i};" for i in range(60)), ""]
        window.send(enter.join(statements))
        answers(window, "text +│ one", *(f"n{i}" for i in range(60)))
        window.expect("^millstream> *$")


def test_what_is_typed_before_the_shell_runs(store, tmp_path):
    with Window("/bin/sh", "-c", f"sleep 1; exec '{BINARY}' --store '{store}'", home=tmp_path) as window:
        window.send("SELECT 1 AS one;\rSELECT\r2 AS two;\r\\timing\rSELECT 3 AS thr")
        answers(window, "one", "two")
        window.expect("timing is off")
        window.expect("^millstream> SELECT 3 AS thr$")
        window.send("ee;\r")
        answers(window, "three")


def test_ctrl_c_takes_back_what_was_typed_ahead(store, tmp_path):
    with shell(store, tmp_path) as window:
        window.send(f"{LONG}\rCREATE STREAM unwanted (a INT);\r")
        window.expect("AS long;")
        time.sleep(0.5)
        window.send("\x03")
        window.expect("cancelled after")
        window.type("SHOW STREAMS;")
        window.expect(r"^\(0 rows")


@pytest.mark.parametrize("doing", ["quit", "told to end", "told to end while a statement runs"])
def test_the_terminal_is_given_back_as_it_was(store, tmp_path, doing):
    script = f"echo begin; read line; '{BINARY}' --store '{store}'; echo code $?; read line"
    with Window("/bin/sh", "-c", script, home=tmp_path) as window:
        window.expect("^begin")
        before = window.mode()
        window.send("\r")
        window.expect("^millstream> *$")
        assert window.mode() != before
        if doing == "quit":
            window.type("\\q")
            window.expect("^code 0")
        else:
            if "statement" in doing:
                window.type(LONG)
                window.expect("AS long;")
            children = pathlib.Path(f"/proc/{window.pid}/task/{window.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            window.expect("^code 143")
        assert window.mode() == before


@pytest.mark.parametrize("hup", ["heard", "ignored"])
@pytest.mark.parametrize("doing", ["at the prompt", "typing", "running a statement", "following", "watching"])
def test_it_ends_when_its_terminal_goes(store, tmp_path, doing, hup):
    """Some are told by a signal, some are not."""
    run(store, "CREATE STREAM given (n INT); CREATE STREAM doubled AS SELECT n * 2 AS n FROM given; INSERT INTO given VALUES (21);")
    prelude = "trap '' HUP; " if hup == "ignored" else ""
    with Window("/bin/sh", "-c", f"{prelude}exec '{BINARY}' --store '{store}'", home=tmp_path) as window:
        window.expect("^millstream> *$")
        match doing:
            case "typing":
                window.send("SELECT 1,")
                window.expect("SELECT 1,")
            case "running a statement":
                window.type(LONG)
                window.expect("AS long;")
            case "following":
                window.type("SELECT n FROM doubled EMIT CHANGES;")
                window.expect("42")
            case "watching":
                window.type("\\watch SELECT n FROM doubled")
                window.expect("42")
        window.close_terminal()
        assert window.end() == 129
    # in good order: nobody holds the store, and nothing is lost
    assert run(store, "SELECT n FROM doubled;").stdout.split()[-1] == "42"


@pytest.mark.parametrize("doing", ["at the prompt", "running a statement", "following", "watching"])
def test_it_ends_when_it_is_told_to(store, tmp_path, doing):
    run(store, "CREATE STREAM given (n INT); INSERT INTO given VALUES (42);")
    with shell(store, tmp_path) as window:
        match doing:
            case "running a statement":
                window.type(LONG)
                window.expect("AS long;")
            case "following":
                window.type("SELECT n FROM given EMIT CHANGES;")
                window.expect("42")
            case "watching":
                window.type("\\watch SELECT n FROM given")
                window.expect("42")
        window.kill(signal.SIGTERM)
        assert window.end() == 143
        assert "1 running job goes on" in window.text


def test_a_window_that_is_resized(store, tmp_path):
    run(store, "CREATE STREAM wide (first TEXT, second TEXT, third TEXT); INSERT INTO wide VALUES ('a', 'b', 'c');")
    with shell(store, tmp_path) as window:
        window.send("SELECT 'typed before' AS word,")
        window.expect("word,$")
        window.resize(24, 60)
        window.send(" 1 AS one;")
        window.expect("AS one;")
        window.send("\r")
        window.expect(r"typed before │ +1")
        # a result is as wide as the window is now
        window.type("SELECT repeat('x', 200) AS x;")
        window.expect(r"^\(1 row")
        window.resize(30, 100)
        window.type("\\watch SELECT * FROM wide")
        window.expect(r"^ a +│ b +│ c")
        window.resize(15, 40)
        window.type("")
        time.sleep(0.5)
        window.send("\x03")
        window.expect("changes")
        window.type("SELECT 'as good as before' AS word;")
        window.expect(r"^ as good as before$")


def test_closing_says_what_it_waits_for(store, tmp_path):
    with shell(store, tmp_path) as window:
        window.type("CREATE STREAM bid WITH (connector = 'nexmark', table = 'bid');")
        for i in range(3):
            window.type(f"CREATE STREAM s{i} AS SELECT bidder, count(*) AS n, sum(price) AS total FROM bid GROUP BY bidder;")
        window.expect(r"(?s)(CREATE STREAM \(.*){4}")
        time.sleep(2)
        window.type("\\q")
        begun = time.monotonic()
        goes_on = True
        while goes_on and time.monotonic() - begun < 1.5:
            goes_on = window.pump()
        assert not goes_on or "closing: waiting for 3 jobs to commit; Ctrl-C leaves at once" in window.text
        if goes_on:
            window.send("\x03")
        assert window.end() in (0, 130)
    # it goes on from its last commit
    with shell(store, tmp_path) as window:
        window.type("\\dj")
        window.expect(r"s2 +│ running")


def test_a_server_that_fails_a_job_goes_and_comes_back(store, tmp_path):
    file = tmp_path / "lines.json"
    file.write_text('{"id": 1}\n')
    server = Server(store)
    with server, connected(server.address, tmp_path, size=(40, 400)) as window:
        options = f"connector = 'file', format = 'json', path = '{file}', follow = true, on_error = 'fail'"
        window.type(f"CREATE STREAM lines (id BIGINT) WITH ({options});")
        window.expect(r"^CREATE STREAM \(")
        window.type("CREATE STREAM kept AS SELECT id FROM lines;")
        window.expect(r"^CREATE STREAM \(")
        window.type("CREATE STREAM counted AS SELECT count(*) AS n FROM kept;")
        window.expect(r"^CREATE STREAM \(")
        window.type("SET parallelism = 1;")
        window.expect(r"^SET")
        window.type("FLUSH;")
        window.expect(r"^FLUSH \(")
        with open(file, "a") as out:
            out.write("nonsense\n")
        # somebody who sits at the prompt is told
        window.expect(r'^notice: the job of stream "kept" has stopped: .*nonsense')
        window.expect("^RESUME STREAM kept tries again")
        # and so is who reads it, also from further on
        for stream, row in (("kept", "id\n─+\n +1"), ("counted", "n\n─+\n +1")):
            window.type(f"SELECT * FROM {stream};")
            window.expect(rf'{row}\n(?s:.)*notice: stream "kept" has failed, what came since is missing: ')
            window.expect(r"^\(1 row")
        window.type("\\ds")
        window.expect(r"^ parallelism +│ +1")

        window.type("SELECT * FROM kept EMIT CHANGES;")
        window.expect(r"^ +1$")
        server.kill()
        window.expect(rf'^error: the server at "grpc://{re.escape(server.address)}" has gone')
        window.expect("^notice: the server at .* has gone; the shell connects again when it is back")
        window.type("SELECT 1 AS nobody_there;")
        window.expect(rf'^error: no server answers at "grpc://{re.escape(server.address)}": .*refused')
        assert "h2" not in window.text

        with Server(store, listen=server.address) as again:
            window.expect("^notice: the server at .* is back")
            window.type("SELECT id + 41 AS answer FROM kept;")
            window.expect("^ +42$")
            # what was set is set again
            window.type("SHOW parallelism;")
            window.expect("^ +1$|│ +1 ")
            again.kill()
            window.expect("^notice: the server at .* has gone")
            window.send("\x04")
            assert window.end() == 0


def test_a_script_on_a_server_is_told_of_failures(server, tmp_path):
    file = tmp_path / "lines.json"
    file.write_text('{"id": 1}\nnonsense\n')
    address = f"grpc://{server.address}"
    options = f"connector = 'file', format = 'json', path = '{file}', follow = true, on_error = 'fail'"
    made = f"CREATE STREAM bad_lines (id BIGINT) WITH ({options}); CREATE STREAM bad_kept AS SELECT id FROM bad_lines"
    with Process("shell", "--connect", address, "-c", made) as process:
        process.wait()
    with Process("shell", "--connect", address, "-c", "SELECT count(*) FROM bad_kept") as process:
        process.wait(PATIENCE)
        assert 'stream "bad_kept" has failed' in process.stderr
    for name in ("bad_kept", "bad_lines"):
        with Process("shell", "--connect", address, "-c", f"DROP STREAM {name}") as process:
            process.wait()
