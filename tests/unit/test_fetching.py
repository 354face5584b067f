"""What the gateway fetches: from where it may, from the very address it looked at, and no more."""

import asyncio
import hashlib
import io
import socket
import zipfile

import anyio
import httpcore
import pytest
from privyseal.verify.errors import VerificationError
from privyseald.gateway import artifacts
from privyseald.gateway.artifacts import Bundles, Cache, fetch_into
from privyseald.gateway.fetch import ArtifactError, Fetcher, PublicNetwork, Sources

from tests.unit.test_formats import statement

PUBLIC, INSIDE = "93.184.215.14", "10.0.0.7"


@pytest.fixture
def network(monkeypatch):
    """A network whose names resolve as a test says, and which tells what it connects to."""
    made = PublicNetwork()
    made.resolved, made.connected = [PUBLIC], []

    async def getaddrinfo(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in made.resolved]

    async def connect_tcp(host, port, *_):
        made.connected.append((host, port))

    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(made._inner, "connect_tcp", connect_tcp)
    return made


def test_the_address_that_was_looked_at_is_connected_to(network):
    """A name that resolves to another the second time leads nowhere else."""
    asyncio.run(network.connect_tcp("cdn.example", 443))
    assert network.connected == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "addresses",
    [[], [INSIDE], [PUBLIC, INSIDE], [INSIDE, PUBLIC], [PUBLIC, "fe80::1%eth0"]],
    ids=["none", "inside", "also inside", "inside first", "a link's own"],
)
def test_a_name_of_which_any_address_is_inside_is_not_connected_to(network, addresses):
    network.resolved = addresses
    with pytest.raises(httpcore.ConnectError, match="not a public address"):
        asyncio.run(network.connect_tcp("cdn.example", 443))
    assert network.connected == []


def read(fetcher, url):
    async def run():
        return b"".join([piece async for piece in fetcher.pieces(url)])

    return asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["http://cdn.example/a.zip", "ftp://cdn.example/a.zip", "file:///etc/hostname"]
)
def test_what_is_neither_https_nor_listed_is_not_fetched(url, tmp_path, monkeypatch):
    fetcher = Fetcher(Sources("https://gateway/artifacts/", tmp_path, ()))

    def never(*_, **__):
        raise AssertionError("asked")

    monkeypatch.setattr(fetcher._public, "stream", never)
    monkeypatch.setattr(fetcher._any, "stream", never)
    with pytest.raises(ArtifactError):
        read(fetcher, url)


class Endless:
    """Fetches what never ends, and counts."""

    def __init__(self, piece=b"x" * 1000):
        self.piece, self.given = piece, 0

    async def pieces(self, _url):
        while True:
            self.given += 1
            yield self.piece


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 5000])
def test_no_more_is_fetched_than_was_signed(length):
    endless, file = Endless(), io.BytesIO()
    digest = hashlib.sha256(b"x" * length).digest()

    async def run():
        given = {"length": length, "digest": digest, "algorithm": "sha256"}
        async for _ in fetch_into(endless, "https://cdn.example/a", file, **given):
            pass

    with pytest.raises(VerificationError, match="longer than what was signed"):
        asyncio.run(run())
    assert endless.given == length // 1000 + 1
    assert len(file.getvalue()) <= length


def test_a_member_of_a_bundle_is_of_bounded_size(tmp_path, monkeypatch):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as bundle:
        bundle.writestr("large.js", b"x" * 101)
        bundle.writestr("small.js", b"x" * 100)
    data = made.getvalue()
    signed = statement(bundle_sha256=hashlib.sha256(data).digest(), bundle_length=len(data))

    class Whole:
        async def pieces(self, _url):
            yield data

    monkeypatch.setattr(artifacts, "MAX_FILE", 100)
    bundles = Bundles(Cache(tmp_path / "cache", 1 << 20), Whole())
    url = "https://cdn.example/a"
    assert asyncio.run(bundles.read(signed, url, "small.js")).read_bytes() == b"x" * 100
    with pytest.raises(VerificationError, match="larger than the gateway serves"):
        asyncio.run(bundles.read(signed, url, "large.js"))
    assert asyncio.run(bundles.read(signed, url, "none.js")) is None
