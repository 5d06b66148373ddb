"""Who gets in, and what they may do there: tables of attempts, each of which is refused clearly. Nothing secret is told."""

import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time

import adbc_driver_flightsql.dbapi as flightsql
import adbc_driver_manager
import pyarrow
import pyarrow.flight as flight
import pytest
from certificates import Authority
from conftest import BINARY, Process, Server
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PASSWORD = "correct horse battery"
KEY = "0123456789abcdef0123456789abcdef"
ISSUER, AUDIENCE = "https://issuer.example.org", "millstream"
REFUSED = (adbc_driver_manager.Error, flight.FlightError, pyarrow.ArrowException, OSError, KeyError)


def add_admin(store, name="admin", password=PASSWORD):
    done = subprocess.run(
        [BINARY, "user", "add", name, "--store", store], input=f"{password}\n", text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert password not in done.stdout + done.stderr
    return done


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """An identity provider: a key, its JWKS, and tokens."""

    def __init__(self, folder, kid="k1"):
        self.kid, self.key = kid, rsa.generate_private_key(65537, 2048)
        numbers = self.key.public_key().public_numbers()
        number = lambda n: b64(n.to_bytes((n.bit_length() + 7) // 8, "big"))
        self.jwk = {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": number(numbers.n), "e": number(numbers.e)}
        self.jwks = folder / f"{kid}.jwks"
        self.jwks.write_text(json.dumps({"keys": [self.jwk]}))
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = self.key.public_key().public_bytes(serialization.Encoding.PEM, form)

    def token(self, sub="reader", header=None, without=(), **claims):
        now = int(time.time())
        claims = {"sub": sub, "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600, **claims}
        claims = {name: value for name, value in claims.items() if name not in without}
        return self.sign({"alg": "RS256", "typ": "JWT", "kid": self.kid, **(header or {})}, claims)

    def sign(self, header, claims):
        text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{text}.{b64(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def mac(self, secret):
        """As if the public key were the secret of a MAC."""
        now = int(time.time())
        claims = {"sub": "admin", "iss": ISSUER, "aud": AUDIENCE, "exp": now + 600}
        text = f"{b64(json.dumps({'alg': 'HS256', 'kid': self.kid}).encode())}.{b64(json.dumps(claims).encode())}"
        return f"{text}.{b64(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"

    def unsigned(self):
        claims = {"sub": "admin", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600}
        return f"{b64(json.dumps({'alg': 'none'}).encode())}.{b64(json.dumps(claims).encode())}."


class Guarded:
    """A server with users, streams `a` and `b`, and a folder whose files may be touched."""

    def __init__(self, folder, *args, client_ca=False):
        self.folder, self.store, self.files = folder, folder / "inside" / "store", folder / "inside"
        self.files.mkdir()
        (self.files / "in.csv").write_text("x\n1\n2\n")
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "secret.csv").write_text("x\n1\n")
        (self.files / "link").symlink_to(self.outside)
        (self.files / "link.csv").symlink_to(self.outside / "secret.csv")
        add_admin(self.store)
        self.authority, self.other = Authority(folder, "ours"), Authority(folder, "theirs")
        self.cert, self.key = self.authority.issue("localhost")
        self.issuer, self.foreign = Issuer(folder), Issuer(folder, "k2")
        self.key_file = self.files / "key"
        self.key_file.write_text(KEY)
        mutual = ["--tls-client-ca", self.authority.cert] if client_ca else []
        oidc = ["--oidc-issuer", ISSUER, "--oidc-audience", AUDIENCE, "--oidc-jwks", self.issuer.jwks]
        self.server = Server(
            self.store, "--http", "127.0.0.1:0", "--tls-cert", self.cert, "--tls-key", self.key, "--key-file", self.key_file, *mutual, *oidc, *args,
            files=self.files, env={**os.environ, "MILLSTREAM_LOG": "debug"},
        )
        self.port = int(self.server.address.rsplit(":", 1)[1])
        self.web = int(self.server.wait_for(r"^http: https://127.0.0.1:(\d+)$", "stderr").group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.__exit__(*_)

    def adbc(self, user="admin", password=PASSWORD, identity=None, ca=None, **options):
        options = {
            "username": user, "password": password,
            "adbc.flight.sql.client_option.tls_root_certs": (ca or self.authority).cert.read_text(), **options,
        }
        if user is None:
            del options["username"], options["password"]
        if identity:
            options["adbc.flight.sql.client_option.mtls_cert_chain"] = identity[0].read_text()
            options["adbc.flight.sql.client_option.mtls_private_key"] = identity[1].read_text()
        return flightsql.connect(f"grpc+tls://localhost:{self.port}", db_kwargs=options, autocommit=True)

    def run(self, sql, user="admin", **options):
        with self.adbc(user, **options) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None

    def raw(self, identity=None, ca=None, **options):
        shown = {"cert_chain": identity[0].read_bytes(), "private_key": identity[1].read_bytes()} if identity else {}
        roots = (ca or self.authority).cert.read_bytes()
        return flight.FlightClient(f"grpc+tls://localhost:{self.port}", tls_root_certs=roots, **shown, **options)

    def token(self, user="admin", password=PASSWORD):
        header, value = self.raw().authenticate_basic_token(user, password)
        return value.decode().split(" ", 1)[1]

    def ask(self, authorization, sql="SELECT 1", client=None):
        """What `sql` gives with this authorization header."""
        headers = [(b"authorization", authorization.encode())] if authorization is not None else []
        options = flight.FlightCallOptions(headers=headers, timeout=30)
        client = client or self.raw()
        info = client.get_flight_info(command(sql), options)
        return client.do_get(info.endpoints[0].ticket, options).read_all()

    def http(self, method, path, body=None, user="admin", identity=None, **headers):
        """The status and the body of an answer over HTTPS."""
        context = ssl.create_default_context(cafile=self.authority.cert)
        if identity:
            context.load_cert_chain(*identity)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if user:
            login = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
            headers.setdefault("authorization", f"Basic {login}")
        connection = http.client.HTTPSConnection("localhost", self.web, context=context, timeout=60)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (ssl.SSLError, ConnectionError):
            # It was answered and closed before all of it was sent.
            return "closed", ""
        finally:
            connection.close()

    def memory(self):
        """Bytes that the server takes."""
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024


def field(number, data):
    data = data if isinstance(data, bytes) else data.encode()
    size, length = len(data), b""
    while True:
        size, low = size >> 7, size & 127
        length += bytes([low | (128 if size else 0)])
        if not size:
            return bytes([number << 3 | 2]) + length + data


def packed(name, data):
    return field(1, f"type.googleapis.com/arrow.flight.protocol.sql.{name}") + field(2, data)


def command(sql):
    return flight.FlightDescriptor.for_command(packed("CommandStatementQuery", field(1, sql)))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Guarded(tmp_path_factory.mktemp("doors")) as guarded:
        for sql in [
            "CREATE STREAM a (x BIGINT)",
            "CREATE STREAM b (x BIGINT)",
            "CREATE VIEW v AS SELECT x FROM b",
            f"CREATE USER reader PASSWORD '{PASSWORD}'",
            f"CREATE USER writer PASSWORD '{PASSWORD}'",
            f"CREATE USER maker PASSWORD '{PASSWORD}'",
            "GRANT read ON STREAM a TO reader",
            "GRANT write ON STREAM a TO writer",
            "GRANT admin ON ALL TO maker",
            "INSERT INTO a VALUES (1), (2)",
            "INSERT INTO b VALUES (3)",
        ]:
            guarded.run(sql)
        yield guarded
        assert guarded.server.stop() == 0, guarded.server.stderr


def refused(attempt, pattern):
    with pytest.raises(REFUSED) as e:
        attempt()
    assert re.search(pattern, str(e.value), re.S), str(e.value)


# Who is it


def tampered(token, part):
    parts = token.split(".")
    data = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    data |= {"sub": "admin"} if part else {"alg": "RS512"}
    parts[part] = b64(json.dumps(data).encode())
    return ".".join(parts)


WRONG, UNKNOWN = "user name or password is wrong", "not known, or it has expired"
INVALID = "the token is not valid"

LOGINS = {
    "no login": (lambda g: g.ask(None), "needs a user name"),
    "nothing": (lambda g: g.ask(""), "neither Basic nor Bearer"),
    "another scheme": (lambda g: g.ask("Digest admin"), "neither Basic nor Bearer"),
    "a forged token": (lambda g: g.ask("Bearer " + "0" * 64), UNKNOWN),
    "an empty token": (lambda g: g.ask("Bearer "), UNKNOWN),
    "a token with a letter changed": (lambda g: g.ask("Bearer " + g.token()[:-1] + "x"), UNKNOWN),
    "half a token": (lambda g: g.ask("Bearer " + g.token()[:32]), UNKNOWN),
    "a token as a password": (lambda g: g.ask("Basic " + g.token()), "malformed|wrong"),
    "no base64": (lambda g: g.ask("Basic ???"), "malformed"),
    "no colon": (lambda g: g.ask("Basic " + base64.b64encode(b"admin").decode()), "malformed"),
    "an endless header": (lambda g: g.ask("Bearer " + "a" * 20_000), "too long|header|larger"),
    "headers beyond all bounds": (lambda g: g.ask("Bearer " + "a" * 200_000), "header|RESET|closed|larger|metadata|continuations"),
    "unsigned": (lambda g: g.ask("Bearer " + g.issuer.unsigned()), INVALID),
    "a MAC with the public key": (lambda g: g.ask("Bearer " + g.issuer.mac(g.issuer.pem)), INVALID),
    "a MAC with the JWKS": (lambda g: g.ask("Bearer " + g.issuer.mac(g.issuer.jwks.read_bytes())), INVALID),
    "a MAC with the modulus": (lambda g: g.ask("Bearer " + g.issuer.mac(g.issuer.jwk["n"].encode())), INVALID),
    "a foreign key": (lambda g: g.ask("Bearer " + g.foreign.token()), INVALID),
    "a foreign key under our name": (lambda g: g.ask("Bearer " + g.foreign.token(header={"kid": "k1"})), INVALID),
    "another algorithm": (lambda g: g.ask("Bearer " + tampered(g.issuer.token(), 0)), INVALID),
    "another user": (lambda g: g.ask("Bearer " + tampered(g.issuer.token(), 1)), INVALID),
    "expired": (lambda g: g.ask("Bearer " + g.issuer.token(exp=int(time.time()) - 3600)), INVALID),
    "never expires": (lambda g: g.ask("Bearer " + g.issuer.token(without=["exp"])), INVALID),
    "not yet": (lambda g: g.ask("Bearer " + g.issuer.token(nbf=int(time.time()) + 3600)), INVALID),
    "another issuer": (lambda g: g.ask("Bearer " + g.issuer.token(iss="https://evil.example.org")), INVALID),
    "no issuer": (lambda g: g.ask("Bearer " + g.issuer.token(without=["iss"])), INVALID),
    "another audience": (lambda g: g.ask("Bearer " + g.issuer.token(aud="shop")), INVALID),
    "no audience": (lambda g: g.ask("Bearer " + g.issuer.token(without=["aud"])), INVALID),
    "no user": (lambda g: g.ask("Bearer " + g.issuer.token(without=["sub"])), INVALID),
    "a user that there is not": (lambda g: g.ask("Bearer " + g.issuer.token(sub="mallory")), UNKNOWN),
    "without TLS": (lambda g: flight.FlightClient(f"grpc://localhost:{g.port}").get_flight_info(
        command("SELECT 1"), flight.FlightCallOptions(timeout=10)), "."),
    "an authority that the client does not know": (lambda g: g.ask("x", client=g.raw(ca=g.other)), "certificate|handshake|ertificate"),
}


@pytest.mark.parametrize("name", LOGINS)
def test_who_is_not_let_in(guarded, name):
    attempt, pattern = LOGINS[name]
    refused(lambda: attempt(guarded), pattern)


def test_who_is_let_in(guarded):
    assert guarded.ask(f"Bearer {guarded.token()}").num_rows == 1
    basic = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
    assert guarded.ask(f"Basic {basic}").num_rows == 1
    assert guarded.ask(f"bearer {guarded.issuer.token()}", "SELECT * FROM a").num_rows == 2
    assert guarded.run("SELECT x FROM a ORDER BY x", "reader") == [(1,), (2,)]


def test_passwords_that_are_wrong_slow_down(tmp_path):
    add_admin(tmp_path / "store")
    with Server(tmp_path / "store") as server:
        client = flight.FlightClient(f"grpc://{server.address}")
        for _ in range(3):
            refused(lambda: client.authenticate_basic_token("admin", "wrong"), WRONG)
        refused(lambda: client.authenticate_basic_token("admin", PASSWORD), "too many failed logins")
        time.sleep(1.1)
        client.authenticate_basic_token("admin", PASSWORD)


def test_tokens_end(tmp_path):
    store = tmp_path / "store"
    add_admin(store)
    add_admin(store, "second")
    with Server(store, "--token-lifetime", "2s") as server:
        client = flight.FlightClient(f"grpc://{server.address}")

        def login(user, password=PASSWORD):
            options = flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, password)])
            return lambda sql="SELECT 1": list(client.get_flight_info(command(sql), options).endpoints)

        ask = login("admin")
        ask()
        time.sleep(2.5)
        refused(ask, UNKNOWN)
        old = login("second")
        old()
        login("admin")("ALTER USER second PASSWORD 'another password'")
        refused(old, UNKNOWN)
        new = login("second", "another password")
        login("admin")("DROP USER second")
        refused(new, UNKNOWN)


def test_certificates(tmp_path):
    with Guarded(tmp_path, client_ca=True) as guarded:
        good = guarded.authority.issue("admin")
        assert guarded.run("SELECT 1", user=None, identity=good) == [(1,)]
        assert guarded.run("SELECT 1", identity=good) == [(1,)]
        for identity, why in [
            (None, "no certificate"),
            (guarded.other.issue("admin"), "another authority"),
            (guarded.authority.issue("late", ended=True), "an expired one"),
        ]:
            refused(lambda: guarded.run("SELECT 1", identity=identity), ".")
            raw = guarded.raw(identity=identity)
            refused(lambda: raw.get_flight_info(command("SELECT 1"), flight.FlightCallOptions(timeout=10)), ".")
        assert guarded.http("GET", "/streams/millstream.none", user=None, identity=good)[0] in (400, 404)
        for identity in [None, guarded.other.issue("admin"), guarded.authority.issue("late", ended=True)]:
            assert guarded.http("GET", "/healthz", user=None, identity=identity)[0] == "closed", "no such certificate, no answer"
        nobody = guarded.raw(identity=guarded.authority.issue("mallory"))
        refused(lambda: guarded.ask(None, client=nobody), "the certificate is of no user")
        # A login counts before the certificate.
        refused(lambda: guarded.ask("Bearer x", client=guarded.raw(identity=good)), UNKNOWN)


def shown(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 10) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True)


def test_a_certificate_is_renewed_without_a_restart(guarded):
    before = shown(guarded.port)
    cert, key = guarded.authority.issue("localhost.")
    shutil.copy(key, guarded.key)
    shutil.copy(cert, guarded.cert)
    deadline = time.monotonic() + 20
    while shown(guarded.port) == before:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert guarded.run("SELECT 1") == [(1,)]
    guarded.cert.write_text("nonsense")
    time.sleep(2.5)
    assert guarded.run("SELECT 1") == [(1,)], "the last good one is shown"
    shutil.copy(cert, guarded.cert)


def test_open_doors_are_refused_beyond_loopback(tmp_path):
    store = tmp_path / "store"

    def serve(*args, listen="0.0.0.0:0"):
        with Process("serve", "--store", store, "--listen", listen, *args) as process:
            return process.wait(), process.stderr

    code, said = serve()
    assert code == 1 and "without TLS and users" in said and "--insecure" in said
    add_admin(store)
    code, said = serve()
    assert code == 1 and "without TLS" in said
    with Server(store, "--insecure", listen="0.0.0.0:0") as server:
        assert server.stop() == 0
    authority = Authority(tmp_path, "a")
    cert, key = authority.issue("localhost")
    code, said = serve("--http", "0.0.0.0:0", listen="127.0.0.1:0")
    assert code == 1 and "without TLS" in said
    with Server(store, "--tls-cert", cert, "--tls-key", key, listen="0.0.0.0:0") as server:
        assert server.stop() == 0


# What they may do there

DENIED = "may not|denied|given to another|not known"


def put(g, user, stream):
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token(user).encode())])
    table = pyarrow.table({"x": [9]})
    writer, reader = g.raw().do_put(flight.FlightDescriptor.for_path(stream), table.schema, options)
    writer.write_table(table)
    writer.done_writing()
    reader.read()
    writer.close()


