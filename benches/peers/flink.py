"""How fast are Nexmark queries beside Flink SQL, over the same events?

flink.py [--events N] [--query q3,q4] [--runs R] [--unchecked] [--folder DIR]: the events are CSV files, written once by Millstream's generator. Then runs in turn:
`millstream bench nexmark --source files` and Flink SQL of PyPI's apache-flink, each in a process of its own, both at parallelism 2, both
results dropped. Before that each engine says once how many rows the result has and what its numbers add up to, which must be the same.
Needs Java 11 or later; makes a virtual environment in DIR (default: /tmp/millstream-peers) and leaves it there. MILLSTREAM_BINARY may name the binary.

Flink runs in streaming mode on its mini-cluster, with object reuse, mini-batch (2 s, 50,000 rows), state on the heap and no checkpoints;
its seconds are the net run time of the job, without the start of Java and of the cluster. Millstream's are from CREATE STREAM to the end of the input.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

PARALLELISM = 2
HEAP = "10g"
COLUMNS = {
    "person": "id BIGINT, name {text}, email_address {text}, credit_card {text}, city {text}, state {text}, date_time {time}, extra {text}",
    "auction": "id BIGINT, item_name {text}, description {text}, initial_bid BIGINT, reserve BIGINT, date_time {time}, expires {time}, "
    "seller BIGINT, category BIGINT, extra {text}",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel {text}, url {text}, date_time {time}, extra {text}",
}

# A query for both: {hop:t} and {tumble:t} become the window functions of each. What its numbers add up to is the second text.
COUNTS = "SELECT auction, count(*) AS num, window_start, window_end FROM {hop:bid} GROUP BY auction, window_start, window_end"
QUERIES = {
    "q0": ("SELECT auction, bidder, price, date_time, extra FROM bid", "price"),
    "q3": (
        """SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
           WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
        "id",
    ),
    "q4": (
        """SELECT category, sum(final) / count(*) AS avg_final FROM (
             SELECT a.id, a.category, max(b.price) AS final FROM auction a JOIN bid b ON a.id = b.auction
             WHERE b.date_time BETWEEN a.date_time AND a.expires GROUP BY a.id, a.category) AS winners
           GROUP BY category""",
        "category + avg_final",
    ),
    "q5": (
        f"""SELECT c.auction, c.num FROM ({COUNTS}) AS c
            JOIN (SELECT max(num) AS top, window_start, window_end FROM ({COUNTS}) AS n GROUP BY window_start, window_end) AS m
            ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num = m.top""",
        "auction + num",
    ),
    "q7": (
        """SELECT b.auction, b.bidder, b.price, b.date_time, b.extra FROM bid b
           JOIN (SELECT max(price) AS top, window_start, window_end FROM {tumble:bid} GROUP BY window_start, window_end) AS m
           ON b.price = m.top WHERE b.date_time >= m.window_start AND b.date_time < m.window_end""",
        "auction + bidder + price",
    ),
    "q8": (
        """SELECT p.id, p.name, p.window_start FROM
             (SELECT id, name, window_start, window_end FROM {tumble:person} GROUP BY id, name, window_start, window_end) AS p
           JOIN (SELECT seller, window_start, window_end FROM {tumble:auction} GROUP BY seller, window_start, window_end) AS a
           ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end""",
        "id",
    ),
    "q17": (
        """SELECT auction, CAST(date_time AS DATE) AS day_, count(*) AS total_bids,
             count(*) FILTER (WHERE price < 10000) AS rank1_bids, count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
             count(*) FILTER (WHERE price >= 1000000) AS rank3_bids, min(price) AS min_price, max(price) AS max_price,
             sum(price) AS sum_price FROM bid GROUP BY auction, CAST(date_time AS DATE)""",
        "auction + total_bids + rank1_bids + max_price + sum_price",
    ),
    "q20": (
        """SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time AS bid_date_time, b.extra AS bid_extra, a.item_name, a.description,
             a.initial_bid, a.reserve, a.date_time AS auction_date_time, a.expires, a.seller, a.category, a.extra AS auction_extra
           FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10""",
        "auction + bidder + price + reserve + seller",
    ),
}


