"""Functions that make rows where a table stands: in batch and continuously they give the same, through a restart."""

import pytest
from conftest import run

SETUP = """
CREATE STREAM t (id BIGINT, l BIGINT[], n BIGINT);
INSERT INTO t VALUES (1, [10, 20], 2), (2, [], 0), (3, NULL, 3), (4, [NULL, 5, 6], NULL);
"""

# A query, and its rows in order.
QUERIES = [
    ("SELECT * FROM generate_series(1, 3)", [(1,), (2,), (3,)]),
    ("SELECT * FROM range(5, 0, -2) AS g(x) ORDER BY x", [(1,), (3,), (5,)]),
    ("SELECT count(*) AS n, sum(value) AS s FROM generate_series(1, 3000000)", [(3000000, 4500001500000)]),
    ("SELECT a.value, b.value AS v FROM generate_series(1, 3) a JOIN generate_series(2, 6, 2) b ON a.value = b.value", [(2, 2)]),
    ("SELECT * FROM generate_series(NULL, 3)", []),
    ("SELECT t.id, g.value FROM t, generate_series(1, t.n) AS g ORDER BY id, value", [(1, 1), (1, 2), (3, 1), (3, 2), (3, 3)]),
    (
        "SELECT t.id, g.value, g.ordinality FROM t CROSS JOIN LATERAL generate_series(5, t.n * 5, 5) WITH ORDINALITY AS g ORDER BY id, value",
        [(1, 5, 1), (1, 10, 2), (3, 5, 1), (3, 10, 2), (3, 15, 3)],
    ),
    ("SELECT t.id, g.value FROM t LEFT JOIN range(t.n) AS g ON true ORDER BY id, value", [(1, 0), (1, 1), (2, None), (3, 0), (3, 1), (3, 2), (4, None)]),
    ("SELECT t.id, u.x FROM t, unnest(t.l) AS u(x) WHERE x > 5 ORDER BY id, x", [(1, 10), (1, 20), (4, 6)]),
    (
        "SELECT t.id, u.x, u.o FROM t LEFT JOIN unnest(t.l) WITH ORDINALITY AS u(x, o) ON true ORDER BY id, o",
        [(1, 10, 1), (1, 20, 2), (2, None, None), (3, None, None), (4, None, 1), (4, 5, 2), (4, 6, 3)],
    ),
    (
        "SELECT t.id, u.x, u.y, u.o FROM t, unnest(t.l, [7, 8]) WITH ORDINALITY AS u(x, y, o) WHERE id <> 3 ORDER BY id, o",
        [(1, 10, 7, 1), (1, 20, 8, 2), (2, None, 7, 1), (2, None, 8, 2), (4, None, 7, 1), (4, 5, 8, 2), (4, 6, None, 3)],
    ),
    ("SELECT id, u.u, ordinality FROM t, unnest(t.l) WITH ORDINALITY AS u WHERE id = 1 ORDER BY 3", [(1, 10, 1), (1, 20, 2)]),
    ("SELECT t.id, w.y FROM t, unnest(t.l) AS u(x), unnest([u.x, t.id]) AS w(y) WHERE t.id = 1 ORDER BY y", [(1, 1), (1, 1), (1, 10), (1, 20)]),
    ("SELECT t.id, v.y FROM t, LATERAL (SELECT t.n + 1 AS y) v WHERE v.y > 1 ORDER BY id", [(1, 3), (3, 4)]),
]


def table(process):
    """The last table that a script has shown."""
    found = []
    for line in process.stdout.splitlines():
        if set(line) & set("─┼"):
            found = []
        elif line.startswith(" "):
            cells = (cell.strip() for cell in line.split("│"))
            found.append(tuple(None if cell == "NULL" else int(cell) for cell in cells if not cell.isidentifier() or cell == "NULL"))
    return [row for row in found if row]


@pytest.mark.parametrize(("sql", "expected"), QUERIES)
def test_in_batch_and_continuously(tmp_path, sql, expected):
    unordered, _, order = sql.partition(" ORDER BY ")
    names = ", ".join(f"c{i + 1}" for i in range(len(expected[0]) if expected else 1))
    assert table(run(tmp_path / "store", f"{SETUP} {sql};")) == expected, "in batch"
    by = f"ORDER BY {names}"
    run(tmp_path / "store", f"CREATE STREAM s ({names}) AS {unordered}; FLUSH;", "--parallelism", 3)
    again = run(tmp_path / "store", f"FLUSH; SELECT * FROM s {by};", "--parallelism", 3)
    key = lambda row: [(cell is None, cell) for cell in row]
    assert sorted(table(again), key=key) == sorted(expected, key=key), f"continuously, {order}"
