"""Rows put into a stream of another server, once: across kills of either side and cut links, as they grow and as they change."""

import collections
import time

import adbc_driver_manager
import pytest
from test_link import PATIENCE, Wire, among_faults, nothing_is_left_over, sites  # noqa: F401

SLOW_TO_GIVE_UP = "max_retry_delay = '200 ms'"


def into(address, stream, query, more=SLOW_TO_GIVE_UP, name="out"):
    options = f"connector = 'flight', url = 'grpc://{address}', stream = '{stream}'"
    return f"CREATE STREAM {name}_{stream} WITH ({options}, {more}) AS {query}"


def test_one_row_in_one_row_out(sites):
    here, there = sites
    address = there.server.address
    here.ask("CREATE STREAM requests (id BIGINT, who TEXT, size DOUBLE, at TIMESTAMP)")
    here.ask("CREATE STREAM counts AS SELECT who, count(*) AS n FROM requests GROUP BY who")
    there.ask("CREATE STREAM requests (id BIGINT, who TEXT, size DOUBLE, at TIMESTAMP)")
    there.ask("CREATE STREAM counts (n BIGINT, who TEXT, PRIMARY KEY (who))")
    here.ask(into(address, "requests", "SELECT * FROM requests", "compression = 'zstd'"))
    here.ask(into(address, "counts", "SELECT * FROM counts WHERE n < 4", "compression = 'lz4'"))
    names = collections.Counter()
    for i in range(1, 8):
        who = ("ann", "bob")[i % 2]
        names[who] += 1
        here.ask(f"INSERT INTO requests VALUES ({i}, '{who}', {i} / 2.0, '2026-11-29 10:00:{i:02}')")
        there.expect("SELECT id FROM requests", [(n,) for n in range(1, i + 1)], patience=5)
        # Who has more than three is taken back.
        there.expect("SELECT who, n FROM counts", sorted((w, n) for w, n in names.items() if n < 4), patience=5)
    assert there.ask("SELECT count(*), sum(size) FROM requests") == [(7, 14.0)]
    analysed = "\n".join(str(row) for row in here.ask("EXPLAIN ANALYZE STREAM out_requests"))
    assert f'stream "requests" at grpc://{address}' in analysed and "rows_delivered 7" in analysed, analysed
    # What is deleted there is gone for who reads it, and comes again.
    here.ask("DROP STREAM out_counts")
    here.ask(into(address, "counts", "SELECT * FROM counts", name="again"))
    there.expect("SELECT who, n FROM counts", sorted(names.items()))


def test_nothing_is_lost_or_doubled_when_either_is_killed_and_the_link_is_cut(sites):
    here, there = sites
    wire = Wire()
    wire.to = there.server.address
    here.ask("CREATE STREAM requests (id BIGINT, g BIGINT)")
    here.ask("CREATE STREAM counts AS SELECT g, count(*) AS n, sum(id) AS s FROM requests GROUP BY g")
    there.ask("CREATE STREAM requests (id BIGINT, g BIGINT)")
    there.ask("CREATE STREAM counts (g BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (g))")
    there.ask("CREATE STREAM total AS SELECT sum(n) AS n, sum(s) AS s FROM counts")
    # Groups come and go.
    asked = {"requests": "SELECT id, g FROM requests", "counts": "SELECT g, n, s FROM counts WHERE n % 3 <> 0"}
    for stream, query in asked.items():
        here.ask(into(wire.address, stream, query))
    next_id = among_faults(there, here, wire, writes=here)
    # So that not all groups are to be left out.
    here.ask(f"INSERT INTO requests VALUES ({next_id}, 29), ({next_id + 1}, 30), ({next_id + 2}, 30)")
    here.ask("FLUSH")
    answers = {stream: sorted(here.ask(query)) for stream, query in asked.items()}
    assert len(answers["requests"]) > 1000 and len(answers["counts"]) >= 2
    for stream, answer in answers.items():
        columns = "id, g" if stream == "requests" else "g, n, s"
        there.expect(f"SELECT {columns} FROM {stream}", answer)
    there.expect("SELECT n, s FROM total", [tuple(sum(row[i] for row in answers["counts"]) for i in (1, 2))])


