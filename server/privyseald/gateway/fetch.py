"""From where the gateway reads artifacts: what somebody registers must not send it anywhere.

Its own directory and public addresses over HTTPS, and what the settings list besides. Where
a name leads is looked at when it is connected to: an address inside the network, which an
outsider could only reach through the daemon, is refused.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import SplitResult, unquote, urlsplit

import httpcore

_TIMEOUT = {"timeout": {"connect": 10.0, "read": 30.0, "write": 10.0, "pool": 10.0}}
_PIECE = 1 << 20
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052 section 2.1: behind it are IPv4 addresses, the network's own too."""


class ArtifactError(Exception):
    """The artifact cannot be had now, or not from there."""


@dataclass(frozen=True)
class Sources:
    """Where artifacts may come from.

    Attributes:
        own_url: How devices reach the gateway's own artifacts, ending in a slash.
        folder: Where those are.
        listed: URL prefixes besides: file, http and https.
    """

    own_url: str
    folder: Path
    listed: tuple[str, ...] = ()

    def local(self, url: str) -> Path | None:
        """Return the file that a URL stands for, if it is one.

        Raises:
            ArtifactError: If it is one that may not be read.
        """
        parts = urlsplit(url)
        if url.startswith(self.own_url):
            wanted = self.folder / unquote(url.removeprefix(self.own_url)).lstrip("/")
        elif parts.scheme == "file":
            wanted = Path(unquote(parts.path))
        else:
            return None
        path = Path(os.path.realpath(wanted))
        roots = [self.folder, *(Path(unquote(p.path)) for p in self._prefixes("file"))]
        if not any(path.is_relative_to(os.path.realpath(root)) for root in roots):
            raise ArtifactError("outside of the directories for artifacts")
        return path

    def lists(self, url: str) -> bool:
        """Say whether a prefix in the settings is of a URL.

        Raises:
            ArtifactError: If the URL could lead out of it again.
        """
        parts = urlsplit(url)
        if {".", ".."} & set(unquote(unquote(parts.path)).replace("\\", "/").split("/")):
            raise ArtifactError("an artifact's address has no . or .. in its path")
        return any(
            _origin(parts) == _origin(prefix)
            and (parts.path + "/").startswith(prefix.path.rstrip("/") + "/")
            for prefix in self._prefixes("http", "https")
        )

    def _prefixes(self, *schemes: str) -> Iterable[SplitResult]:
        return (p for p in map(urlsplit, self.listed) if p.scheme in schemes)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


class Fetcher:
    """Reads artifacts piece by piece."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        # No connection is kept: there are few fetches, and a pool would be of one loop.
        limits: dict[str, Any] = {"max_keepalive_connections": 0, "retries": 0}
        self._public = httpcore.AsyncConnectionPool(network_backend=PublicNetwork(), **limits)
        self._any = httpcore.AsyncConnectionPool(**limits)

    async def pieces(self, url: str) -> AsyncIterator[bytes]:
        """Yield what is at a URL. Raises ArtifactError."""
        try:
            path = self._sources.local(url)
            if path is not None:
                with _open_regular(path) as file:
                    while piece := file.read(_PIECE):
                        yield piece
                return
            listed = self._sources.lists(url)
            if not listed and not url.startswith("https://"):
                raise ArtifactError(f"{url[:200]} is neither https nor listed in artifact_sources")
            pool = self._any if listed else self._public
            async with pool.stream("GET", url, extensions=_TIMEOUT) as response:
                if response.status != 200:
                    raise ArtifactError(f"status {response.status}")
                async for piece in response.aiter_stream():
                    yield piece
        except (
            OSError,
            ValueError,
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
        ) as error:
            raise ArtifactError(type(error).__name__) from error


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone, whatever a name resolves to."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, look, and connect to what was looked at. Raises httpcore.ConnectError."""
        import anyio

        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or not all(is_public(address) for address in addresses):
            raise httpcore.ConnectError("not a public address")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        """Wait; httpcore's signature."""
        await self._inner.sleep(seconds)


def is_public(address: str) -> bool:
    """Say whether an IP address is one of the public network's."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    if found in _NAT64:
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.is_global and not found.is_multicast and (inner is None or inner.is_global)


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file; a pipe or a terminal would stop the daemon until somebody writes."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("artifact is not a regular file")
    return os.fdopen(handle, "rb")
