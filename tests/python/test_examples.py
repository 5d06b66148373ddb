"""The examples, as they are built: each runs and prints what it is about."""

import pathlib
import subprocess

import pytest
from conftest import BINARY, REPO

EXPECTED = {
    "windows": ["| 2015-07-15T00:00:02 | 18400 | 99971529 |", "| 2015-07-15T00:00:10 | 18400 | 99979401 |"],
    "changes": ["| +I  | tea    | 2     |", "| +I  | coffee | 1     |", "| -U  | tea    | 2     |", "| +U  | coffee | 2     |"],
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
