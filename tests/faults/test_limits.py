"""Callers that mean harm cost little and disturb nobody."""

import contextlib
import os
import socket
import ssl
import statistics
import threading
import time
from collections import deque

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import jwt
import pytest
from cryptography import x509
from privyseal.connection import Connection, load_profile
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc

from tests.ci_systems import Issuer
from tests.conftest import Daemon

AUDIENCE = "https://privyseal.test"
CONNECTIONS = 60


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    running = Issuer(tmp_path_factory.mktemp("issuer") / "ca")
    yield running
    running.close()


@pytest.fixture(scope="module")
def target(tmp_path_factory, issuer):
    settings = f'audience = "{AUDIENCE}"\nconnections = {CONNECTIONS}\nprincipal_rate = 50\n'
    settings += issuer.settings("github")
    running = Daemon(tmp_path_factory.mktemp("limits") / "data", settings)
    running.init()
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def neighbour(target):
    """A well-behaved caller on a connection of its own, who measures how long calls take."""
    token = target.token("-", "auditor")["PRIVYSEAL_TOKEN"]
    ca = (target.data / "tls/ca.pem").read_bytes()
    options = [("grpc.use_local_subchannel_pool", 1)]
    to = grpc.secure_channel(target.tokens, grpc.ssl_channel_credentials(ca), options)
    stub = access_grpc.AccessServiceStub(to)

    def calls(count=20):
        took = []
        for _ in range(count):
            start = time.perf_counter()
            stub.WhoAmI(
                access_pb.WhoAmIRequest(),
                metadata=[("authorization", f"Bearer {token}")],
                timeout=10,
            )
            took.append(time.perf_counter() - start)
            time.sleep(0.03)
        return statistics.median(took), max(took)

    calls(5)
    yield calls
    to.close()


def memory(daemon):
    status = (f"/proc/{daemon.process.pid}/status", "VmRSS")
    with open(status[0]) as file:
        return next(int(line.split()[1]) for line in file if line.startswith(status[1])) / 1024


class Raw:
    """An HTTP/2 connection over TLS that does what it likes."""

    def __init__(self, daemon):
        context = ssl.create_default_context(cafile=daemon.data / "tls/ca.pem")
        context.set_alpn_protocols(["h2"])
        host, port = daemon.tokens.split(":")
        self.sock = context.wrap_socket(
            socket.create_connection((host, int(port)), 10), server_hostname=host
        )
        self.authority = daemon.tokens
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def open_stream(self):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":path", "/privyseal.v1.SigningService/SignRelease"),
                (":authority", self.authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
        )
        return stream

    def receive(self):
        """Read what is there without waiting."""
        self.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError, BlockingIOError):
            while data := self.sock.recv(65536):
                self.h2.receive_data(data)
        self.sock.setblocking(True)


def test_twenty_thousand_reset_streams_disturb_nobody(target, neighbour):
    idle, _ = neighbour()
    before = memory(target)
    done, stop = [0, 0], threading.Event()

    def attack():
        """Open and reset, a connection anew whenever the server ends one."""
        while done[0] < 20_000 and not stop.is_set():
            with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
                raw = Raw(target)
                done[1] += 1
                while done[0] < 20_000:
                    for _ in range(50):
                        raw.h2.reset_stream(raw.open_stream(), 8)
                        done[0] += 1
                    raw.flush()
                    raw.receive()
                raw.sock.close()

    thread = threading.Thread(target=attack)
    thread.start()
    loaded = [neighbour(5)]
    while thread.is_alive() and len(loaded) < 60:
        loaded.append(neighbour(5))
    stop.set()
    thread.join(60)

    assert done[0] >= 20_000
    median = statistics.median(m for m, _ in loaded)
    worst = max(w for _, w in loaded)
    print(f"idle {idle * 1e3:.1f} ms, attacked {median * 1e3:.1f} ms, worst {worst * 1e3:.0f} ms")
    assert worst < 2
    assert memory(target) - before < 100
    assert neighbour()[0] < 10 * idle + 0.05


def test_callers_who_send_slowly_disturb_nobody(target, neighbour):
    idle, _ = neighbour()
    raws = [Raw(target) for _ in range(20)]
    for raw in raws:
        for _ in range(40):
            stream = raw.open_stream()
            raw.h2.send_data(stream, b"\0\0\0\x10\0")  # four kilobytes are promised
        raw.flush()
    for _ in range(5):
        for raw in raws:
            raw.receive()
            for stream in list(raw.h2.streams)[:40]:
                with contextlib.suppress(h2.exceptions.ProtocolError):
                    raw.h2.send_data(stream, b"x")
            raw.flush()
        median, worst = neighbour(10)
        assert worst < 2
        assert median < 10 * idle + 0.05
    for raw in raws:
        raw.sock.close()