def test_what_is_not_taken_waits_and_holds_the_query_up(sites):
    here, there = sites
    wire = Wire()
    wire.to = there.server.address
    here.ask("CREATE STREAM numbers (id BIGINT)")
    there.ask("CREATE STREAM numbers (id BIGINT)")
    here.ask(into(wire.address, "numbers", "SELECT id FROM numbers", f"buffer_bytes = 1000000, {SLOW_TO_GIVE_UP}"))
    wire.cut()
    for i in range(40):
        here.ask(f"INSERT INTO numbers SELECT value FROM generate_series({i * 100_000}, {i * 100_000 + 99_999})")
    time.sleep(1)
    # What lies here is bounded (a checkpoint may be begun beyond it); the rest was not read.
    kept = sum(f.stat().st_size for f in (here.store / "jobs").rglob("*") if f.is_file() and f.name.startswith("g"))
    assert 500_000 < kept < 6_000_000, kept
    # A job that waits for the other side can be paused, and goes on.
    here.ask("PAUSE STREAM out_numbers")
    here.ask("RESUME STREAM out_numbers")
    here.kill()
    wire.mend()
    there.expect("SELECT count(*), count(DISTINCT id), max(id) FROM numbers", [(4_000_000, 4_000_000, 3_999_999)])


def test_what_does_not_fit_is_told(sites):
    here, there = sites
    address = there.server.address
    here.ask("CREATE STREAM requests (id BIGINT, who TEXT)")
    here.ask("CREATE STREAM counts AS SELECT who, count(*) AS n FROM requests GROUP BY who")
    there.ask("CREATE STREAM requests (id BIGINT, who TEXT)")
    there.ask("CREATE STREAM by_n (who TEXT, n BIGINT, PRIMARY KEY (n))")
    there.ask("CREATE STREAM by_who (who TEXT, n BIGINT, PRIMARY KEY (who))")
    there.ask("CREATE STREAM derived AS SELECT * FROM requests")

    def refused(sql, message):
        with pytest.raises(adbc_driver_manager.Error, match=message):
            here.ask(sql)
        assert "out_" not in str(here.ask("SHOW JOBS"))

    refused(into(address, "nothing", "SELECT * FROM requests"), r'(?s)stream "nothing" does not exist.*CREATE STREAM nothing \(id BIGINT, who TEXT\)')
    refused(into(address, "nothing", "SELECT * FROM counts"), r"(?s)does not exist.*\(who TEXT, n BIGINT, PRIMARY KEY \(who\)\)")
    refused(into(address, "derived", "SELECT * FROM requests"), "derived")
    refused(into(address, "requests", "SELECT id, who AS whom FROM requests"), 'stream "requests" has no column "whom"')
    refused(into(address, "requests", "SELECT n AS id, who FROM counts"), 'rows are taken back, and stream "requests" has no primary key')
    refused(into(address, "by_n", "SELECT * FROM counts"), 'told apart by who, and the primary key of stream "by_n" is n')
    refused(into("127.0.0.1:1", "requests", "SELECT * FROM requests"), "127.0.0.1:1")
    refused("CREATE STREAM out_x WITH (connector = 'flight', stream = 'requests') AS SELECT * FROM requests", "url")
    refused(into(address, "requests", "SELECT * FROM requests", "buffer_bytes = 0"), "buffer_bytes is 0")
    refused(into(address, "requests", "SELECT * FROM requests", "compression = 'gzip'"), "compression")
    # A value that does not fit stops the job with all rows kept, and what is mended goes on.
    there.ask("CREATE STREAM small (id SMALLINT)")
    here.ask(into(address, "small", "SELECT id FROM requests"))
    here.ask("INSERT INTO requests VALUES (7, 'a'), (70000, 'b')")
    deadline = time.monotonic() + PATIENCE
    while "failed" not in str(here.ask("SHOW JOBS")) and time.monotonic() < deadline:
        time.sleep(0.05)
    told = str(here.ask("SHOW JOBS"))
    assert "70000 is not a SMALLINT" in told and "out_small" in told, told
    assert there.ask("SELECT count(*) FROM small") == [(0,)]
    there.ask("CREATE OR REPLACE STREAM small (id INT)")
    here.ask("RESUME STREAM out_small")
    there.expect("SELECT id FROM small", [(7,), (70000,)])
    # A stream of before takes part in what it has a key for.
    here.ask(into(address, "by_who", "SELECT who, n FROM counts"))
    there.expect("SELECT who, n FROM by_who", [("a", 1), ("b", 1)])
