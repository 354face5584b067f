"""What strangers and accidents do to the gateway: others are served, and nothing unverified is."""

import asyncio
import contextlib
import hashlib
import socket
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvloop
from privyseal.verify.errors import VerificationError
from privyseald.adapters import pki
from privyseald.gateway import connections, listener
from privyseald.gateway.artifacts import Cache
from privyseald.gateway.fetch import ArtifactError, Sources
from privyseald.gateway.server import GatewayServer
from privyseald.model.native import NativeVersion
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.conftest import Daemon, free_port
from tests.simulator import APP, World


@contextlib.asynccontextmanager
async def gateway():
    async def echo(request):
        return PlainTextResponse(str(len(await request.body())))

    port = free_port()
    app = Starlette(routes=[Route("/", echo, methods=["GET", "POST"])])
    running = GatewayServer(app, f"127.0.0.1:{port}", None, None)
    await running.start()
    try:
        yield port
    finally:
        await running.stop()


def status(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return answer.status


def test_connections_that_say_nothing_give_way_to_devices(monkeypatch):
    monkeypatch.setattr(connections, "MOST", 100)

    async def scenario():
        async with gateway() as port:
            most = range(connections.MOST + 50)
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in most]
            try:
                for _ in range(5):
                    assert await asyncio.to_thread(status, port) == 200
            finally:
                for _, writer in silent:
                    writer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "drip",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 9\r\n\r\n1",
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_a_client_that_keeps_a_connection_waiting_loses_it(drip, monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.6)
    monkeypatch.setattr(connections, "_LOOK", 0.1)

    async def scenario():
        async with gateway() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            began = time.monotonic()
            for byte in drip:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.001)
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            assert 0.5 < time.monotonic() - began < 3
            writer.close()
            assert await asyncio.to_thread(status, port) == 200

    asyncio.run(scenario())


@pytest.fixture
def certified(tmp_path):
    """Return a port, and the arguments of a gateway that speaks TLS there."""
    pki.create_ca(tmp_path)
    pem, key = pki.issue(tmp_path, common_name="gateway", hosts=["127.0.0.1"], days=1)
    (tmp_path / "g.pem").write_bytes(pem)
    (tmp_path / "g.key").write_bytes(key)
    port = free_port()
    return port, (f"127.0.0.1:{port}", tmp_path / "g.pem", tmp_path / "g.key")


def test_a_handshake_is_not_waited_for_longer(monkeypatch, certified):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.6)
    port, given = certified

    async def scenario():
        running = GatewayServer(Starlette(routes=[]), *given)
        await running.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert time.monotonic() - began < 3
        writer.close()
        with pytest.raises(OSError, match="cannot listen"):
            await GatewayServer(Starlette(routes=[]), *given).start()
        await running.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_handshakes_that_go_nowhere_give_way_to_devices(run, monkeypatch, tmp_path, certified):
    """As many as the process may have files would keep the daemon from opening its own."""
    monkeypatch.setattr(listener, "MOST_HANDSHAKES", 50)
    port, given = certified
    trusting = ssl.create_default_context(cafile=tmp_path / "ca.pem")

    def files():
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    async def hello(_request):
        return PlainTextResponse("hello")

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()

    async def scenario():
        running = GatewayServer(Starlette(routes=[Route("/", hello)]), *given)
        await running.start()
        before = files()
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        try:
            for _ in range(3):
                assert (await ask()).endswith(b"hello")
            # Their own ends are files of this process, too.
            assert files() - before - len(silent) <= 55
            for oldest in silent[:100]:
                oldest.settimeout(5)
                assert oldest.recv(1) == b""
        finally:
            for one in silent:
                one.close()
        await running.stop()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port))

    run(scenario())


HOSTS = ["localhost", "127.0.0.1"]
with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
    HOSTS.append("[::1]")


