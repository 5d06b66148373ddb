"""The README's tour: its blocks are run in order, and what it shows is what comes out.

A block is run when its fence says so: ```sql tour or ```sh tour. SQL between two shell blocks is one run of the shell,
as for a reader who types it. A ```text tour block behind a block is its output: the same lines, but for the length of
rules and runs of blanks; … stands for any text. With the word `unordered` the lines may come in any order.
"""

import pathlib
import re
import socket
import subprocess
import sys

from conftest import BINARY, REPO

README = REPO / "README.md"
FENCE = re.compile(r"^```(\w+) tour( unordered)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "-- end of a block --"


def blocks(text):
    """(language, source, expected, unordered) of each block that is run."""
    found = []
    for language, unordered, body in FENCE.findall(text):
        if language == "text":
            assert found and found[-1][2] is None, f"output of no block:\n{body}"
            found[-1][2:] = [body, bool(unordered)]
        else:
            assert language in ("sql", "sh"), language
            found.append([language, body, None, False])
    return found


def plain(line):
    """A line without what depends on the width of other lines."""
    return " ".join(re.sub("─+", "─", line).split())


def matches(expected, actual):
    return re.fullmatch(".*".join(map(re.escape, plain(expected).split("…"))), plain(actual)) is not None


def check(expected, unordered, actual):
    wanted, got = ([line for line in text.splitlines() if line.strip()] for text in (expected, actual))
    if unordered:
        wanted, got = sorted(wanted, key=plain), sorted(got, key=plain)
    same = len(wanted) == len(got) and all(map(matches, wanted, got))
    assert same, f"the README shows\n{expected}\nand it is\n{actual}"


def run(command, folder, **options):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_sql(sources, folder):
    """The outputs of blocks of SQL that are typed into one shell."""
    script = "".join(f"{source}\nSELECT '{MARK}' AS mark;\n" for source in sources)
    out = run([BINARY, "--store", "shop", "--parallelism", "2"], folder, input=script)
    outputs = re.split(rf"^ mark *\n─+\n {re.escape(MARK)} *\n", out, flags=re.MULTILINE)
    assert len(outputs) == len(sources) + 1 and not outputs.pop(), out
    return outputs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_sh(source, folder):
    """A shell block, with the interpreter and the packages of these tests, and a port of its own."""
    source = re.sub(r"^python3 -m venv env && .*\n", "", source, flags=re.MULTILINE)
    port = str(free_port())
    source = source.replace("millstream serve", f"millstream serve --listen 127.0.0.1:{port}").replace("31337", port)
    path = f"{pathlib.Path(BINARY).parent}:/usr/bin:/bin"
    return run(["bash", "-c", f"set -e\n{source}"], folder, env={"PATH": path, "HOME": str(folder)})


def test_every_line_of_the_tour(tmp_path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    python = tmp_path / "env" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    tour = blocks(README.read_text())
    assert len(tour) >= 10
    at = 0
    while at < len(tour):
        end = at + 1
        if tour[at][0] == "sql":
            while end < len(tour) and tour[end][0] == "sql":
                end += 1
            outputs = run_sql([source for _, source, _, _ in tour[at:end]], tmp_path)
        else:
            outputs = [run_sh(tour[at][1], tmp_path)]
        for (_, source, expected, unordered), output in zip(tour[at:end], outputs, strict=True):
            print(f"{source}\n{output}")
            if expected is None:
                assert not output.strip(), f"the README does not show\n{output}"
            else:
                check(expected, unordered, output)
        at = end


def test_links_lead_somewhere():
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        text = (REPO / name).read_text()
        heads = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            file, _, head = target.partition("#")
            assert not file or (REPO / file).exists(), f"{name}: {target}"
            assert not head or file or head in heads, f"{name}: {target}"


def test_commands_of_the_readme_exist():
    text = README.read_text()
    listed = re.search(r"lists the commands: (.*?)\.\n", text, re.S).group(1)
    help_text = run([BINARY, "--help"], REPO)
    commands = set(re.findall(r"^  (\w+)  ", help_text.split("Commands:")[1].split("Options:")[0], re.M)) - {"help"}
    assert set(re.findall(r"`(\w+)`", listed)) == commands
    assert (REPO / "tests" / "run.sh").exists()


def known_options(with_text, folder):
    """The options that the hint of an unknown one lists."""
    done = subprocess.run(
        [BINARY, "--store", "options", "-c", f"CREATE STREAM s {with_text}"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout
    return set(re.search(r"hint: .*[Ii]ts options are: (.*)\.$", done.stderr, re.M).group(1).split(", "))


def listed_options(heading):
    """The options in the table that follows `heading`."""
    text = README.read_text()
    table = text[text.index(heading) :].split("|---|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return {name for row in table.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_options_are_those_of_the_code(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    text_options = listed_options("**Options of text formats**")
    read = known_options("(a INT) WITH (connector = 'file', path = 'a.csv', nope = 1)", tmp_path)
    assert read == listed_options("**`file`, read.**") | text_options
    query = "AS SELECT a FROM src"
    setup = "CREATE STREAM src (a INT) WITH (connector = 'file', path = 'a.csv')"
    subprocess.run([BINARY, "--store", "options", "-c", setup], cwd=tmp_path, check=True, capture_output=True)
    written = known_options(f"WITH (connector = 'file', path = 'out.csv', nope = 1) {query}", tmp_path)
    assert written == listed_options("**`file`, written.**") | text_options
    stdin = known_options("(a INT) WITH (connector = 'stdin', format = 'csv', nope = 1)", tmp_path)
    assert stdin == {"format", "changes", "on_error"} | text_options
    stdout = known_options(f"WITH (connector = 'stdout', format = 'csv', nope = 1) {query}", tmp_path)
    assert stdout == {"format"} | text_options
    nexmark = known_options("WITH (connector = 'nexmark', nope = 1)", tmp_path)
    assert nexmark == listed_options("**`nexmark`**")
    datagen = known_options("(c INT) WITH (connector = 'datagen', nope = 1)", tmp_path)
    assert {o for o in datagen if not o.startswith("fields")} >= {"rows", "rate", "event_rate", "seed"}
    own = known_options("(a INT) WITH (nope = 1)", tmp_path)
    assert own == listed_options("Options are refused by name")


def test_settings_are_those_of_the_code(tmp_path):
    shown = run([BINARY, "--store", "settings", "--format", "csv", "-c", "SHOW ALL"], tmp_path).splitlines()[1:]
    assert {line.split(",")[0] for line in shown} == listed_options("## Settings")


def test_files_that_the_architecture_names_exist():
    text = (REPO / "ARCHITECTURE.md").read_text()
    files = [path.as_posix() for path in REPO.glob("*/**/*.rs") if "target" not in path.parts]
    for name in set(re.findall(r"`([\w/]+\.rs)`", text)):
        assert any(file.endswith(f"/{name}") for file in files), name