def test_connections_are_bounded_and_come_back(target, neighbour):
    host, port = target.tokens.split(":")
    sockets = []
    refused = 0
    for _ in range(4 * CONNECTIONS):
        with contextlib.suppress(OSError):
            sockets.append(socket.create_connection((host, int(port)), 2))
    time.sleep(0.5)
    for sock in sockets:
        sock.setblocking(False)
        try:
            if sock.recv(1) == b"":
                refused += 1
        except BlockingIOError:
            pass
        except OSError:
            refused += 1
    assert refused >= 2 * CONNECTIONS
    assert neighbour(5)[1] < 2, "who is connected is served"
    for sock in sockets:
        sock.close()
    deadline = time.monotonic() + 20
    while True:
        try:
            raw = Raw(target)
            raw.sock.close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_unknown_keys_cost_one_fetch_and_do_not_fill_the_log(target, issuer, neighbour):
    entries, fetches = len(target.entries()), issuer.fetches
    ca = (target.data / "tls/ca.pem").read_bytes()
    key = issuer.keys["EdDSA"]
    with grpc.secure_channel(target.tokens, grpc.ssl_channel_credentials(ca)) as to:
        stub = access_grpc.AccessServiceStub(to)
        codes = set()
        claims = {"iss": "https://token.actions.githubusercontent.com", "jti": "x"}
        for _ in range(3000):
            token = jwt.encode(claims, key, "EdDSA", headers={"kid": os.urandom(8).hex()})
            request = access_pb.ExchangeTokenRequest(parent="apps/x", id_token=token)
            with pytest.raises(grpc.RpcError) as error:
                stub.ExchangeToken(request, timeout=10)
            codes.add(error.value.code().name)
    assert codes <= {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    assert issuer.fetches - fetches <= 1
    assert len(target.entries()) - entries < 1000
    assert neighbour(10)[1] < 2


AT_ONCE = 50


def flood(call, count):
    """Calls at a rate that does not hang on the machine's; says how each ended, and the seconds.

    A bucket refills while the calls run: how many it lets through is a matter of time, and so
    is bounded by the seconds that the calls took, and not a number of its own.
    """
    ended, start = [], time.perf_counter()
    waiting = deque()
    for _ in range(count):
        if len(waiting) == AT_ONCE:
            ended.append(waiting.popleft().exception(timeout=30))
        waiting.append(call())
    ended += [one.exception(timeout=30) for one in waiting]
    return ended, time.perf_counter() - start


def let_through(ended, *, burst, rate, took):
    """Asserts that the bucket held, and that it was full at first; says who was refused."""
    refused = [e for e in ended if e and e.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert refused, "the bucket never ran dry"
    assert refused[0] not in ended[:100]
    assert len(ended) - len(refused) <= burst + rate * took + 1
    return refused


def test_a_principal_that_calls_too_often_waits_and_others_do_not(target, neighbour):
    token = target.token("-", "auditor")["PRIVYSEAL_TOKEN"]
    ca = (target.data / "tls/ca.pem").read_bytes()
    authorization = [("authorization", f"Bearer {token}")]
    with grpc.secure_channel(target.tokens, grpc.ssl_channel_credentials(ca)) as to:
        stub = access_grpc.AccessServiceStub(to)
        ended, took = flood(
            lambda: stub.WhoAmI.future(access_pb.WhoAmIRequest(), metadata=authorization), 1000
        )
    refused = let_through(ended, burst=100, rate=50, took=took)
    assert "wait a second" in refused[0].details()
    assert all(e is None or e in refused for e in ended)
    assert neighbour(10)[1] < 2
    time.sleep(2)
    assert (
        target.run("app", "list", PRIVYSEAL_TOKEN=token, PRIVYSEAL_SERVER=target.tokens).code == 0
    )


def test_who_keeps_guessing_tokens_is_not_looked_up_any_more(target, neighbour):
    from privyseald.services.secret_text import TOKEN_PREFIX, new_secret

    ca = (target.data / "tls/ca.pem").read_bytes()
    with grpc.secure_channel(target.tokens, grpc.ssl_channel_credentials(ca)) as to:
        stub = access_grpc.AccessServiceStub(to)

        def guess():
            bearer = [("authorization", f"Bearer {new_secret(TOKEN_PREFIX)[1]}")]
            return stub.WhoAmI.future(access_pb.WhoAmIRequest(), metadata=bearer)

        ended, took = flood(guess, 3000)
    refused = let_through(ended, burst=500, rate=50, took=took)
    assert {e.code().name for e in ended if e not in refused} == {"UNAUTHENTICATED"}
    assert neighbour(10)[1] < 2, "who is known still gets in, from the same address"


def test_a_denied_certificate_that_keeps_calling_is_not_looked_up_any_more(target):
    thief, owner = target.person("thief", "auditor"), target.person("owner", "auditor")
    serial = x509.load_pem_x509_certificate((target.data / "thief/client.pem").read_bytes())
    target.ok("access", "deny-certificate", f"{serial.serial_number:x}", "--reason", "stolen")
    with Connection(load_profile(thief["PRIVYSEAL_PROFILE"])) as to:
        ended, took = flood(lambda: to.access.WhoAmI.future(access_pb.WhoAmIRequest()), 3000)
    refused = let_through(ended, burst=1000, rate=10, took=took)
    assert {e.code().name for e in ended if e not in refused} == {"UNAUTHENTICATED"}
    assert target.run("app", "list", **owner).code == 0, "others have their own certificates"