def ingest(g, user, stream, mode):
    with g.adbc(user) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest(stream, pyarrow.table({"x": [9]}), mode=mode)


def others_ticket(g):
    mine = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token("admin").encode())])
    theirs = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token("reader").encode())])
    info = g.raw().get_flight_info(command("SELECT * FROM b"), mine)
    return g.raw().do_get(info.endpoints[0].ticket, theirs).read_all()


def others_handle(g, close=False):
    mine = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token("admin").encode())])
    theirs = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token("reader").encode())])
    request = packed("ActionCreatePreparedStatementRequest", field(1, "SELECT * FROM a"))
    (result,) = g.raw().do_action(flight.Action("CreatePreparedStatement", request), mine)
    answer = result.body.to_pybytes()
    # google.protobuf.Any: its value holds the handle as its first field.
    handle = re.search(rb"[0-9a-f]{32}", answer).group()
    query = flight.FlightDescriptor.for_command(packed("CommandPreparedStatementQuery", field(1, handle)))
    g.raw().get_flight_info(query, mine)
    if close:
        forget = packed("ActionClosePreparedStatementRequest", field(1, handle))
        list(g.raw().do_action(flight.Action("ClosePreparedStatement", forget), theirs))
        return g.raw().get_flight_info(query, mine)
    return g.raw().get_flight_info(query, theirs)


