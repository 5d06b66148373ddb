"""A page in headless Chromium, driven by what its developer tools speak."""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.request

import websockets.sync.client

NAMES = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"]
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-port=0"]
PATIENCE = 60


@contextlib.contextmanager
def page(folder, url):
    """Shows `url` in a browser of its own; gives a function that says what a script comes to there."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "there is no Chromium: install chromium-headless-shell"
    command = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as browser:
        try:
            said = []
            while not (found := re.match(r"DevTools listening on ws://([^/]+)/", "".join(said[-1:]))):
                said.append(browser.stderr.readline())
                assert said[-1], f"{program} did not start: {said}"
            new = urllib.request.Request(f"http://{found.group(1)}/json/new?{url}", method="PUT")
            with urllib.request.urlopen(new, timeout=PATIENCE) as answer:
                address = json.load(answer)["webSocketDebuggerUrl"]
            with websockets.sync.client.connect(address, max_size=None, proxy=None) as socket:
                yield lambda script: run(socket, script)
        finally:
            browser.kill()


def run(socket, script):
    socket.send(json.dumps({"id": 1, "method": "Runtime.evaluate", "params": {"expression": script, "returnByValue": True}}))
    while "id" not in (said := json.loads(socket.recv(PATIENCE))):
        pass
    assert "exceptionDetails" not in said["result"], said
    return said["result"]["result"].get("value")
