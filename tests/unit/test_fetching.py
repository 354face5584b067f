"""What the gateway fetches: from where it may, from the very address it looked at, and no more."""

import asyncio
import base64
import hashlib
import io
import json
import os
import socket
import zipfile

import anyio
import httpcore
import pytest
from privyseal.verify import MANIFEST
from privyseal.verify.errors import VerificationError
from privyseald.gateway import artifacts
from privyseald.gateway.artifacts import Bundles, Cache, fetch_into
from privyseald.gateway.fetch import ArtifactError, Fetcher, PublicNetwork, Sources
from privyseald.gateway.manifests import ManifestFiles

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


def manifest_of(**entries):
    """Return a manifest that lists files by name: size, and what has its digest."""
    return json.dumps(
        [
            {
                "href": name,
                "size": size,
                "integrity": f"sha512-{b64(hashlib.sha512(data).digest())}",
            }
            for name, (size, data) in entries.items()
        ]
    ).encode()


def b64(data):
    return base64.b64encode(data).decode()


class Served:
    """Serves a manifest and, for whatever else is asked for, more than anybody listed."""

    def __init__(self, manifest):
        self.manifest, self.endless = manifest, Endless()

    def pieces(self, url):
        if url.endswith(MANIFEST):
            return self._whole()
        return self.endless.pieces(url)

    async def _whole(self):
        yield self.manifest


def read_listed(folder, served, name):
    signed = statement(manifest_sha256=hashlib.sha256(served.manifest).digest())
    files = ManifestFiles(Cache(folder / "cache", 1 << 20), served)
    return asyncio.run(files.read(signed, f"https://cdn.example/{MANIFEST}", name))


def test_of_a_single_file_no_more_is_fetched_than_the_manifest_lists(tmp_path):
    served = Served(manifest_of(a=(2500, b"x" * 2500)))
    with pytest.raises(VerificationError, match="longer than what was signed"):
        read_listed(tmp_path, served, "a")
    assert served.endless.given == 3
    assert read_listed(tmp_path, served, "b") is None


def test_a_file_is_listed_with_a_size_that_is_served(tmp_path):
    for size in (-1, artifacts.MAX_FILE + 1, "1", None):
        with pytest.raises(VerificationError, match="manifest is malformed"):
            read_listed(tmp_path, Served(manifest_of(a=(size, b"x"))), "a")
    short = manifest_of(a=(1, b"x")).replace(b64(hashlib.sha512(b"x").digest()).encode(), b"AAAA")
    with pytest.raises(VerificationError, match="manifest is malformed"):
        read_listed(tmp_path, Served(short), "a")


def test_the_longest_unused_go_from_a_full_cache_and_no_others(tmp_path):
    cache = Cache(tmp_path / "cache", 1000)

    def content(file):
        async def write():
            file.write(b"x" * 300)
            yield

        return write()

    async def scenario():
        for number, name in enumerate("abc"):
            os.utime(await cache.get(name, content), (number, number))
        # What is used again is not the longest unused any more.
        await cache.get("a", content)
        await cache.get("d", content)
        await asyncio.to_thread(cache._prune)

    asyncio.run(scenario())
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"a", "c", "d"}
