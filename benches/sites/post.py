"""How many rows does POST take, durable when answered, beside a server in Python that does the same?

post.py [SECONDS]: clients POST batches of 1,000 rows as JSON lines (id, user, amount, at), each waiting for its answer, to a stored
stream with checkpoints every second; then to FastAPI under uvicorn with a pyarrow writer, which answers when a Parquet file with what came in the last
second is on the disk. Prints rows a second, and rows a CPU second of the server, since the clients share the machine.
Needs fastapi and uvicorn: pip install fastapi uvicorn.
"""

import http.client
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from link import Server, ask, cpu  # noqa: E402

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 10
BATCH, CLIENTS = 1000, 128
BODY = "".join(json.dumps({"id": n, "user": f"user-{n % 97}", "amount": n / 8, "at": f"2026-11-29T10:{n % 60:02}:00"}) + "\n" for n in range(BATCH)).encode()

PYTHON = '''
import asyncio, io, os, sys
import fastapi, pyarrow, pyarrow.json, pyarrow.parquet, uvicorn
app, waiting, files = fastapi.FastAPI(), [], 0

async def write():
    global waiting, files
    while True:
        await asyncio.sleep(1)
        taken, waiting = waiting, []
        if taken:
            def keep():
                path = f"{sys.argv[2]}/{files}.parquet"
                with open(path, "wb") as f:
                    pyarrow.parquet.write_table(pyarrow.concat_tables(t for t, _ in taken), f, compression="zstd")
                    f.flush()
                    os.fsync(f.fileno())
            await asyncio.to_thread(keep)
            files += 1
            for _, done in taken:
                done.set_result(None)

@app.on_event("startup")
async def begin():
    app.state.writer = asyncio.create_task(write())

@app.post("/streams/{name}")
async def post(name: str, request: fastapi.Request):
    body = await request.body()
    done = asyncio.get_running_loop().create_future()
    waiting.append((pyarrow.json.read_json(io.BytesIO(body)), done))
    await done
    return {}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
'''


def load(port, pid, what):
    rows, ended = [0] * CLIENTS, time.monotonic() + SECONDS

    def post(client):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while time.monotonic() < ended:
            connection.request("POST", "/streams/requests", BODY, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            told = answer.read()
            assert answer.status == 200, told
            rows[client] += BATCH

    before, begun = cpu(pid), time.monotonic()
    clients = [threading.Thread(target=post, args=(i,)) for i in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    took, used, n = time.monotonic() - begun, cpu(pid) - before, sum(rows)
    print(f"{what:12} {n / took:12,.0f} rows/s {n / used:12,.0f} rows a CPU second of the server", flush=True)
    return n


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for _ in range(2):
            with Server(folder / f"store{_}", "--http", "127.0.0.1:0", "--checkpoint-interval", "1s") as server:
                url = f"grpc://{server.address}"
                ask(url, "CREATE STREAM requests (id BIGINT, user TEXT, amount DOUBLE, at TIMESTAMP)")
                port = int(server.wait_for(r"http://127.0.0.1:(\d+)", "stderr").group(1))
                n = load(port, server.process.pid, "Millstream")
                assert ask(url, "SELECT count(*) FROM requests") == [(n,)]
            kept = folder / f"python{_}"
            kept.mkdir()
            python = subprocess.Popen([sys.executable, "-c", PYTHON, "18999", str(kept)], stderr=subprocess.DEVNULL)
            time.sleep(4)
            load(18999, python.pid, "FastAPI")
            python.kill()
            python.wait()


if __name__ == "__main__":
    main()
