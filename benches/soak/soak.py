"""Does memory stay flat where EXPLAIN says that state is bounded?

soak.py [EVENTS [QUERY …]]: runs each query over so many Nexmark events, made at full speed, into `blackhole`, with checkpoints every second, and
looks five times a second at how much memory the process has. Writes QUERY.csv (seconds, resident MB) and memory.svg beside this file. Prints the
middle and the most of each tenth of the run. MILLSTREAM_BINARY may name the binary.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("MILLSTREAM_BINARY", str(HERE.parents[1] / "target" / "release" / "millstream"))
EVERY = 0.2
TEN = "INTERVAL '10 seconds'"
QUERIES = {
    "q7": f"""SELECT b.auction, b.bidder, b.price, b.date_time, b.extra FROM bid b
        JOIN (SELECT window_start, window_end, max(price) AS top FROM TUMBLE(bid, date_time, {TEN}) GROUP BY window_start, window_end) m
        ON b.price = m.top AND b.date_time >= m.window_start AND b.date_time < m.window_end EMIT ON WINDOW CLOSE""",
    "q8": f"""SELECT p.id, p.name, p.window_start FROM
          (SELECT id, name, window_start, window_end FROM TUMBLE(person, date_time, {TEN}) GROUP BY id, name, window_start, window_end) p
        JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, date_time, {TEN}) GROUP BY seller, window_start, window_end) a
        ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end EMIT ON WINDOW CLOSE""",
    "interval": f"""SELECT a.id, a.seller, b.bidder, b.price, b.date_time FROM auction a
        JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.date_time + {TEN}""",
}


def script(query, events):
    for table in ("bid", "auction", "person"):
        if re.search(rf"\b{table}\b", query):
            yield (
                f"CREATE STREAM {table} (WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds') "
                f"WITH (connector = 'nexmark', \"table\" = '{table}', events = {events});"
            )
    yield f"CREATE STREAM result WITH (connector = 'blackhole') AS {query}; FLUSH;"


def resident_mb(pid):
    found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else None


def soak(query, events):
    """(seconds, MB) from the start to the end of a run."""
    with tempfile.TemporaryDirectory() as store:
        args = [BINARY, "run", "-", "--store", store, "--parallelism", "2"]
        process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        process.stdin.write("\n".join(script(query, events)))
        process.stdin.close()
        begun, seen = time.monotonic(), []
        while process.poll() is None:
            at = time.monotonic() - begun
            if (now := resident_mb(process.pid)) is not None:
                seen.append((at, now))
            time.sleep(max(0, begun + (len(seen) + 1) * EVERY - time.monotonic()))
        assert process.returncode == 0, process.stderr.read()
    return seen


def drawn(runs, events):
    """The runs as an SVG: memory over the share of the run that is over."""
    width, height, left, bottom = 720, 320, 60, 40
    top = max(mb for run in runs.values() for _, mb in run) * 1.1
    x = lambda share: left + share * (width - left - 10)
    y = lambda mb: (height - bottom) * (1 - mb / top)
    shapes = [f'<text x="{left}" y="{height - 8}">{events:,} events, from the first to the last</text>']
    for mb in range(0, int(top) + 1, max(50, round(top / 6 / 50) * 50)):
        shapes.append(f'<path d="M{left} {y(mb):.1f}H{width - 10}" stroke="#ddd"/><text x="{left - 8}" y="{y(mb) + 4:.1f}" text-anchor="end">{mb} MB</text>')
    for n, ((name, run), colour) in enumerate(zip(runs.items(), ("#b0413e", "#2f6690", "#3a7d44"))):
        end = run[-1][0]
        points = " ".join(f"{x(at / end):.1f},{y(mb):.1f}" for at, mb in run)
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        shapes.append(f'<text x="{left + 280 + 130 * n}" y="{height - 8}" fill="{colour}">{name}, {end:.0f} s</text>')
    style = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12"'
    return f"<svg {style}>\n" + "\n".join(shapes) + "\n</svg>\n"


def main():
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000_000
    runs = {}
    for name in sys.argv[2:] or QUERIES:
        run = runs[name] = soak(QUERIES[name], events)
        (HERE / f"{name}.csv").write_text("seconds,resident_mb\n" + "".join(f"{at:.1f},{mb:.1f}\n" for at, mb in run))
        tenths = [[mb for at, mb in run if n <= at / run[-1][0] * 10 < n + 1] for n in range(10)]
        print(f"{name}: {events / run[-1][0] / 1e6:.2f} M events/s, most {max(mb for _, mb in run):.0f} MB")
        print("  middle by tenths " + " ".join(f"{statistics.median(t):.0f}" if t else "-" for t in tenths))
        print("  most by tenths   " + " ".join(f"{max(t):.0f}" if t else "-" for t in tenths), flush=True)
    (HERE / "memory.svg").write_text(drawn(runs, events))


if __name__ == "__main__":
    main()