def path_schema(g, user, *path):
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + g.token(user).encode())])
    return g.raw().get_schema(flight.FlightDescriptor.for_path(*path), options)


def link(g, connector, options):
    return g.run(f"CREATE STREAM l (x BIGINT) WITH (connector = '{connector}', {options})", "maker")


INWARDS = "no address that statements from outside may connect to|is not for statements from outside"


def file_stream(g, path, more=""):
    return g.run(f"CREATE STREAM f (x BIGINT) WITH (connector = 'file', path = '{path}', format = 'csv'{more})", "maker")


OUT = "statements from outside may touch|where it lies|not for statements from outside"

RIGHTS = {
    "a reader inserts": (lambda g: g.run("INSERT INTO a VALUES (1)", "reader"), DENIED),
    "a reader ingests": (lambda g: ingest(g, "reader", "a", "append"), DENIED),
    "a reader puts": (lambda g: put(g, "reader", "a"), DENIED),
    "a writer reads": (lambda g: g.run("SELECT * FROM a", "writer"), DENIED),
    "a writer makes a stream by ingestion": (lambda g: ingest(g, "writer", "new", "create"), DENIED),
    "a writer replaces a stream by ingestion": (lambda g: ingest(g, "writer", "a", "replace"), DENIED),
    "a reader reads another stream": (lambda g: g.run("SELECT * FROM b", "reader"), DENIED),
    "a reader reads through another's view": (lambda g: g.run("SELECT * FROM v", "reader"), DENIED),
    "a reader follows": (lambda g: g.run("SELECT * FROM b EMIT CHANGES", "reader"), DENIED),
    "a reader explains": (lambda g: g.run("EXPLAIN SELECT * FROM b", "reader"), DENIED),
    "a reader asks for a schema": (lambda g: path_schema(g, "reader", "b"), DENIED),
    "a reader asks for what there is not": (lambda g: path_schema(g, "reader", "nothing"), DENIED),
    "a reader creates": (lambda g: g.run("CREATE STREAM z (x BIGINT)", "reader"), DENIED),
    "a reader drops": (lambda g: g.run("DROP STREAM a", "reader"), DENIED),
    "a reader grants": (lambda g: g.run("GRANT read ON STREAM b TO reader", "reader"), DENIED),
    "a reader makes a user": (lambda g: g.run("CREATE USER mole PASSWORD 'hunter2hunter2'", "reader"), DENIED),
    "a reader takes the memory": (lambda g: g.run("SET memory_limit = '1TB'", "reader"), DENIED),
    "a reader reads the audit": (lambda g: g.run("SELECT * FROM millstream.audit", "reader"), DENIED),
    "a reader writes a file": (lambda g: g.run(f"COPY a TO '{g.files}/x.csv'", "reader"), DENIED),
    "somebody else's ticket": (others_ticket, DENIED),
    "somebody else's handle": (others_handle, DENIED),
    "the last user goes": (lambda g: g.run("DROP USER admin; DROP USER reader", "maker"), "one is expected"),
    "a path beyond": (lambda g: file_stream(g, "/etc/passwd"), OUT),
    "a path up": (lambda g: file_stream(g, f"{g.files}/../outside/secret.csv"), OUT),
    "a path by a link": (lambda g: file_stream(g, f"{g.files}/link/secret.csv"), OUT),
    "a link": (lambda g: file_stream(g, f"{g.files}/link.csv"), OUT),
    "a pattern through a link": (lambda g: file_stream(g, f"{g.files}/link/*.csv"), OUT),
    "a pattern that finds a link": (lambda g: file_stream(g, f"{g.files}/l*.csv"), OUT),
    "a list with one beyond": (lambda g: file_stream(g, f"{g.files}/in.csv,/etc/passwd"), OUT),
    "the store": (lambda g: file_stream(g, f"{g.store}/catalog/*.json"), OUT),
    "the key": (lambda g: file_stream(g, g.key_file), OUT),
    "a relative path": (lambda g: file_stream(g, "Cargo.toml"), OUT),
    "a copy beyond": (lambda g: g.run(f"COPY a TO '{g.outside}/x.csv'", "maker"), OUT),
    "a copy by a link": (lambda g: g.run(f"COPY a TO '{g.files}/link/x.csv'", "maker"), OUT),
    "a copy into the store": (lambda g: g.run(f"COPY a TO '{g.store}/catalog/x.csv'", "maker"), OUT),
    "a copy with file://": (lambda g: g.run(f"COPY a TO 'file://{g.outside}/x.csv'", "maker"), OUT),
    "a sink beyond": (lambda g: g.run(
        f"CREATE STREAM o WITH (connector = 'file', path = '{g.outside}/', format = 'csv') AS SELECT * FROM a", "maker"), OUT),
    "standard input": (lambda g: g.run("CREATE STREAM i (x BIGINT) WITH (connector = 'stdin', format = 'csv')", "maker"), OUT),
    "a socket inwards": (lambda g: link(g, "socket", "address = '127.0.0.1:22'"), INWARDS),
    "a socket to another name of it": (lambda g: link(g, "socket", "address = 'localhost:22'"), INWARDS),
    "a socket to a number that means it": (lambda g: link(g, "socket", "address = '2130706433:22'"), INWARDS),
    "datagrams": (lambda g: link(g, "socket", "protocol = 'udp', address = '0.0.0.0:0'"), INWARDS),
    "a listener": (lambda g: link(g, "socket", "mode = 'listener', address = '0.0.0.0:0'"), INWARDS),
    "a sink inwards": (lambda g: g.run(
        "CREATE STREAM l WITH (connector = 'socket', address = '[::1]:22') AS SELECT * FROM a", "maker"), INWARDS),
    "a feed inwards": (lambda g: link(g, "websocket", "url = 'ws://169.254.169.254/latest'"), INWARDS),
    "a poll inwards": (lambda g: link(g, "http", f"url = 'https://localhost:{g.web}/metrics'"), INWARDS),
    "a poll of what tells secrets": (lambda g: link(g, "http", "url = 'http://169.254.169.254/latest', format = 'csv'"), INWARDS),
    "a post inwards": (lambda g: g.run(
        "CREATE STREAM l WITH (connector = 'http', url = 'http://[::ffff:127.0.0.1]:80/') AS SELECT * FROM a", "maker"), INWARDS),
    "a link to itself": (lambda g: link(g, "flight", f"url = 'grpc://127.0.0.1:{g.port}', query = 'SELECT 1'"), INWARDS),
    "a key from elsewhere": (lambda g: link(
        g, "socket", f"mode = 'listener', tls = true, tls_cert = '{g.cert}', tls_key = '{g.key}', address = '10.0.0.1:1'"), INWARDS + "|" + OUT),
    "a name that is a path": (lambda g: g.run('SELECT * FROM "../../outside"', "maker"), "does not exist"),
}


