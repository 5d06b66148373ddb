"""A window with a terminal in it: a pseudo-terminal, and an emulator that draws what comes and answers what is asked."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

import pyte
from conftest import BINARY

PATIENCE = 20


class Answering:
    """A program that shows `text`, of which `read_to` has been read. `pump` takes in more, `send` gives it keys."""

    patience = PATIENCE

    def expect(self, pattern, patience=None):
        """Waits for `pattern` below the last match."""
        deadline = time.monotonic() + (patience or self.patience)
        goes_on = True
        while True:
            if match := re.search(pattern, self.text[self.read_to :], re.MULTILINE):
                self.read_to += match.end()
                return match
            assert goes_on and time.monotonic() < deadline, f"no {pattern!r} below {self.read_to} of\n{self.text}"
            goes_on = self.pump(0.05)

    def type(self, line):
        self.send(line + "\r")


class Window(Answering):
    """A program in a terminal; `text` is what somebody sees who scrolls back."""

    def __init__(self, *command, home, size=(40, 120)):
        environment = {"TERM": "xterm", "PATH": os.environ["PATH"], "HOME": str(home), "XDG_STATE_HOME": str(home), "LANG": "C.UTF-8"}
        lines, columns = size
        self.screen = pyte.HistoryScreen(columns, lines, history=5_000, ratio=0.5)
        self.screen.write_process_input = self.send
        self.stream = pyte.ByteStream(self.screen)
        self.read_to = 0
        self.exit_code = None
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            self.size(0, lines, columns)
            os.execve(command[0], list(map(str, command)), environment)
        self.size(self.terminal, lines, columns)

    @staticmethod
    def size(terminal, lines, columns):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def send(self, keys):
        keys = keys.encode()
        while keys:
            keys = keys[os.write(self.terminal, keys) :]

    def pump(self, seconds=0.05):
        """Draws what comes; whether a program still has the terminal."""
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            some = os.read(self.terminal, 65_536)
        except OSError:
            some = b""
        self.stream.feed(some)
        return bool(some)

    @property
    def text(self):
        width = self.screen.columns
        past = ["".join(line[x].data for x in range(width)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*past, *self.screen.display]).rstrip()

    def resize(self, lines, columns):
        # lines move: what is expected next is looked for in all of the text
        self.read_to = 0
        self.screen.resize(lines, columns)
        self.size(self.terminal, lines, columns)

    def mode(self):
        """The attributes of the terminal."""
        return termios.tcgetattr(self.terminal)

    def close_terminal(self):
        """As when the window is closed: nothing can be read or written any more."""
        os.close(self.terminal)
        self.terminal = None

    def kill(self, which):
        os.kill(self.pid, which)

    def end(self, patience=PATIENCE):
        """Waits for the end of the program and gives its exit code, or minus the signal that ended it."""
        deadline = time.monotonic() + patience
        while self.exit_code is None:
            assert time.monotonic() < deadline, f"still there:\n{self.text}"
            if self.terminal is not None:
                self.pump(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        while self.terminal is not None and self.pump(0):
            if not select.select([self.terminal], [], [], 0)[0]:
                break
        return self.exit_code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                self.kill(signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if self.terminal is not None:
            self.close_terminal()
        assert "panicked" not in self.text, self.text


def shell(store, home, *args, **options):
    """The shell in a window, at its prompt."""
    window = Window(BINARY, "--store", store, *args, home=home, **options)
    window.expect("^millstream> *$")
    return window


def connected(address, home, **options):
    """The shell in a window, connected to a server."""
    window = Window(BINARY, "shell", "--connect", f"grpc://{address}", home=home, **options)
    window.expect("^millstream> *$")
    return window