def written_for(engine, query):
    forms = {
        "flink": {
            "hop": "TABLE(HOP(TABLE {}, DESCRIPTOR(date_time), INTERVAL '2' SECOND, INTERVAL '10' SECOND))",
            "tumble": "TABLE(TUMBLE(TABLE {}, DESCRIPTOR(date_time), INTERVAL '10' SECOND))",
        },
        "millstream": {
            "hop": "HOP({}, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')",
            "tumble": "TUMBLE({}, date_time, INTERVAL '10 seconds')",
        },
    }[engine]
    return re.sub(r"\{(hop|tumble):(\w+)\}", lambda m: forms[m[1]].format(m[2]), query)


# ---- Flink: in the virtual environment, one query in one process.


def flink_tables(folder):
    for table, columns in COLUMNS.items():
        made = lambda column: f"CAST(TO_TIMESTAMP_LTZ({column}, 3) AS TIMESTAMP(3))"
        names = [column.split()[0] for column in columns.split(", ")]
        yield (
            f"CREATE TEMPORARY TABLE {table}_file ({columns.format(text='STRING', time='BIGINT')}, at_ AS {made('date_time')}, "
            f"WATERMARK FOR at_ AS at_ - INTERVAL '4' SECOND) WITH ('connector' = 'filesystem', 'path' = 'file://{folder}/{table}', 'format' = 'csv')"
        )
        shown = ", ".join("at_ AS date_time" if n == "date_time" else f"{made(n)} AS {n}" if n == "expires" else n for n in names)
        yield f"CREATE TEMPORARY VIEW {table} AS SELECT {shown} FROM {table}_file"


def flink_here(query, folder, checked):
    """Runs a query; prints its figures, or the result's rows and sum."""
    os.environ["JVM_ARGS"] = f"-Xms{HEAP} -Xmx{HEAP}"
    from pyflink.common import Configuration
    from pyflink.java_gateway import get_gateway
    from pyflink.table import EnvironmentSettings, TableEnvironment

    options = Configuration()
    for name, value in {
        "parallelism.default": PARALLELISM,
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "2s",
        "table.exec.mini-batch.size": 50000,
        "restart-strategy.type": "none",
        "state.backend.type": "hashmap",
        "taskmanager.memory.managed.size": "512m",
        "taskmanager.memory.network.min": "256m",
        "taskmanager.memory.network.max": "256m",
    }.items():
        options.set_string(name, str(value))
    env = TableEnvironment.create(EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(options).build())
    for statement in flink_tables(folder):
        env.execute_sql(statement)
    sql, numbers = QUERIES[query]
    sql = written_for("flink", sql)
    pid = get_gateway().jvm.java.lang.ProcessHandle.current().pid()
    if checked:
        last = None
        with env.execute_sql(f"SELECT count(*), sum({numbers}) FROM ({sql}) AS r").collect() as rows:
            for last in rows:
                pass
        print(json.dumps([last[0], last[1]]))
        return
    schema = env.sql_query(sql).get_schema()
    columns = ", ".join(f"`{n}` {sql_type(t)}" for n, t in zip(schema.get_field_names(), schema.get_field_data_types()))
    env.execute_sql(f"CREATE TEMPORARY TABLE dropped ({columns}) WITH ('connector' = 'blackhole')")
    before = cpu(pid)
    done = env.execute_sql(f"INSERT INTO dropped {sql}")
    done.wait()
    used = cpu(pid) - before
    seconds = done.get_job_client().get_job_execution_result().result().get_net_runtime() / 1000
    peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024
    print(json.dumps({"seconds": seconds, "cpu": used, "peak": peak}))


def sql_type(data_type):
    """A time is no attribute in a sink, so its type is said anew."""
    simple = {"BigIntType": "BIGINT", "VarCharType": "STRING", "IntType": "INT", "DateType": "DATE", "TimestampType": "TIMESTAMP(3)"}
    return simple[type(data_type).__name__]


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- The comparison.


def binary():
    built = pathlib.Path(__file__).parents[2] / "target" / "release" / "millstream"
    return os.environ.get("MILLSTREAM_BINARY", str(built))


def millstream(sql):
    with tempfile.TemporaryDirectory() as store:
        done = subprocess.run([binary(), "run", "-", "--store", store, "--format", "csv"], input=sql, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(folder):
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "apache-flink==2.3.0"], check=True)
    return python


