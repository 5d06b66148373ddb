#!/usr/bin/env bash
# pyarrow 26.0.1: a stream over an object of S3 that is replaced while it is open gives as many bytes as the old object had, of the new
# one: cut off where that is longer, followed by bytes that no object has where it is shorter.
#
# One GET of an object is one version of it, so a small object that is replaced whole is often taken for something that is read whole.
# pyarrow.fs.S3FileSystem.open_input_stream asks for the length when it is opened (HEAD), and for that range when it is read (GET with
# Range), without the If-Match that would have told it that the object is another one. A JSON document that grew in between is
# cut off. One that shrank is followed by bytes of value 0 up to the length of the old one. Nothing is reported.
# The server here is moto, which shows the headers that came; what is sent is the same to any server.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet pyarrow==26.0.1 boto3==1.44.8 'moto[server,s3]==5.2.5'
"$folder/env/bin/python" - 2>"$folder/log" <<'PYTHON' || { cat "$folder/log"; exit 1; }
import boto3, pyarrow, pyarrow.fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import ThreadedMotoServer

asked = []
inner = DomainDispatcherApplication.__call__


def call(self, environ, start):
    asked.append((environ["REQUEST_METHOD"], environ.get("HTTP_RANGE"), environ.get("HTTP_IF_MATCH")))
    return inner(self, environ, start)


DomainDispatcherApplication.__call__ = call
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
endpoint = "http://{}:{}".format(*server.get_host_and_port())
keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
client = boto3.client("s3", endpoint_url=endpoint, **keys)
client.create_bucket(Bucket="lake")
lake = pyarrow.fs.S3FileSystem(access_key="key", secret_key="secret", region="us-east-1", endpoint_override=endpoint, scheme="http")


def read(old, new):
    client.put_object(Bucket="lake", Key="list.json", Body=old)
    stream = lake.open_input_stream("lake/list.json")
    client.put_object(Bucket="lake", Key="list.json", Body=new)
    return stream.read()


short, long = b'{"files":["a"]}', b'{"files":["a","b","c"]}'
grown, shrunk = read(short, long), read(long, short)
reads = [request for request in asked if request[0] in ("HEAD", "GET")]
print(f"pyarrow {pyarrow.__version__}: grown {grown}, shrunk {shrunk}; asked {reads}")
assert grown == long[: len(short)] and shrunk == short.ljust(len(long), b"\0"), "what is read of a replaced object has changed"
assert not any(condition for _, _, condition in reads), "pyarrow sends If-Match now"
PYTHON
