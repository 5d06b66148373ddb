"""Nested values: what is below a null is null, names are found by case, nothing is cut, text takes what is there."""

import datetime
import decimal
import json

import adbc_driver_manager
import duckdb
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from conftest import duck, parquet, run

FILES = "SELECT line, position, reason FROM read_parquet('{}/jobs/*/dead_letters/*.parquet') ORDER BY position"


def shown(process):
    return [json.loads(line) for line in process.lines["stdout"]]


def required_below_null(path):
    """`optional group s { required int64 v }` of which the second row is null."""
    inner = pyarrow.struct([pyarrow.field("v", pyarrow.int64(), nullable=False)])
    rows = pyarrow.array([{"v": 1}, None, {"v": 3}], inner)
    table = pyarrow.table({"id": [1, 2, 3], "s": rows})
    pyarrow.parquet.write_table(table, path)


def hiding():
    """Rows of which nulls have values below: structs, lists and maps."""
    mask = pyarrow.array([False, True, False])
    a = pyarrow.array([1, 2, 3], pyarrow.int64())
    s = pyarrow.StructArray.from_arrays([a], fields=[pyarrow.field("v", pyarrow.int64())], mask=mask)
    offsets = pyarrow.array([0, 1, 2, 3], pyarrow.int32())
    items = pyarrow.ListArray.from_arrays(offsets, s, mask=mask)
    return pyarrow.table({"id": pyarrow.array([1, 2, 3], pyarrow.int64()), "s": s, "l": items})


QUERIES = [
    ("SELECT sum(s['v']) AS x, min(s['v']) AS y, max(s['v']) AS z, count(s['v']) AS n FROM {}", [(4, 1, 3, 2)]),
    ("SELECT id AS x, s['v'] AS y FROM {} ORDER BY 1", [(1, 1), (2, None), (3, 3)]),
    ("SELECT id AS x FROM {} WHERE s['v'] = 2", []),
    ("SELECT count(*) AS x FROM {} WHERE s['v'] IS NULL", [(1,)]),
]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_fields_of_null_structs_of_files(store, tmp_path, kind):
    file = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        required_below_null(file)
    else:
        table = hiding().select(["id", "s"])
        with pyarrow.ipc.new_file(file, table.schema) as out:
            out.write_table(table)
    streams = "".join(f"CREATE STREAM q{i} AS {q.format('rows').split(' ORDER')[0]};" for i, (q, _) in enumerate(QUERIES))
    copies = "".join(f"COPY ({q.format('kept')}) TO '{tmp_path}/c{i}.parquet';" for i, (q, _) in enumerate(QUERIES))
    run(
        store,
        f"""CREATE STREAM rows WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT * FROM rows; {streams} FLUSH; {copies}""",
    )
    for i, (query, expected) in enumerate(QUERIES):
        columns = "x, y, z, n" if "sum" in query else "x, y" if "AS y" in query else "x"
        assert duck(f"SELECT {columns} FROM '{tmp_path}/c{i}.parquet' ORDER BY 1") == expected, query
        if "sum" in query or "count(*)" in query:
            sql = f"SELECT {columns} FROM read_parquet('{parquet(store, f'q{i}')}') WHERE _op IN ('+I', '+U') ORDER BY _epoch DESC LIMIT 1"
            assert duck(sql) == expected, query