def files_for_flink(folder, events):
    """The same events without a first line of names, times in milliseconds, in two files, one a task."""
    made = folder / f"flink-{events}"
    if (made / "done").exists():
        return made
    for table, columns in COLUMNS.items():
        names = [column.split()[0] for column in columns.split(", ")]
        millis = ", ".join(f"CAST({n} AS BIGINT) / 1000 AS {n}" if n in ("date_time", "expires") else n for n in names)
        millstream(
            f"""CREATE STREAM t WITH (connector = 'nexmark', "table" = '{table}', events = '{events}');
                CREATE STREAM w WITH (connector = 'file', path = '{made}/{table}-whole/', format = 'csv', header = 'false', parallelism = '1')
                AS SELECT {millis} FROM t; FLUSH;"""
        )
        (made / table).mkdir(parents=True)
        parts = [open(made / table / f"part-{n}.csv", "w") for n in range(PARALLELISM)]
        for whole in sorted((made / f"{table}-whole").glob("*.csv")):
            with open(whole) as lines:
                for n, line in enumerate(lines):
                    parts[n % PARALLELISM].write(line)
            whole.unlink()
        for part in parts:
            part.close()
    (made / "done").touch()
    return made


def run_flink(python, query, files, checked=False):
    command = [python, __file__, "--here", query, "--folder", files] + (["--checked"] if checked else [])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_millstream(query, folder, events):
    args = ["bench", "nexmark", "--query", query, "--source", "files", "--format", "csv", "--path", folder, "--events", str(events)]
    done = subprocess.run([binary(), *args, "--parallelism", str(PARALLELISM), "--output", "json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    return {"seconds": figures["seconds"], "cpu": figures["cpu_seconds"], "peak": figures["peak_memory_mb"]}


def content_of(query, events):
    """How many rows Millstream's result has, and what its numbers add up to."""
    sql, numbers = QUERIES[query]
    tables = "".join(
        f"CREATE STREAM {t} (WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') WITH (connector = 'nexmark', \"table\" = '{t}', events = '{events}');"
        for t in COLUMNS
    )
    query_text = written_for("millstream", sql)
    out = millstream(f"{tables} CREATE STREAM r AS {query_text}; FLUSH; SELECT count(*), sum({numbers}) FROM r;")
    return [int(v) for v in out.strip().splitlines()[-1].split(",")]


def check(query, folder, events, python, files):
    found, expected = content_of(query, events), run_flink(python, query, files, checked=True)
    assert found == expected, f"{query}: Millstream has {found} (rows, sum), Flink {expected}"
    print(f"{query}: both have {found[0]:,} rows, which add up to {found[1]:,}", flush=True)


def compare(query, folder, events, runs, python, files):
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(run_millstream(query, folder, events))
        theirs.append(run_flink(python, query, files))
    middle = lambda all, what: statistics.median(one[what] for one in all)
    cells = [query]
    for all in (ours, theirs):
        seconds = middle(all, "seconds")
        cells += [f"{seconds:.2f}", f"{middle(all, 'cpu'):.2f}", f"{events / seconds / 1e6:.2f}", f"{middle(all, 'peak'):.0f}"]
    ratios = [middle(theirs, what) / middle(ours, what) for what in ("seconds", "cpu")]
    print("| " + " | ".join(cells + [f"{r:.1f}" for r in ratios]) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--query", default="q3,q4,q8,q20")
    parser.add_argument("--runs", type=int, default=3, help="how often; 0 only compares results")
    parser.add_argument("--unchecked", action="store_true", help="do not compare results first")
    parser.add_argument("--folder", type=pathlib.Path, default="/tmp/millstream-peers")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--checked", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        return flink_here(args.here, args.folder, args.checked)
    args.folder.mkdir(parents=True, exist_ok=True)
    python, files = environment(args.folder), files_for_flink(args.folder, args.events)
    queries = args.query.split(",")
    if not args.unchecked:
        for query in queries:
            check(query, args.folder, args.events, python, files)
    if args.runs == 0:
        return
    print(f"{args.events:,} events in CSV files, parallelism {PARALLELISM}, middle of {args.runs} runs in turn")
    print("| query | s | CPU s | M events/s | peak MB | Flink s | CPU s | M events/s | peak MB | faster | by CPU |")
    print("| --- |" + " --- |" * 10, flush=True)
    for query in queries:
        compare(query, args.folder, args.events, args.runs, python, files)


if __name__ == "__main__":
    main()
