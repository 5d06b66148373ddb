"""Hosts on this machine: network namespaces on one bridge, which is host 0, with links that can be cut. Needs root and iproute2."""

import itertools
import os
import subprocess

COUNT = itertools.count()


def ip(*args):
    done = subprocess.run(["ip", *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(map(str, args))}: {done.stderr}hosts need root and iproute2"


class Hosts:
    """Hosts 1 to `count`, and this process on host 0."""

    def __init__(self, count):
        # Other runs may have hosts as well.
        number = os.getpid() % 200 * 100 + next(COUNT) % 100
        self.tag, self.net = f"ms{number}", f"10.{20 + number // 250}.{number % 250}"
        self.count = count
        ip("link", "add", self.tag, "type", "bridge")
        try:
            ip("addr", "add", f"{self.net}.254/24", "dev", self.tag)
            ip("link", "set", self.tag, "up")
            for n in range(1, count + 1):
                self._add(n)
        except BaseException:
            self.close()
            raise

    def _add(self, n):
        space, port = self.space(n), self.port(n)
        ip("netns", "add", space)
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", port, "master", self.tag)
        ip("link", "set", port, "up")
        ip("-n", space, "addr", "add", f"{self.address(n)}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            ip("-n", space, "link", "set", device, "up")

    def space(self, n):
        return f"{self.tag}-{n}"

    def port(self, n):
        return f"{self.tag}v{n}"

    def address(self, n):
        return f"{self.net}.{n or 254}"

    def on(self, n, command):
        """`command` as it is run on host `n`."""
        return ["ip", "netns", "exec", self.space(n), *command]

    def cut(self, n):
        """Nothing reaches host `n`, and nothing comes from it."""
        ip("link", "set", self.port(n), "down")

    def mend(self, n):
        ip("link", "set", self.port(n), "up")

    def lose(self, n, other):
        """What host `n` sends to `other` is lost; what comes from there is not."""
        ip("-n", self.space(n), "neigh", "replace", self.address(other), "lladdr", "02:00:00:00:00:99", "dev", "eth0", "nud", "permanent")

    def find(self, n, other):
        ip("-n", self.space(n), "neigh", "del", self.address(other), "dev", "eth0")

    def close(self):
        for n in range(1, self.count + 1):
            # It may not have come to be.
            subprocess.run(["ip", "netns", "del", self.space(n)], capture_output=True)
        subprocess.run(["ip", "link", "del", self.tag], capture_output=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
