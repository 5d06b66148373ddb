"""The example of two sites with more that goes wrong: both are killed, and the line between them is cut, at moments from a seed.

MILLSTREAM_FAULTS=1 is the long form, as root on Linux: each site in a network of its own, with a line between them that is
taken down for up to 20 s."""

import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from certificates import Authority
from conftest import BINARY
from test_link import Wire

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "two_sites"
LONG = os.environ.get("MILLSTREAM_FAULTS") == "1"
COUNT, PACE = (150_000, 1_000) if LONG else (6_000, 1_000)
FAULTS = {"b": 5, "a": 3, "cut": 6} if LONG else {"b": 1, "a": 1, "cut": 1}
LONGEST_CUT = 20 if LONG else 1.5
PATIENCE = 120


class Loopback:
    """Both sites here; the line is a way for TCP that can be cut."""

    host_a, host_b = "127.0.0.1", "127.0.0.1"

    def __init__(self):
        self.wire = Wire()

    def within(self, site):
        return []

    def line_to(self, port):
        """The port by which B reaches `port` of A."""
        self.wire.to = f"127.0.0.1:{port}"
        return int(self.wire.address.rsplit(":", 1)[1])

    def cut(self):
        self.wire.cut()

    def mend(self):
        self.wire.mend()

    def close(self):
        self.wire.listener.close()


class Networks:
    """Each site in a network of its own."""

    host_a, host_b = "10.77.0.1", "10.77.0.2"

    def __init__(self):
        self.close()
        ip = self.ip
        for site, host in (("a", self.host_a), ("b", self.host_b)):
            ip("netns", "add", f"ms_{site}")
        ip("link", "add", "ms_va", "netns", "ms_a", "type", "veth", "peer", "name", "ms_vb", "netns", "ms_b")
        for site, host in (("a", self.host_a), ("b", self.host_b)):
            ip("-n", f"ms_{site}", "addr", "add", f"{host}/24", "dev", f"ms_v{site}")
            ip("-n", f"ms_{site}", "link", "set", f"ms_v{site}", "up")
            ip("-n", f"ms_{site}", "link", "set", "lo", "up")

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, capture_output=True)

    def within(self, site):
        return ["ip", "netns", "exec", f"ms_{site}"]

    def line_to(self, port):
        return port

    def cut(self):
        self.ip("-n", "ms_a", "link", "set", "ms_va", "down")

    def mend(self):
        self.ip("-n", "ms_a", "link", "set", "ms_va", "up")

    def close(self):
        for site in ("a", "b"):
            subprocess.run(["ip", "netns", "del", f"ms_{site}"], capture_output=True)