@pytest.mark.parametrize("name", RIGHTS)
def test_what_is_refused(guarded, name):
    attempt, pattern = RIGHTS[name]
    refused(lambda: attempt(guarded), pattern)
    assert not (guarded.outside / "x.csv").exists()


def test_what_is_allowed(guarded):
    put(guarded, "writer", "a")
    ingest(guarded, "writer", "a", "append")
    others_handle(guarded, close=True)
    file_stream(guarded, f"{guarded.files}/in.csv")
    assert guarded.run("SELECT x FROM f ORDER BY x") == [(1,), (2,)]
    guarded.run(f"COPY f TO '{guarded.files}/out.csv'", "maker")
    assert (guarded.files / "out.csv").read_text() == "x\n1\n2\n"
    # A link that comes later is found when the file is opened.
    (guarded.files / "in.csv").unlink()
    (guarded.files / "in.csv").symlink_to(guarded.outside / "secret.csv")
    refused(lambda: guarded.run("SELECT x FROM f"), OUT)
    guarded.run("DROP STREAM f")


def test_a_name_that_is_a_path_stays_in_the_store(guarded):
    guarded.run('CREATE STREAM "../../escaped" (x BIGINT)', "maker")
    guarded.run('INSERT INTO "../../escaped" VALUES (1)', "maker")
    assert guarded.run('SELECT x FROM "../../escaped"') == [(1,)]
    assert not list(guarded.folder.rglob("escaped*")), "its folder's name has no slashes"
    guarded.run('DROP STREAM "../../escaped"', "maker")