@pytest.mark.parametrize("host", HOSTS)
def test_the_gateway_listens_where_it_is_told(host):
    port = free_port()

    async def scenario():
        running = GatewayServer(Starlette(routes=[]), f"{host}:{port}", None, None)
        await running.start()
        socket.create_connection((host.strip("[]"), port)).close()
        await running.stop()

    asyncio.run(scenario())


def test_a_client_that_takes_its_time_but_goes_on_is_served(monkeypatch):
    monkeypatch.setattr(connections, "READ_SECONDS", 0.6)
    monkeypatch.setattr(connections, "_LOOK", 0.1)

    async def scenario():
        async with gateway() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 2\r\n\r\n12")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n2"), 5)
                assert b" 200 " in head
                await asyncio.sleep(0.4)
            writer.close()

    asyncio.run(scenario())


def test_a_client_that_takes_nothing_of_its_answer_loses_its_connection(monkeypatch):
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.6)
    monkeypatch.setattr(connections, "_LOOK", 0.1)

    async def scenario():
        async def much(_request):
            return PlainTextResponse("x" * 50_000_000)

        port = free_port()
        app = Starlette(routes=[Route("/", much)])
        running = GatewayServer(app, f"127.0.0.1:{port}", None, None)
        await running.start()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await asyncio.sleep(2.5)
            assert not running._server.server_state.connections
        await running.stop()

    asyncio.run(scenario())


def test_what_a_crash_left_in_the_cache_is_not_served(tmp_path):
    name, folder = "0" * 64 + ".zip", tmp_path / "cache"
    folder.mkdir()
    (folder / name).write_bytes(b"")

    async def make(file):
        file.write(b"verified")
        yield

    path = asyncio.run(Cache(folder, 1 << 20).get(name, make))
    assert path.read_bytes() == b"verified"


@pytest.mark.parametrize(
    "path", ["/../admin", "/%2e%2e/admin", "/./x", "/%252e%252e/x", "/a\\..\\b"]
)
def test_an_address_under_a_listed_prefix_stays_there(tmp_path, path):
    sources = Sources("https://gateway/artifacts/", tmp_path, ("http://inside/artifacts",))
    assert sources.lists("http://inside/artifacts/x.zip")
    with pytest.raises(ArtifactError):
        sources.lists("http://inside/artifacts" + path)


def test_a_receipt_of_another_release_with_the_same_number_is_not_served(tmp_path):
    """Whoever writes the database swaps in what was signed, and never registered."""
    world = World(tmp_path)
    device = NativeVersion("android", "1.0.0", "1")

    def sql(*statement):
        with contextlib.closing(sqlite3.connect(tmp_path / "world.db")) as database, database:
            database.execute(*statement)

    def sign():
        version = world.publish(register=False, deploy=False)
        return version, world.view(lambda view: view.releases.signed(APP, version=version))

    try:
        found_bad, bad = sign()
        sql("delete from signed_releases where version=?", (found_bad,))
        world.crash()
        version, good = sign()
        assert (good.counter, good.receipt) != (0, bad.receipt)
        world.deploy(world.register_release(version).counter)
        served = world.run(world.resolver.channel(APP, "production", device))
        digest = hashlib.sha256(version.encode()).digest()
        assert served.receipt.statement.bundle_sha256 == digest
        sql("update signed_releases set receipt=? where version=?", (bad.receipt, version))
        world.crash()
        with pytest.raises(VerificationError, match="of another release"):
            world.run(world.resolver.channel(APP, "production", device))
    finally:
        world.close()


def test_artifacts_that_are_not_there_are_not_found_and_fill_no_log(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    try:
        before = len(daemon.log_text())
        for name in ("x.zip", "", "../kek", "%2e%2e/kek"):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(f"{daemon.gateway}/artifacts/{name}", timeout=5)
            assert error.value.code == 404
            error.value.close()
        assert "Traceback" not in daemon.log_text()[before:]
    finally:
        assert daemon.stop() == 0