class Sites:
    def __init__(self, folder):
        self.folder, self.ground = folder, Networks() if LONG else Loopback()
        self.flight, self.http = free_ports(2)
        self.running = {}
        authority = Authority(folder, "ca")
        for who in ("site_a", "site_b", "gate"):
            for made in authority.issue(who, address=self.ground.host_a):
                made.rename(folder / f"{who}{made.suffix}")
        self.gate = subprocess.Popen(
            [*self.ground.within("a"), sys.executable, EXAMPLE / "gate.py", folder, str(COUNT), self.ground.host_a, str(PACE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        udp, offers = self.gate.stdout.readline().split()
        self.make("a", {"HOST": self.ground.host_a, "OFFERS": offers})
        self.start("a")
        line = str(self.ground.line_to(self.flight))
        host = self.ground.host_a
        self.make("b", {"HOST": host, "FLIGHT": line, "UDP": udp, "FOLDER": str(folder)})
        self.start("b")
        self.gate.stdin.write(f"{self.http}\n")
        self.gate.stdin.flush()

    def run(self, site, sql):
        done = subprocess.run(
            [*self.ground.within(site), BINARY, "run", "-", "--store", self.folder / site, "--format", "csv"],
            input=sql, capture_output=True, text=True, timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def make(self, site, words):
        sql = (EXAMPLE / f"site_{site}.sql").read_text()
        for word, value in words.items():
            sql = sql.replace(word, value)
        self.run(site, sql)

    def start(self, site):
        args = [BINARY, "serve", "--store", self.folder / site, "--checkpoint-interval", "20ms"]
        if site == "a":
            args += ["--listen", f"{self.ground.host_a}:{self.flight}", "--http", f"{self.ground.host_a}:{self.http}"]
            args += ["--tls-cert", self.folder / "site_a.pem", "--tls-key", self.folder / "site_a.key", "--tls-client-ca", self.folder / "ca.pem"]
        else:
            args += ["--listen", "127.0.0.1:0"]
        log = open(self.folder / f"{site}.log", "ab")
        self.running[site] = subprocess.Popen([*self.ground.within(site), *map(str, args)], stderr=log)

    def kill(self, site):
        self.running[site].send_signal(signal.SIGKILL)
        self.running[site].wait()
        self.start(site)

    def stop(self):
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            assert process.wait(PATIENCE) == 0

    def cut(self, chance):
        self.ground.cut()
        time.sleep(chance.uniform(1, LONGEST_CUT))
        self.ground.mend()

    def close(self):
        for process in [*self.running.values(), self.gate]:
            process.kill()
        self.ground.close()


def test_two_sites_that_are_killed_and_cut_off(tmp_path):
    seed = int(os.environ.get("MILLSTREAM_SEED", random.randrange(1 << 30)))
    print(f"MILLSTREAM_SEED={seed}")
    chance = random.Random(seed)
    sites, begun, said = Sites(tmp_path), time.monotonic(), []
    try:
        last = COUNT / PACE
        # Kills at any moment; cuts one after the other.
        kills = sorted((chance.uniform(0.5, last), site) for site in "ab" for _ in range(FAULTS[site]))

        def cuts():
            each = last / FAULTS["cut"]
            for n in range(FAULTS["cut"]):
                time.sleep(max(0, begun + (n + chance.uniform(0, 0.3)) * each - time.monotonic()))
                said.append(f"cut at {time.monotonic() - begun:.1f} s")
                sites.cut(chance)

        cutting = threading.Thread(target=cuts, daemon=True)
        cutting.start()
        for at, site in kills:
            time.sleep(max(0, begun + at - time.monotonic()))
            said.append(f"killed {site} at {time.monotonic() - begun:.1f} s")
            sites.kill(site)
        cutting.join()
        out, err = sites.gate.communicate(timeout=last + PATIENCE)
        assert sites.gate.returncode == 0, err
        # All has come when the last window has.
        wanted, deadline = COUNT + 2, time.monotonic() + PATIENCE
        while (sizes := rows_of(tmp_path / "b", "kept")) < wanted and time.monotonic() < deadline:
            time.sleep(0.1)
        assert sizes == wanted, (tmp_path / "b.log").read_text()[-2000:]
        sites.stop()
        kept = sites.run("b", f"SELECT count(*), count(DISTINCT id), min(id), max(id) FROM kept WHERE id < {COUNT};")
        assert kept[1] == f"{COUNT},{COUNT},0,{COUNT - 1}"
        counts = "SELECT path, window_end, requests, bytes FROM counts"
        batch = (
            "SELECT path, window_end, count(*) AS requests, sum(bytes) AS bytes FROM TUMBLE(kept, at, INTERVAL '1 second') "
            f"WHERE id < {COUNT} GROUP BY path, window_end"
        )
        for one, other in ((counts, batch), (batch, counts)):
            assert sites.run("b", f"SELECT count(*) FROM ({one} EXCEPT ALL {other}) AS x;")[1] == "0"
        # What came back is what was sent; what did not was lost on the way.
        sent = sites.run("b", "SELECT path, window_end, requests FROM counts;")[1:]
        sent = {(path, end.replace(" ", "T")): int(n) for path, end, n in (line.split(",") for line in sent)}
        back = {(path, end.replace(" ", "T")): n for path, end, n in json.loads((tmp_path / "back.json").read_text())}
        assert all(sent[key] == n for key, n in back.items()), "what came back is wrong"
        lost = len(sent) - len(back)
        print(f"{', '.join(said)}\n{out}{lost} of {len(sent)} counts were lost on the way back")
        assert lost < len(sent) / 2
        for site in "ab":
            log = (tmp_path / f"{site}.log").read_text()
            assert not re.search(r"panicked|internal error", log), log[-2000:]
    finally:
        sites.close()


def free_ports(n):
    """Ports that nobody has now: a site keeps its own when it comes back."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in taken]
    for one in taken:
        one.close()
    return ports


def rows_of(store, stream):
    try:
        return json.loads((store / "live" / f"{stream}.json").read_text())["rows"]
    except (OSError, ValueError):
        return 0
