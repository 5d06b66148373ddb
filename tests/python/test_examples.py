"""The examples, as they are built: each runs and prints what it is about."""

import datetime
import decimal
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import BINARY, REPO

EXPECTED = {
    "windows": ["| 2015-07-15T00:00:02 | 18400 | 99971529 |", "| 2015-07-15T00:00:10 | 18400 | 99979401 |"],
    "changes": ["| +I  | tea    | 2     |", "| +I  | coffee | 1     |", "| -U  | tea    | 2     |", "| +U  | coffee | 2     |"],
    "lookup": ["| 1  | tea    | 7.00 |", "| 2  | coffee |      |", "| 3  | tea    | 3.80 |"],
    "enrich": ["| +I  | 1  | tea    |      |", "| -D  | 1  | tea  |      |", "| +I  | 1  | tea  | 7.00 |", "| +I  | 1  | tea    | 7.60 |"],
    "ingest": ["3 rows went in", "| hall   | 20.5  |", "| roof   | 29.0  |"],
    "export": ["95 lines of JSON", "113 rows of Parquet"],
    "connector": ["| 20          |", "20 bells were told"],
    "source": ["| +I  | 0    | 34      | 1683  |", "| +I  | 1    | 33      | 1617  |", "| +I  | 2    | 33      | 1650  |"],
}


def test_all_examples_are_run():
    found = (REPO / "examples" / "examples").iterdir()
    assert {path.stem for path in found} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name, tmp_path):
    binary = pathlib.Path(BINARY).parent / "examples" / name
    assert binary.exists(), f"there is no {binary}: run `cargo build --release --workspace --all-targets` first"
    done = subprocess.run([binary], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in EXPECTED[name]:
        assert line in lines, done.stdout
    assert not list(tmp_path.iterdir()), "it left files behind"

def test_a_live_feed(tmp_path):
    """The feed is followed to its end, and each second of it is what the file says."""
    folder = REPO / "examples" / "live"
    environment = {**os.environ, "MILLSTREAM": BINARY, "TMPDIR": str(tmp_path)}
    done = subprocess.run([folder / "run.sh", "5"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the feed has ended" and "WARN" not in done.stderr, done.stderr
    found = re.findall(r"^ (\S+) +│ (.{19}) │ +(\d+) │ +(\S+) │ +(\S+) │ #+$", done.stdout, re.MULTILINE)
    trades = [json.loads(line) for line in (folder / "trades.jsonl").read_text().splitlines()]
    seconds = {}
    # The last trade ends the second before it.
    for trade in trades[:-1]:
        if trade["s"] in ("BTC-USD", "ETH-USD"):
            seconds.setdefault((trade["s"], trade["t"] // 1000 + 1), []).append(decimal.Decimal(trade["p"]))
    time = lambda second: datetime.datetime.fromtimestamp(second, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    expected = {(s, time(t), str(len(p)), str(min(p)), str(max(p))) for (s, t), p in seconds.items()}
    assert len(found) == len(expected) and set(found) == expected
    assert not list(tmp_path.iterdir()), "it left files behind"


def test_two_sites(tmp_path):
    """What site B has is what was sent to site A, though B is killed in the middle."""
    done = subprocess.run(
        ["bash", REPO / "examples" / "two_sites" / "run.sh", "2000"],
        cwd=tmp_path, env={**os.environ, "MILLSTREAM": BINARY}, capture_output=True, text=True, timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = "all 2000 requests arrived once, and the counts are those of the same query in batch"
    assert done.stdout.splitlines()[-1] == last, done.stdout


def test_a_table_is_followed(tmp_path):
    """A row moves between groups, one goes, one cannot be read; what goes out comes in again."""
    folder = REPO / "examples" / "cdc"
    environment = {**os.environ, "MILLSTREAM": BINARY, "TMPDIR": str(tmp_path)}
    done = subprocess.run([folder / "run.sh"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if re.match(r" (ann|cat|bob) ", line)]
    ann = ["ann", "│", "1", "│", "7.25", "│", "2026-01-01", "09:02:00.100"]
    cat = ["cat", "│", "1", "│", "75.00", "│", "2026-01-01", "09:03:00.100"]
    assert rows == [ann, cat] * 2, done.stdout
    assert 'spent  │    7 │ column "amount": "many" is not a DECIMAL(10, 2)' in done.stdout, done.stdout
    assert not list(tmp_path.iterdir()), "it left files behind"


def test_a_cluster(tmp_path):
    """Nodes over one bucket are lost, and the result is what it would be without."""
    environment = {**os.environ, "MILLSTREAM": BINARY, "PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    script = REPO / "examples" / "cluster" / "run.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "all totals are those of the same query in batch", done.stdout
    assert not list(tmp_path.iterdir()), "it left files behind"


def test_a_node_as_a_service_and_as_a_container(tmp_path):
    """What is written for systemd and for containers is what they understand."""
    folder = REPO / "examples" / "cluster"
    unit = tmp_path / "millstream.service"
    unit.write_text((folder / "millstream.service").read_text().replace("/usr/local/bin/millstream", BINARY))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    lint = REPO / ".venv" / "azurite" / "node_modules" / ".bin" / "dockerfilelint"
    done = subprocess.run([lint, folder / "Containerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Issues: None" in done.stdout, done.stdout + done.stderr