LINES = {"Content_Type": "application/x-ndjson"}
PLAIN = {"Content_Type": "text/plain"}

WEB = {
    "nobody": (lambda g: g.http("GET", "/streams/a", user=None), 401, "needs a user name"),
    "nobody puts": (lambda g: g.http("POST", "/streams/a", '{"x": 1}', user=None, **LINES), 401, "needs a user name"),
    "nobody looks at the figures": (lambda g: g.http("GET", "/metrics", user=None), 401, "needs a user name"),
    "a forged token": (lambda g: g.http("GET", "/streams/a", user=None, authorization="Bearer x"), 401, UNKNOWN),
    "a token without a signature": (
        lambda g: g.http("GET", "/streams/a", user=None, authorization=f"Bearer {g.issuer.unsigned()}"), 401, INVALID),
    "a MAC with the public key": (
        lambda g: g.http("GET", "/streams/a", user=None, authorization=f"Bearer {g.issuer.mac(g.issuer.pem)}"), 401, INVALID),
    "an expired token": (lambda g: g.http(
        "GET", "/streams/a", user=None, authorization=f"Bearer {g.issuer.token(exp=int(time.time()) - 3600)}"), 401, INVALID),
    "another stream": (lambda g: g.http("GET", "/streams/b", user="reader"), 403, "may not read"),
    "what there is not": (lambda g: g.http("GET", "/streams/nothing", user="reader"), 403, "may not read"),
    "another stream in a condition": (
        lambda g: g.http("GET", "/streams/a?where=x%20IN%20(SELECT%20x%20FROM%20b)", user="reader"), 403, "may not read"),
    "a reader puts": (lambda g: g.http("POST", "/streams/a", '{"x": 1}', user="reader", **LINES), 403, "may not write"),
    "a writer reads": (lambda g: g.http("GET", "/streams/a", user="writer"), 403, "may not read"),
    "a reader states": (lambda g: g.http("POST", "/sql", "DROP STREAM a", user="reader", **PLAIN), 403, "may not change"),
    "a path beyond": (lambda g: g.http("POST", "/sql",
        "CREATE STREAM f (x BIGINT) WITH (connector = 'file', path = '/etc/passwd', format = 'csv')", **PLAIN), 403, OUT),
    "a copy beyond": (lambda g: g.http("POST", "/sql", f"COPY a TO '{g.outside}/x.csv'", **PLAIN), 403, OUT),
    "a name that is a path": (lambda g: g.http("GET", "/streams/..%2F..%2Fcatalog"), 404, "does not exist"),
    "headers beyond all bounds": (lambda g: g.http("GET", "/streams/a", x_more="a" * 100_000), (431, "closed"), ""),
    "a long line of the request": (lambda g: g.http("GET", "/streams/a?where=" + "x" * 100_000), (414, 431, "closed"), ""),
}