def test_null_structs_that_expressions_make(store, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(
        '{"id":1,"ok":true,"s":{"a":1}}\n{"id":2,"ok":false,"s":{"a":2}}\n{"id":3,"ok":true,"s":null}\n'
        '{"id":4,"ok":false,"s":{"a":9}}\n'
    )
    cases = {
        "case": "(CASE WHEN ok THEN s END)['a']",
        "nulled": "nullif(s, named_struct('a', 2::BIGINT))['a']",
        "chosen": "coalesce(CASE WHEN ok THEN s END, NULL)['a']",
        "nested": "(CASE WHEN ok THEN named_struct('t', s) END)['t']['a']",
        "element": "(CASE WHEN ok THEN [s] END)[1]['a']",
    }
    columns = ", ".join(f"{sql} AS {name}" for name, sql in cases.items())
    process = run(
        store,
        f"""CREATE STREAM rows (id BIGINT, ok BOOLEAN, s STRUCT<a BIGINT>) WITH (connector = 'file', path = '{file}');
        CREATE STREAM got AS SELECT id, {columns} FROM rows;
        CREATE STREAM grouped AS SELECT CASE WHEN ok THEN s END AS k, count(*) AS n FROM rows GROUP BY CASE WHEN ok THEN s END;
        FLUSH;
        SELECT id, {columns} FROM rows ORDER BY id;
        SELECT n FROM grouped ORDER BY n;
        SELECT count(*) AS n FROM (SELECT DISTINCT CASE WHEN ok THEN s END FROM rows);
        SELECT u.a FROM (SELECT unnest(x) FROM (SELECT CASE WHEN ok THEN s END AS x FROM rows)) AS u(a) ORDER BY 1;
        SELECT sum((CASE WHEN ok THEN s END)['a']) AS n FROM rows;
        SELECT array_append(CASE WHEN ok THEN [1, 2] END, 9) AS l, (CASE WHEN ok THEN [1, 2] END) || 9 AS m
        FROM rows WHERE id = 2;
        """,
        *("--format", "json"),
    )
    expected = {"case": [1, None, None, None], "nulled": [1, None, None, 9], "chosen": [1, None, None, None]}
    expected |= {"nested": [1, None, None, None], "element": [1, None, None, None]}
    out = shown(process)
    for name, values in expected.items():
        found = duck(f"SELECT \"{name}\" FROM read_parquet('{parquet(store, 'got')}') ORDER BY id")
        assert [v for v, in found] == values, name
        assert [row.get(name) for row in out[:4]] == values, name
    assert [row["n"] for row in out[4:6]] == [1, 3]
    assert out[6]["n"] == 2
    assert [row.get("a") for row in out[7:11]] == [1, None, None, None]
    assert out[11]["n"] == 1
    assert out[12] == {"l": [9], "m": [9]}


def test_ingested_rows_hide_nothing_and_are_found_by_case(server):
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE STREAM hidden (id BIGINT, s STRUCT<v BIGINT>, l STRUCT<v BIGINT>[])")
        cursor.execute("CREATE STREAM hidden_sum AS SELECT sum(s['v']) AS x FROM hidden")
        cursor.adbc_ingest("hidden", hiding(), mode="append")
        cursor.execute("FLUSH")
        cursor.execute("SELECT x FROM hidden_sum")
        assert cursor.fetchall() == [(4,)]
        cursor.execute("SELECT sum(s['v']), sum(l[1]['v']) FROM hidden")
        assert cursor.fetchall() == [(4, 4)]

        cursor.execute("CREATE STREAM cased (payload STRUCT<userId BIGINT>)")
        cursor.adbc_ingest("cased", pyarrow.table({"Payload": [{"userId": 7}, {"userId": 8}]}), mode="append")
        cursor.execute("SELECT sum(payload['userid']) FROM cased")
        assert cursor.fetchall() == [(15,)]
        with pytest.raises(adbc_driver_manager.Error, match='column "payload.userid": 2.999 is not a BIGINT'):
            cursor.adbc_ingest("cased", pyarrow.table({"payload": [{"userId": 2.999}]}), mode="append")
        cursor.execute("SELECT count(*) FROM cased")
        assert cursor.fetchall() == [(2,)]


def test_names_of_nested_fields_by_case(store, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text(
        '{"payload":{"userId":7},"items":[{"unitPrice":1.5},{"UNITPRICE":2}]}\n'
        '{"Payload":{"userid":8,"userId":9}}\n'
    )
    run(
        store,
        f"""CREATE STREAM rows (payload STRUCT<userId BIGINT>, items STRUCT<unitPrice DOUBLE>[])
        WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT payload['userid'] AS u, items[1]['unitprice'] AS p, items[2]['unitprice'] AS q FROM rows;""",
    )
    assert duck(f"SELECT u, p, q FROM read_parquet('{parquet(store, 'kept')}') ORDER BY u") == [(7, 1.5, 2.0), (8, None, None)]


def test_text_takes_numbers_below_the_top(store, tmp_path):
    file = tmp_path / "rows.json"
    values = ['{"s":200}', '{"s":"404"}', '{"s":true}', '{"s":{"deep": [1]}}', '{"s":null}', '{"s":1.50}']
    file.write_text("".join(f'{{"o":{v},"l":[{i}, "x", false, {{}}]}}\n' for i, v in enumerate(values)))
    run(
        store,
        f"""CREATE STREAM rows WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT o['s'] AS s, l[1] AS l, l[3] AS b, l[4] AS e FROM rows;""",
    )
    found = duck(f"SELECT s, l, b, e FROM read_parquet('{parquet(store, 'kept')}') ORDER BY l")
    assert [s for s, _, _, _ in found] == ["200", "404", "true", '{"deep": [1]}', None, "1.50"]
    assert {(b, e) for _, _, b, e in found} == {("false", "{}")}


def test_numbers_keep_all_their_digits(store, tmp_path):
    file = tmp_path / "rows.json"
    lines = [
        '{"d":1e-7,"n":9007199254740993.0}',
        '{"d":1.5e2,"n":-9223372036854775808}',
        '{"d":"0.00000001","n":1e3,"l":[5.0]}',
        '{"l":[1,1.5]}',
        '{"d":1e13}',
        '{"n":0.5}',
    ]
    file.write_text("\n".join(lines) + "\n")
    run(
        store,
        f"""CREATE STREAM rows (d DECIMAL(20, 8), n BIGINT, l BIGINT[]) WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT * FROM rows;""",
    )
    d = decimal.Decimal
    found = duck(f"SELECT d, n, l FROM read_parquet('{parquet(store, 'kept')}')")
    assert found == [(d("1e-7"), 9007199254740993, None), (d(150), -(2**63), None), (d("1e-8"), 1000, [5])]
    assert [(line, reason) for line, _, reason in duck(FILES.format(store))] == [
        (4, 'column "l[]": 1.5 is not a BIGINT'),
        (5, 'column "d": 1e13 is not a DECIMAL(20, 8)'),
        (6, 'column "n": 0.5 is not a BIGINT'),
    ]


def test_options_of_text_below_the_top(store, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('{"o":{"at":"24/12/2023","n":"N/A"},"l":["25/12/2023","N/A"]}\n{"o":{"at":"2023-12-24"}}\n')
    lines = tmp_path / "rows.csv"
    lines.write_text('o,x\n"{""at"":""24/12/2023"",""n"":1}",NA\n"[1]",1\n,2\n')
    given = "timestamp_format = '%d/%m/%Y', null_values = 'N/A,NA'"
    run(
        store,
        f"""CREATE STREAM rows (o STRUCT<at TIMESTAMP, n BIGINT>, l TIMESTAMP[]) WITH (connector = 'file', path = '{file}', {given});
        CREATE STREAM lines (o STRUCT<at TIMESTAMP, n BIGINT>, x BIGINT) WITH (connector = 'file', path = '{lines}', {given});
        CREATE STREAM kept AS SELECT o['at'] AS a, o['n'] AS n, l FROM rows;
        CREATE STREAM csv AS SELECT o['at'] AS a, o['n'] AS n, x FROM lines;""",
    )
    day = datetime.datetime(2023, 12, 24)
    found = duck(f"SELECT a, n, l FROM read_parquet('{parquet(store, 'kept')}')")
    assert found == [(day, None, [day + datetime.timedelta(days=1), None])]
    found = duck(f"SELECT a, n, x FROM read_parquet('{parquet(store, 'csv')}') ORDER BY x")
    assert found == [(None, None, 2), (day, 1, None)]
    reasons = [reason for _, _, reason in duck(FILES.format(store))]
    assert sorted(reasons) == [
        'column "o": [1] is not a STRUCT<at TIMESTAMP, n BIGINT>',
        'column "o.at": "2023-12-24" is not a TIMESTAMP',
    ]


def test_a_folder_of_parquet_files_that_differ(store, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    write = lambda name, table: pyarrow.parquet.write_table(table, folder / name)
    inner = pyarrow.struct([("a", pyarrow.int32())])
    write("1.parquet", pyarrow.table({"id": pyarrow.array([1], pyarrow.int32()), "s": pyarrow.array([{"a": 1}], inner)}))
    wider = pyarrow.struct([("b", pyarrow.string()), ("a", pyarrow.int64())])
    write("2.parquet", pyarrow.table({"s": pyarrow.array([{"a": 2**40, "b": "x"}], wider), "id": [2**40]}))
    write("3.parquet", pyarrow.table({"id": [3], "s": pyarrow.nulls(1)}))
    write("4.parquet", pyarrow.table({"note": ["n"], "id": [4]}))
    run(
        store,
        f"""CREATE STREAM any WITH (connector = 'file', path = '{folder}');
        CREATE STREAM rows (id BIGINT, s STRUCT<a INT, b TEXT>, note TEXT) WITH (connector = 'file', path = '{folder}');
        CREATE STREAM inferred AS SELECT id, s['a'] AS a, s['b'] AS b, note FROM any;
        CREATE STREAM declared AS SELECT id, s['a'] AS a, s['b'] AS b, note FROM rows;""",
    )
    rows = lambda stream: duck(f"SELECT id, a, b, note FROM read_parquet('{parquet(store, stream)}') ORDER BY id")
    first, rest = (1, 1, None, None), [(3, None, None, None), (4, None, None, "n")]
    assert sorted(rows("inferred")) == [first, *rest, (2**40, 2**40, "x", None)]
    assert rows("declared") == [first, *rest]
    assert [reason for _, _, reason in duck(FILES.format(store))] == ['column "s.a": 1099511627776 is not an INTEGER']


def test_parquet_values_that_do_not_fit(store, tmp_path):
    file = tmp_path / "rows.parquet"
    d = decimal.Decimal
    table = pyarrow.table({"id": range(4), "n": [1.0, 2.999, None, 4.0], "d": [0.1, 3.12, 3.1234, None]})
    pyarrow.parquet.write_table(table, file)
    run(
        store,
        f"""CREATE STREAM rows (id BIGINT, n BIGINT, d DECIMAL(20, 2)) WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT * FROM rows;""",
    )
    found = duck(f"SELECT id, n, d FROM read_parquet('{parquet(store, 'kept')}') ORDER BY id")
    assert found == [(0, 1, d("0.10")), (3, 4, None)]
    assert [(position, reason) for _, position, reason in duck(FILES.format(store))] == [
        (1, 'column "n": 2.999 is not a BIGINT'),
        (2, 'column "d": 3.1234 is not a DECIMAL(20, 2)'),
    ]


@pytest.mark.parametrize("value, kind", [("INTERVAL '14 months'", "INTERVAL"), ("{'a': 1}::VARIANT", "VARIANT")])
def test_columns_of_parquet_that_would_lose_their_meaning(store, tmp_path, value, kind):
    file = tmp_path / "rows.parquet"
    duckdb.sql(f"SELECT 1 AS id, {value} AS v").write_parquet(str(file))
    source = f"WITH (connector = 'file', path = '{file}')"
    for columns in ["", "(id BIGINT, v TEXT)"]:
        process = run(store, f"CREATE STREAM rows {columns} {source};", ok=False)
        assert f'column "v" of file "{file}" is {kind}' in process.stderr, process.stderr
    run(store, f"CREATE STREAM rows (id BIGINT) {source}; CREATE STREAM kept AS SELECT * FROM rows;")
    assert duck(f"SELECT id FROM read_parquet('{parquet(store, 'kept')}')") == [(1,)]


@pytest.mark.parametrize("sql, kind", [("ts - ts", "Duration"), ("INTERVAL '1 month'", "INTERVAL")])
def test_types_that_parquet_does_not_have_are_refused(store, tmp_path, sql, kind):
    made = "CREATE STREAM t (ts TIMESTAMP);"
    for statement in [
        f"CREATE STREAM d AS SELECT {sql} AS x FROM t;",
        f"COPY (SELECT {sql} AS x FROM t) TO '{tmp_path}/x.parquet';",
        f"CREATE STREAM w WITH (connector = 'file', path = '{tmp_path}/out', format = 'parquet') AS SELECT {sql} AS x FROM t;",
    ]:
        process = run(store, made + statement, ok=False)
        assert kind in process.stderr and "cannot be stored" in process.stderr, process.stderr
        made = ""
    assert "INTERVAL cannot be stored" in run(store, "CREATE STREAM i (x INTERVAL);", ok=False).stderr


def test_times_and_dates_leave_as_what_they_are(store, tmp_path):
    columns = "TIME '12:00:01'::TIME(0) AS t, TIMESTAMP '2024-01-02 03:04:05'::TIMESTAMP(0) AS at, arrow_cast(DATE '2024-01-02', 'Date64') AS d"
    run(
        store,
        f"""CREATE STREAM one (x BIGINT); INSERT INTO one VALUES (1);
        CREATE STREAM kept AS SELECT {columns} FROM one; FLUSH;
        COPY (SELECT {columns} FROM one) TO '{tmp_path}/copied.parquet';
        CREATE STREAM w WITH (connector = 'file', path = '{tmp_path}/out', format = 'parquet') AS SELECT {columns} FROM one; FLUSH;""",
    )
    expected = [(datetime.time(12, 0, 1), datetime.datetime(2024, 1, 2, 3, 4, 5), datetime.date(2024, 1, 2))]
    for files in [parquet(store, "kept"), f"{tmp_path}/copied.parquet", f"{tmp_path}/out/*.parquet"]:
        assert duck('SELECT t, "at", d FROM read_parquet(?)', files) == expected, files


def test_maps(store, tmp_path):
    file = tmp_path / "rows.json"
    file.write_text('{"m":{"a":1,"b":null,"a":3}}\n{"m":null}\n{"m":{"x":"y"}}\n')
    run(
        store,
        f"""CREATE STREAM rows (m MAP(TEXT, BIGINT)) WITH (connector = 'file', path = '{file}');
        CREATE STREAM kept AS SELECT m['a'] AS a, m FROM rows;""",
    )
    found = duck(f"SELECT a, m FROM read_parquet('{parquet(store, 'kept')}')")
    assert found == [(3, {"a": 3, "b": None}), (None, None)]
    assert [reason for _, _, reason in duck(FILES.format(store))] == ['column "m[]": "y" is not a BIGINT']
