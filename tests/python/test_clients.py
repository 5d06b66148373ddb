"""Clients that nobody here wrote: a browser, curl, DuckDB, ADBC with TLS and a token."""

import json
import os
import pathlib
import subprocess
import sys
import time

import adbc_driver_manager
import pytest
from browser import page
from test_doors import PASSWORD, Guarded
from test_http import HttpServer

PATIENCE = 60
# DuckDB of the version that its extension for HTTP is there for.
HTTPFS = pathlib.Path(sys.prefix) / "httpfs"

# Puts whole epochs together, as docs/http.md says.
FOLLOW = """
    var rows = [], open = [], last = "", breaks = 0;
    const source = new EventSource("/streams/s/changes?where=n%20%25%202%20%3D%200");
    source.onmessage = event => {
        open.push(JSON.parse(event.data).n);
        if (event.lastEventId !== last) {
            rows.push(...open);
            [open, last] = [[], event.lastEventId];
        }
    };
    source.onerror = () => { open = []; breaks += 1; };
"""


def eventually(check):
    deadline = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_a_browser_comes_back_by_itself_and_sees_each_row_once(tmp_path):
    store, often = tmp_path / "store", ("--checkpoint-interval", "20ms")
    server = HttpServer(store, *often)
    try:
        server.sql("CREATE STREAM s (n BIGINT)")
        with page(tmp_path / "profile", f"http://127.0.0.1:{server.port}/healthz") as run:
            eventually(lambda: run("location.pathname") == "/healthz")
            run(FOLLOW)
            for kill in range(4):
                # Some come while it looks, some while it is away.
                first = 2000 * kill
                server.post("s", [{"n": n} for n in range(first, first + 1000)])
                eventually(lambda: run("rows.length") >= (first + 1000) // 2)
                breaks = run("breaks")
                server.kill()
                eventually(lambda: run("breaks") > breaks)
                server = HttpServer(store, *often, http=f"127.0.0.1:{server.port}")
                server.post("s", [{"n": n} for n in range(first + 1000, first + 2000)])
            eventually(lambda: run("rows.length") >= 4000)
            time.sleep(1.5)
            assert run("source.readyState") == 1, "it is connected"
            assert sorted(run("rows")) == list(range(0, 8000, 2)) and run("open.length") == 0
            assert server.stop() == 0
    finally:
        server.__exit__()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Guarded(tmp_path_factory.mktemp("clients")) as guarded:
        guarded.run("CREATE STREAM s (n BIGINT, t TEXT)")
        guarded.run("INSERT INTO s SELECT value, 'x,' || value FROM generate_series(1, 100000)")
        yield guarded
        assert guarded.server.stop() == 0, guarded.server.stderr


def test_adbc_with_tls_and_a_token(guarded):
    for token in [guarded.token(), guarded.issuer.token("admin")]:
        login = {"adbc.flight.sql.authorization_header": f"Bearer {token}"}
        with guarded.adbc(user=None, **login) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), sum(n) FROM s WHERE n > ?", (1,))
            assert cursor.fetchall() == [(99_999, 5_000_049_999)]
    login = {"adbc.flight.sql.authorization_header": f"Bearer {guarded.foreign.token('admin')}"}
    with pytest.raises(adbc_driver_manager.Error, match="the token is not valid"):
        guarded.run("SELECT 1", user=None, **login)


def test_curl(guarded, tmp_path):
    def curl(*args, fails=False):
        command = ["curl", "-sS", "--max-time", "60", "--cacert", guarded.authority.cert, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stdout

    site, login = f"https://localhost:{guarded.web}", ("-u", f"admin:{PASSWORD}")
    curl(*login, "-d", "CREATE STREAM visits (page TEXT, ms BIGINT)", f"{site}/sql")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"page": "/", "ms": 12}, {"page": "/a", "ms": 7}]))
    put = (*login, "-H", "Content-Type: application/json", "-H", "Idempotency-Key: 7f3a", "--data-binary", f"@{rows}", f"{site}/streams/visits")
    assert [json.loads(curl(*put))["repeated"] for _ in range(2)] == [False, True]
    assert curl(*login, f"{site}/streams/visits?where=ms%3E10&format=csv") == "page,ms\n/,12\n"
    followed = curl(*login, "-N", "--max-time", "3", f"{site}/streams/visits/changes", fails=True)
    assert [json.loads(line[6:])["ms"] for line in followed.splitlines() if line.startswith("data: ")] == [12, 7]
    assert "needs a user name" in curl(f"{site}/streams/visits")
    assert curl("--cacert", guarded.other.cert, *login, f"{site}/streams/visits", fails=True) == ""


DUCKDB = """
import json, pathlib, sys
import duckdb, duckdb_extension_httpfs
site, ca, token = sys.argv[1:]
connection = duckdb.connect()
(extension,) = pathlib.Path(duckdb_extension_httpfs.__file__).parent.glob("extensions/*/httpfs.duckdb_extension")
connection.load_extension(str(extension))
connection.execute(f"SET enable_server_cert_verification = true; SET ca_cert_file = '{ca}'; SET http_retries = 0")
connection.execute(f"CREATE SECRET (TYPE http, BEARER_TOKEN '{token}')")
for sql in sys.stdin.read().split(";"):
    print(json.dumps(connection.execute(sql.replace("SITE", site)).fetchall()))
"""


def test_duckdb_reads_streams_over_https(guarded):
    assert (HTTPFS / "duckdb_extension_httpfs").exists(), f"there is no DuckDB with httpfs in {HTTPFS}: tests/run.sh installs it"

    def ask(*statements, token=guarded.token(), ca=guarded.authority):
        command = [sys.executable, "-c", DUCKDB, f"https://localhost:{guarded.web}", ca.cert, token]
        env = {**os.environ, "PYTHONPATH": str(HTTPFS)}
        done = subprocess.run(command, input=";".join(statements), env=env, capture_output=True, text=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    answers, said = ask(
        "SELECT count(*), sum(n)::BIGINT, min(t) FROM read_csv('SITE/streams/s?format=csv')",
        "SELECT n, t FROM read_csv('SITE/streams/s?format=csv&where=n%3C3') ORDER BY n",
        "SELECT count(*), sum(n)::BIGINT FROM read_json('SITE/streams/s?format=ndjson')",
        "SELECT n, t FROM read_json('SITE/streams/s?limit=1&where=n%3D7')",
    )
    assert answers == [[[100_000, 5_000_050_000, "x,1"]], [[1, "x,1"], [2, "x,2"]], [[100_000, 5_000_050_000]], [[7, "x,7"]]], said
    for wrong, word in [({"token": "forged"}, "HTTP Error"), ({"ca": guarded.other}, "certificate")]:
        answers, said = ask("SELECT count(*) FROM read_csv('SITE/streams/s?format=csv')", **wrong)
        assert answers == [] and word in said, said