@pytest.mark.parametrize("name", WEB)
def test_what_is_refused_over_http(guarded, name):
    attempt, expected, pattern = WEB[name]
    status, body = attempt(guarded)
    assert status == expected or (isinstance(expected, tuple) and status in expected), (status, body)
    assert re.search(pattern, body, re.S), body


def test_what_is_allowed_over_http(guarded):
    token = guarded.token("reader")
    status, body = guarded.http("GET", "/streams/a?where=x=1", user=None, authorization=f"Bearer {token}")
    assert status == 200 and json.loads(body), "the token of a login over Flight is good here"
    status, body = guarded.http("POST", "/streams/a", '{"x": 77}\n', user="writer", **LINES)
    assert status == 200 and json.loads(body)["rows"] == 1, body
    with socket.create_connection(("127.0.0.1", guarded.web), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not connection.recv(100).startswith(b"HTTP"), "without TLS there is no HTTP"


def test_lists_have_what_may_be_read(guarded):
    with guarded.adbc("reader") as connection:
        tables = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    names = {t["table_name"] for c in tables for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []}
    assert names == {"a", "dead_letters"}
    options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + guarded.token("reader").encode())])
    flights = [f.descriptor.path for f in guarded.raw().list_flights(options=options)]
    assert sorted(flights) == [[b"millstream", b"dead_letters"], [b"public", b"a"]]
    assert [name for name, *_ in guarded.run("SHOW STREAMS", "reader")] == ["a"]
    with guarded.adbc("admin") as connection:
        tables = connection.adbc_get_objects(depth="tables").read_all().to_pylist()
    names = {t["table_name"] for c in tables for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []}
    assert {"a", "b", "v", "audit"} <= names


def test_a_right_that_is_taken_back_ends_what_is_followed(guarded):
    guarded.run("GRANT read ON STREAM b TO reader")
    with guarded.adbc("reader") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM b EMIT CHANGES")
        assert cursor.fetchone() == (3,)
        guarded.run("REVOKE read ON STREAM b FROM reader")
        with pytest.raises(REFUSED, match="may not read"):
            cursor.fetchone()


def test_a_right_that_is_taken_back_ends_events(guarded):
    guarded.run("GRANT read ON STREAM b TO reader")
    context = ssl.create_default_context(cafile=guarded.authority.cert)
    connection = http.client.HTTPSConnection("localhost", guarded.web, context=context, timeout=30)
    connection.request("GET", "/streams/b/changes", headers={"authorization": f"Bearer {guarded.token('reader')}"})
    answer = connection.getresponse()
    lines = iter(answer.readline, b"")
    assert json.loads(next(line for line in lines if line.startswith(b"data: "))[6:]) == {"x": 3}
    guarded.run("REVOKE read ON STREAM b FROM reader")
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()
    assert guarded.http("GET", "/streams/b/changes", user="reader")[0] == 403


def test_dead_letters(guarded):
    guarded.run("CREATE STREAM d AS SELECT 10 / (x - 3) AS y FROM b")
    guarded.run("FLUSH")
    sql = "SELECT stream FROM millstream.dead_letters"
    assert guarded.run(sql) == [("d",)] and guarded.run(sql, "reader") == []
    guarded.run("GRANT read ON STREAM d TO reader")
    assert guarded.run(sql, "reader") == [], "they hold rows of b"
    guarded.run("DROP STREAM d")


def test_the_audit_tells_who_did_and_who_was_refused_what(guarded):
    guarded.run(f"CREATE USER audited PASSWORD '{PASSWORD}'")
    refused(lambda: guarded.run("SELECT * FROM b", "audited"), DENIED)
    refused(lambda: guarded.ask("Bearer forged-by-me"), UNKNOWN)
    sql = 'SELECT "user", address, action, statement, allowed, reason FROM millstream.audit'
    events = guarded.run(sql)
    assert ("admin", "127.0.0.1", "statement", "CREATE USER audited PASSWORD '***'", True, None) in events
    assert ("audited", "127.0.0.1", "login", None, True, None) in events
    reasons = [reason for user, _, _, statement, allowed, reason in events if user == "audited" and not allowed]
    assert any("may not read" in reason for reason in reasons), events
    assert any(action == "login" and not allowed for _, _, action, _, allowed, _ in events)
    guarded.run("DROP USER audited")


# What is not told


