"""Changes that come in from outside: rows that replace others by a key, records with _op, envelopes of Debezium. Whatever the
parallelism, and through kills, the result is that of the rows in their order."""

import json
import random

import pytest
from conftest import duck, parquet, run, run_through_kills

SEED = 20240607
OFTEN = ("--checkpoint-interval", "50ms")
DEBEZIUM = "format = 'debezium_json'"


def write(path, lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


def content(store, stream, columns, order):
    """What a changelog adds up to, as DuckDB finds it in its files."""
    return duck(f"""
        SELECT {columns} FROM (
            SELECT * EXCLUDE (_op, _epoch), sum(CASE WHEN _op IN ('+I', '+U') THEN 1 ELSE -1 END) AS times
            FROM read_parquet('{parquet(store, stream)}') GROUP BY ALL)
        WHERE times <> 0 ORDER BY {order}""")


def table(process):
    """The rows of the tables that a script has shown, as texts."""
    lines = [line for line in process.stdout.splitlines() if "│" in line]
    return [tuple(cell.strip() for cell in line.split("│")) for line in lines]


def groups(rows):
    """count, sum and least value by group, as the streams of these tests have them."""
    found = {}
    for group, value in rows:
        n, total, least = found.get(group, (0, 0, value))
        found[group] = (n + 1, total + value, min(least, value))
    return sorted((group, *figures) for group, figures in found.items())


BY_GROUP = "SELECT g, count(*) AS n, sum(v) AS total, min(v) AS least FROM s GROUP BY g"


def script(create, pace=""):
    return f"""
CREATE STREAM IF NOT EXISTS s {create.replace("PACE", pace)};
CREATE STREAM IF NOT EXISTS kept AS SELECT id, g, v FROM s;
CREATE STREAM IF NOT EXISTS by_group AS {BY_GROUP};
CREATE STREAM IF NOT EXISTS counted AS SELECT count(*) AS n FROM s WHERE v >= 0;
"""


def check(store, kept, valid):
    """The streams of `script` have the rows `kept`: (id, g, v)."""
    assert content(store, "kept", "id, g, v", "id") == sorted(kept)
    assert content(store, "by_group", "g, n, total, least", "g") == groups((g, v) for _, g, v in kept)
    assert content(store, "counted", "n", "n") == [(len(kept),)]
    # The snapshot reads the files anew.
    shown = run(store, "SELECT g, count(*) AS n, sum(v) AS total, min(v) AS least FROM s GROUP BY g ORDER BY g;")
    assert table(shown)[1:] == [tuple(map(str, row)) for row in groups((g, v) for _, g, v in kept)]
    if valid:
        assert "left out" not in shown.stderr


def killed_and_checked(tmp_path, create, kept, parallelism, rows, kills=4):
    """Runs `script` through kills, at a pace that outlives them, then to its end."""
    chance, store, file = random.Random(SEED + parallelism), tmp_path / f"store{parallelism}", tmp_path / "script.sql"
    args = ("--store", store, "--parallelism", parallelism, *OFTEN)
    file.write_text(script(create, f", rate = {rows // 5}"))
    run_through_kills(file, args, store, "kept", chance, kills)
    check(store, kept, valid=True)


def keyed_rows(chance, rows, keys):
    """Rows of three files, and what is left of them in the order of the files' names."""
    files, last = [], {}
    for _ in range(3):
        lines = []
        for _ in range(rows // 3):
            row = {"id": chance.randrange(keys), "g": chance.randrange(7), "v": chance.randrange(1000)}
            lines.append(row)
            last[row["id"]] = row
        files.append(lines)
    return files, [(r["id"], r["g"], r["v"]) for r in last.values()]


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_later_rows_replace(tmp_path, parallelism):
    rows = 240_000
    files, kept = keyed_rows(random.Random(SEED), rows, keys=20_000)
    (tmp_path / "in").mkdir()
    for name, lines in zip("abc", files):
        write(tmp_path / "in" / f"{name}.jsonl", lines)
    create = f"(id BIGINT PRIMARY KEY, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in/*.jsonl' PACE)"
    killed_and_checked(tmp_path, create, kept, parallelism, rows)


def test_keys_in_other_formats_and_what_has_none(tmp_path, store):
    (tmp_path / "in.csv").write_text("id,g,v\n1,0,5\n2,0,6\n,1,7\n1,1,8\n")
    duck(f"COPY (SELECT * FROM (VALUES (1, 0, 5), (2, 0, 6), (NULL, 1, 7), (1, 1, 8)) AS t(id, g, v)) TO '{tmp_path}/in.parquet'")
    for ending in ("csv", "parquet"):
        at = store / ending
        # The columns are found out, too.
        run(at, script(f"(PRIMARY KEY (id)) WITH (connector = 'file', path = '{tmp_path}/in.{ending}')") + "FLUSH;")
        check(at, [(1, 1, 8), (2, 0, 6)], valid=False)
        letters = run(at, "SELECT DISTINCT position, reason FROM millstream.dead_letters;")
        where = "19" if ending == "csv" else "2"
        assert table(letters)[1:] == [(where, 'column "id" is null')], letters.stdout


def test_explain_says_where_rows_replace(tmp_path, store):
    write(tmp_path / "in.jsonl", [{"id": 1, "g": 1, "v": 1}])
    create = f"CREATE STREAM s (id BIGINT PRIMARY KEY, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in.jsonl');"
    shown = run(store, create + "SET parallelism = 3; EXPLAIN SELECT g FROM s WHERE g > 1;").stdout
    assert "upsert 1 x3: by id  [state bounded by keys (id)]" in shown, shown
    assert "<- hash(id) scan 1 x1: s (id, g;" in shown, shown


def op_rows(chance, rows, keyed):
    """A changelog of rows that come, change and go."""
    lines, there, n = [], {}, 0
    while len(lines) < rows:
        say = lambda op, row: lines.append({"_op": op, **row})
        if there and chance.random() < 0.6:
            key = chance.choice(list(there)) if len(there) < 50 else next(iter(there))
            old = there.pop(key)
            if chance.random() < 0.3:
                say("-D", {"id": old["id"]} if keyed and chance.random() < 0.5 else old)
                continue
            new = {**old, "g": chance.randrange(7), "v": chance.randrange(1000)}
            say("-U", old)
            say("+U", new)
            there[key] = new
        else:
            n += 1
            there[n] = {"id": n, "g": chance.randrange(7), "v": chance.randrange(1000)}
            say("+I", there[n])
    return lines, [(r["id"], r["g"], r["v"]) for r in there.values()]


@pytest.mark.parametrize("parallelism, keyed", [(1, False), (4, False), (2, True), (4, True)])
def test_records_say_their_operation(tmp_path, parallelism, keyed):
    rows = 120_000
    lines, kept = op_rows(random.Random(SEED), rows, keyed)
    write(tmp_path / "in.jsonl", lines)
    key = " PRIMARY KEY" if keyed else ""
    create = f"(id BIGINT{key}, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in.jsonl', changes = true PACE)"
    killed_and_checked(tmp_path, create, kept, parallelism, rows)


def envelope(chance, op, before, after, keyed, n):
    if keyed and before and chance.random() < 0.5:
        # As PostgreSQL tells it without REPLICA IDENTITY FULL.
        before = {"id": before["id"], "g": 0 if op == "d" else None, "v": None} if op == "d" else None
    said = {"before": before, "after": after, "source": {"table": "t", "ts_ms": 1_700_000_000_000 + n}, "op": op}
    if chance.random() < 0.3:
        image = lambda name: {"type": "struct", "field": name, "fields": [
            {"type": "int64", "optional": True, "field": column} for column in ("id", "g", "v")]}
        return {"schema": {"type": "struct", "fields": [image("before"), image("after")]}, "payload": said}
    return said


def debezium_rows(chance, rows, keyed):
    lines, there, n = [], {}, 0
    while len(lines) < rows:
        if there and chance.random() < 0.6:
            key = next(iter(there))
            old = there.pop(key)
            if chance.random() < 0.3:
                lines.append(envelope(chance, "d", old, None, keyed, n))
                lines.append("null")
                continue
            new = {**old, "g": chance.randrange(7), "v": chance.randrange(1000)}
            lines.append(envelope(chance, "u", old, new, keyed, n))
            there[key] = new
        else:
            n += 1
            there[n] = {"id": n, "g": chance.randrange(7), "v": chance.randrange(1000)}
            lines.append(envelope(chance, "r" if n < 1000 else "c", None, there[n], keyed, n))
    return lines, [(r["id"], r["g"], r["v"]) for r in there.values()]


@pytest.mark.parametrize("parallelism, keyed", [(1, True), (2, True), (4, True), (4, False)])
def test_a_table_is_followed(tmp_path, parallelism, keyed):
    rows = 60_000
    lines, kept = debezium_rows(random.Random(SEED), rows, keyed)
    write(tmp_path / "in.jsonl", lines)
    key = " PRIMARY KEY" if keyed else ""
    create = f"(id BIGINT{key}, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in.jsonl', {DEBEZIUM} PACE)"
    killed_and_checked(tmp_path, create, kept, parallelism, rows)


def test_what_cannot_be_followed_is_put_aside(tmp_path, store):
    row = lambda id, g, v: {"id": id, "g": g, "v": v}
    write(tmp_path / "in.jsonl", [
        {"op": "c", "after": row(1, 1, 10)},
        {"op": "c", "after": row("one", 1, 10)},
        {"op": "u", "before": None, "after": row(1, 2, 11)},
        {"op": "d", "before": None},
        {"op": "x", "after": row(2, 2, 2)},
        {"op": "d", "before": {"g": 1}},
        "{",
        {"op": "c", "after": row(3, 2, 30)},
    ])
    run(store, script(f"(id BIGINT PRIMARY KEY, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in.jsonl', {DEBEZIUM})") + "FLUSH;")
    check(store, [(1, 2, 11), (3, 2, 30)], valid=False)
    letters = table(run(store, "SELECT line, reason FROM millstream.dead_letters WHERE stream = 'kept' ORDER BY line;"))[1:]
    assert [int(line) for line, _ in letters] == [2, 4, 5, 6, 7]
    assert letters[0][1] == 'column "id": "one" is not a BIGINT' and letters[3][1] == 'column "id" is null'
    assert "REPLICA IDENTITY FULL" in letters[1][1] and letters[2][1] == 'its op is "x", not one of c, r, u and d'


@pytest.mark.parametrize("target", ["told.jsonl", "told.csv", "json/", "csv/"])
def test_what_goes_out_comes_in_again(tmp_path, store, target):
    """A changelog that Millstream has written reads as the content that it was."""
    files, kept = keyed_rows(random.Random(SEED), 30_000, keys=500)
    write(tmp_path / "in.jsonl", [line for lines in files for line in lines])
    kind = "csv" if "csv" in target else "json"
    out = f"connector = 'file', path = '{tmp_path}/{target}', format = '{kind}'"
    again = f"{out}, changes = true"
    run(store, f"""
        CREATE STREAM s (id BIGINT PRIMARY KEY, g BIGINT, v BIGINT) WITH (connector = 'file', path = '{tmp_path}/in.jsonl', rate = 60000);
        CREATE STREAM out_rows WITH ({out}) AS SELECT g, count(*) AS n, sum(v) AS total, min(v) AS least, min(CASE WHEN g = 3 THEN NULL ELSE 'a "b", c' END) AS t
          FROM s GROUP BY g;
        FLUSH;""", *OFTEN)
    expected = [tuple(map(str, row)) for row in groups((g, v) for _, g, v in kept)]
    texts = ["NULL" if g == "3" else 'a "b", c' for g, *_ in expected]
    for key in ("", "PRIMARY KEY (g)"):
        # Columns are found out; _op is none of them.
        columns = f"({key})" if key else ""
        at = store / (key or "none").replace(" ", "_")
        read = table(run(at, f"CREATE STREAM back {columns} WITH ({again}); SELECT * FROM back ORDER BY g;"))
        assert read[0] == ("g", "n", "total", "least", "t")
        assert read[1:] == [(*row, text) for row, text in zip(expected, texts)]
        run(at, "CREATE STREAM copied AS SELECT g, n, total, least FROM back; FLUSH;")
        assert content(at, "copied", "g, n, total, least", "g") == groups((g, v) for _, g, v in kept)
    written = [path for path in tmp_path.rglob(f"*.{kind}*") if path.is_file() and path.name != "in.jsonl"]
    assert any("-U" in path.read_text() for path in written), "it has rows that go"


REFUSED = {
    "(_op TEXT, id BIGINT) WITH (FILE, changes = true)": 'column "_op" of stream "x" has a reserved name',
    f"(id BIGINT) WITH (FILE, {DEBEZIUM}, changes = true)": "records of Debezium are changes",
    "(id BIGINT) WITH (FILE, format = 'parquet', changes = true)": "only records of JSON and CSV can say their operation",
    f"(id BIGINT, o TEXT METADATA FROM 'op') WITH (FILE, {DEBEZIUM})": 'column "o" of stream "x" is metadata',
    f"(id BIGINT PRIMARY KEY, n TEXT NOT NULL) WITH (FILE, {DEBEZIUM})": 'column "n" of stream "x" is NOT NULL',
    f"(id BIGINT PRIMARY KEY, n TEXT METADATA FROM 'sauce.x') WITH (FILE, {DEBEZIUM})": "no metadata 'sauce.x'",
    "(id BIGINT, PRIMARY KEY (ib)) WITH (FILE)": '"ib"',
}


@pytest.mark.parametrize("definition", REFUSED)
def test_what_cannot_be_is_refused(tmp_path, store, definition):
    write(tmp_path / "in.jsonl", [{"id": 1}])
    file = f"connector = 'file', path = '{tmp_path}/in.jsonl'"
    refused = run(store, f"CREATE STREAM x {definition.replace('FILE', file)};", ok=False)
    assert REFUSED[definition] in refused.stderr, refused.stderr
