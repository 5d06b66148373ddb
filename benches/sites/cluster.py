"""Two processes with one core each beside one with one core: Nexmark events that are made in the process, results into a blackhole, a store
in a folder. In turn, medians of the rounds.

    benches/sites/cluster.py [--binary PATH] [--rounds 3] [--events 20000000] [QUERY …]
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

QUERIES = ["q5-counts", "q7-max", "q12", "q15", "q17"]
BIDS = """CREATE STREAM bid (auction BIGINT, bidder BIGINT, price BIGINT, channel TEXT, url TEXT, date_time TIMESTAMP, extra TEXT,
    WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') WITH (connector = 'nexmark', table = 'bid', events = {})"""
REPO = pathlib.Path(__file__).resolve().parents[2]


def sql_of(name):
    """The text of a query, as `millstream bench nexmark` has it."""
    source = (REPO / "cli" / "src" / "bench" / "queries.rs").read_text()
    text = re.search(rf'name: "{name}",\s*sql: "((?:[^"\\]|\\.)*)"', source, re.S).group(1)
    return re.sub(r"\\\n\s*", "", text)


class Node:
    def __init__(self, binary, store, core, *args):
        command = ["taskset", "-c", str(core), binary, "serve", "--store", store, "--listen", "127.0.0.1:0"]
        command += ["--http", "127.0.0.1:0", "--parallelism", "1", *args]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("http: "):
                self.place = line.split()[1]
                break

    def sql(self, sql):
        request = urllib.request.Request(f"{self.place}/sql", sql.encode(), {"Content-Type": "text/plain"})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as e:
            raise SystemExit(f"{sql}: {e.read().decode()}") from None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def run(binary, name, events, cores):
    """Seconds from the statement to the end of the job, and CPU seconds of all processes."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(binary, folder + "/store", core) for core in cores]
        try:
            while len(nodes[0].sql("SHOW NODES")) < len(cores):
                time.sleep(0.05)
            # Jobs take the nodes that there are a second after they have come.
            time.sleep(1.5)
            nodes[0].sql(BIDS.format(events))
            before, began = cpu(nodes), time.monotonic()
            nodes[0].sql(f"CREATE STREAM q WITH (connector = 'blackhole') AS {sql_of(name)}")
            while True:
                (job,) = nodes[0].sql("SHOW JOBS")
                if job["state"] != "running":
                    break
                time.sleep(0.02)
            took = time.monotonic() - began
            assert job["state"] == "finished", job
            return took, cpu(nodes) - before
        finally:
            for node in nodes:
                node.close()


def cpu(nodes):
    total = 0
    for node in nodes:
        fields = pathlib.Path(f"/proc/{node.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=str(REPO / "target" / "release" / "millstream"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("queries", nargs="*")
    args = parser.parse_args()
    print("| query | one process s | CPU s | two s | CPU s | faster |\n| --- | --- | --- | --- | --- | --- |")
    for name in args.queries or QUERIES:
        one, two = [], []
        for _ in range(args.rounds):
            one.append(run(args.binary, name, args.events, [0]))
            two.append(run(args.binary, name, args.events, [0, 1]))
        (a, a_cpu), (b, b_cpu) = ((statistics.median(of) for of in zip(*runs)) for runs in (one, two))
        print(f"| {name} | {a:.2f} | {a_cpu:.2f} | {b:.2f} | {b_cpu:.2f} | {a / b:.2f} |", flush=True)


main()