def test_no_planted_secret_is_found_anywhere(tmp_path):
    """Passwords and secrets, planted in all the ways there are, and then looked for in all that is written or said."""
    planted = ["hunter2-login", "hunter2-secret", "hunter2-wrong", "hunter2-broken"]
    # As they go through headers.
    planted += [base64.b64encode(f"admin:{secret}".encode()).decode().rstrip("=") for secret in planted]
    store, history = tmp_path / "store", tmp_path / "state"
    said = []
    done = add_admin(store, password="hunter2-login")
    said.append(done.stdout + done.stderr)
    env = {**os.environ, "MILLSTREAM_KEY": KEY, "MILLSTREAM_LOG": "trace", "XDG_STATE_HOME": str(history)}
    with Server(store, env=env) as server:
        def run(sql, user="admin", password="hunter2-login"):
            address = f"grpc://{server.address}"
            login = {"username": user, "password": password}
            try:
                with flightsql.connect(address, db_kwargs=login, autocommit=True) as connection, connection.cursor() as c:
                    c.execute(sql)
                    said.append(str(c.fetchall() if c.description else ""))
            except adbc_driver_manager.Error as e:
                said.append(str(e))

        run("CREATE USER bob PASSWORD 'hunter2-secret'")
        run("ALTER USER bob PASSWORD 'hunter2-secret2'")
        run("CREATE SECRET k AS 'hunter2-secret'")
        run("CREATE OR REPLACE SECRET k AS 'hunter2-secret'")
        run("CREATE SECRET k AS 'hunter2-secret'")
        run("CREATE USER bob PASSWORD 'hunter2-secret'")
        run("CREATE USER bob PASSWORT 'hunter2-broken'")
        run("CREATE USER bob PASSWORD 'hunter2-broken")
        run("CREATE USER bob PASSWORD hunter2-broken")
        run("CREATE SECRET k = 'hunter2-broken'")
        run("CREATE SECRET s AS 'hunter2-secret'", "bob", "hunter2-secret2")
        run("SELECT 1", "admin", "hunter2-wrong")
        for option in ["password = 'hunter2-secret'", "url = 'http://ann:hunter2-secret@host/'", "auth_token = 'hunter2-secret'", "password = 'secret:none'"]:
            run(f"CREATE STREAM f (x BIGINT) WITH (connector = 'datagen', {option})")
            run(f"EXPLAIN CREATE STREAM f (x BIGINT) WITH (connector = 'datagen', {option})")
        run("CREATE STREAM f (x BIGINT) WITH (connector = 'datagen', rows = 'secret:k')")
        run("CREATE STREAM a (x BIGINT)")
        run("INSERT INTO a VALUES (1)")
        for sql in ["SHOW SECRETS", "SHOW USERS", "SHOW GRANTS", "SHOW STREAMS", "SHOW ALL", "SHOW CREATE STREAM a",
                    "SELECT * FROM millstream.audit", "SELECT * FROM millstream.dead_letters", "EXPLAIN SELECT * FROM a"]:
            run(sql)
        script = "CREATE USER eve PASSWORD 'hunter2-secret';\nCREATE SECRET e AS 'hunter2-secret';\nCREATE USER 'hunter2-broken"
        shell = subprocess.run(
            [BINARY, "shell", "--connect", f"grpc://{server.address}", "--user", "admin", "-c", script],
            env={**env, "MILLSTREAM_PASSWORD": "hunter2-login"}, text=True, capture_output=True, timeout=60,
        )
        said.append(shell.stdout + shell.stderr)
        assert server.stop() == 0
        said += [server.stdout, server.stderr]
    # By the owner, with literals allowed.
    sql = "CREATE STREAM l (x BIGINT) WITH (connector = 'datagen', rows = 1);\nSHOW CREATE STREAM l;\nCREATE SECRET k2 AS 'hunter2-secret';"
    local = subprocess.run([BINARY, "run", "-", "--store", store], input=sql, env=env, text=True, capture_output=True, timeout=60)
    assert local.returncode == 0, local.stderr
    said.append(local.stdout + local.stderr)
    text = "\n".join(said)
    assert "***" in text and "already exists" not in text
    for secret in planted:
        for where in [line for line in text.splitlines() if secret in line]:
            raise AssertionError(f"{secret} is told: {where}")
    files = [f for folder in [store, history] if folder.exists() for f in folder.rglob("*") if f.is_file()]
    assert any("catalog" in str(f) for f in files) and any("audit" in str(f) for f in files)
    for file in files:
        content = file.read_bytes()
        for secret in planted:
            assert secret.encode() not in content, f"{secret} is in {file}"


def test_secrets_in_use_are_told_nowhere(tmp_path):
    """Connectors that send them, to servers that take them and to servers that do not."""
    planted = ["hunter2-used", "hunter2-login", base64.b64encode(b"admin:hunter2-login").decode().rstrip("=")]
    store, said, seen = tmp_path / "store", [], []
    add_admin(store, password="hunter2-login")

    class Site(http.server.BaseHTTPRequestHandler):
        def answer(self):
            seen.append(self.headers["authorization"])
            self.rfile.read(int(self.headers["content-length"] or 0))
            self.send_response(401 if len(seen) % 3 == 0 else 200)
            self.end_headers()
            self.wfile.write(b'[{"x": 1}, {"x": "y"}]')

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    env = {**os.environ, "MILLSTREAM_KEY": KEY, "MILLSTREAM_LOG": "trace"}
    with Server(store, "--http", "127.0.0.1:0", "--connect-to", "127.0.0.1", env=env) as server:
        web = server.wait_for(r"^http: http://127.0.0.1:(\d+)$", "stderr").group(1)
        login = {"authorization": "Basic " + base64.b64encode(b"admin:hunter2-login").decode()}

        def ask(method, path, body=None, patience=60):
            connection = http.client.HTTPConnection("127.0.0.1", int(web), timeout=patience)
            connection.request(method, path, body, {**login, "content-type": "text/plain"})
            said.append(connection.getresponse().read().decode())
            connection.close()
            return said[-1]

        where = f"url = 'http://127.0.0.1:{site.server_port}/', authorization = 'secret:used', max_retry_delay = '200 ms'"
        streams = {
            "polled": f"(x BIGINT) WITH (connector = 'http', {where}, interval = '20 ms')",
            "kept": "WITH (checkpoint_interval = '50 ms') AS SELECT * FROM polled",
            "posted": f"WITH (connector = 'http', {where}, checkpoint_interval = '50 ms') AS SELECT * FROM polled",
            "linked": f"(x BIGINT) WITH (connector = 'flight', url = 'grpc://{server.address}', stream = 'kept', user = 'admin', password = 'secret:login')",
            "refused": f"(x BIGINT) WITH (connector = 'flight', url = 'grpc://{server.address}', stream = 'kept', user = 'bob', password = 'secret:used')",
            "fed": f"(x BIGINT) WITH (connector = 'websocket', url = 'ws://127.0.0.1:{site.server_port}/', authorization = 'secret:used', max_retry_delay = '200 ms')",
            "kept_linked": "WITH (checkpoint_interval = '50 ms') AS SELECT * FROM linked",
            "kept_fed": "AS SELECT * FROM fed",
        }
        for secret, value in [("used", "Bearer hunter2-used"), ("login", "hunter2-login")]:
            ask("POST", "/sql", f"CREATE SECRET {secret} AS '{value}'")
        for name, rest in streams.items():
            ask("POST", "/sql", f"CREATE STREAM {name} {rest}")
        deadline = time.monotonic() + 30
        while len(seen) < 20 or json.loads(ask("POST", "/sql", "SELECT count(*) AS n FROM kept_linked"))[0]["n"] < 2:
            assert time.monotonic() < deadline, said[-3:]
            time.sleep(0.1)
        for name in streams:
            for sql in ["SHOW CREATE STREAM", "EXPLAIN STREAM", "EXPLAIN ANALYZE STREAM", "DESCRIBE"]:
                ask("POST", "/sql", f"{sql} {name}")
            ask("POST", "/sql", f"EXPLAIN CREATE STREAM other_{name} {streams[name]}")
        for sql in ["SHOW JOBS", "SHOW STREAMS", "SHOW CONNECTORS", "SELECT * FROM millstream.audit", "SELECT * FROM millstream.dead_letters"]:
            ask("POST", "/sql", sql)
        for path in ["/metrics", "/openapi.json", "/readyz", "/streams/kept"]:
            ask("GET", path)
        assert server.stop() == 0
        said += [server.stdout, server.stderr]
    site.shutdown()
    assert "Bearer hunter2-used" in seen and None not in seen
    text = "\n".join(said)
    assert "secret:used" in text and "millstream_source_requests_total" in text
    for secret in planted:
        for line in text.splitlines():
            assert secret not in line, f"{secret} is told: {line[:500]}"
        for file in (f for f in store.rglob("*") if f.is_file()):
            assert secret.encode() not in file.read_bytes(), f"{secret} is in {file}"


def test_files_with_secrets_are_the_owners(tmp_path):
    store, state = tmp_path / "store", tmp_path / "state"
    env = {**os.environ, "MILLSTREAM_KEY": KEY, "XDG_STATE_HOME": str(state)}

    def do(*args, text=""):
        done = subprocess.run([BINARY, *args, "--store", store], input=text, env=env, text=True, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    add_admin(store)
    # As a build made them that did not look.
    for file in (store / "catalog").iterdir():
        file.chmod(0o644)
    do("run", "-", text="CREATE SECRET k AS 'x'; CREATE STREAM a (x BIGINT); INSERT INTO a VALUES (1);")
    assert "k" in do("run", "-", text="SHOW SECRETS;")
    files = [f for f in store.rglob("*") if f.is_file() and (f.parent.name == "catalog" or "audit" in str(f.relative_to(store)))]
    newest = [f for f in files if "catalog" in str(f.relative_to(store))][-1]
    new = [f for f in files if f.stat().st_mode & 0o777 == 0o600]
    assert newest in new and any("audit" in str(f.relative_to(store)) for f in new), files
    assert {f.parent.name for f in set(files) - set(new)} <= {"catalog"}, "only what was there before"


def test_secrets_need_their_key(tmp_path):
    store = tmp_path / "store"

    def run(sql, key, *args):
        env = {name: value for name, value in os.environ.items() if name != "MILLSTREAM_KEY"}
        env |= {"MILLSTREAM_KEY": key} if key else {}
        done = subprocess.run([BINARY, "run", "-", "--store", store, *args], input=sql, env=env, text=True, capture_output=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert "no key for secrets" in run("CREATE SECRET k AS 'x';", None)[1]
    assert "fewer than 32" in run("SELECT 1;", "short")[1]
    code, text = run("CREATE SECRET k AS 'x'; SHOW SECRETS;", KEY)
    assert code == 0 and "k" in text, text
    assert "exists already" in run("CREATE SECRET k AS 'y';", KEY)[1]
    use = "CREATE STREAM s (x BIGINT) WITH (connector = 'datagen', password = 'secret:k');"
    assert "another key" in run(use, KEY[::-1])[1]
    # The connector gets it, and says that it has no such option.
    assert "has no option" in run(use, KEY)[1]
    assert "is a secret, which is not written here" in run(use.replace("secret:k", "x"), KEY)[1]
    assert "has no option" in run(use.replace("secret:k", "x"), KEY, "--insecure")[1]
    code, text = run("DROP SECRET k; SHOW SECRETS;", KEY)
    assert code == 0, text


# Many, and slow


def test_idle_connections_leave_room(guarded):
    """Connections that say nothing, and handshakes that are never ended, keep nobody out."""
    before = guarded.memory()
    idle = []
    try:
        for i in range(2000):
            try:
                idle.append(socket.create_connection(("127.0.0.1", guarded.port), 5))
            except OSError:
                break
        assert len(idle) > 1000
        for connection in idle[:50]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        time.sleep(0.5)
        grown = guarded.memory() - before
        assert grown < 300 << 20, f"{grown >> 20} MiB"
        idle[-1].settimeout(20)
        assert idle[-1].recv(1) == b"", "who says nothing is not waited for"
    finally:
        for connection in idle:
            connection.close()
    time.sleep(0.5)
    assert guarded.run("SELECT 1") == [(1,)]
