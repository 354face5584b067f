"""Verified copies of bundles, for protocols that ask for single files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import httpx
from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import Statement

MANIFEST = "pro-manifest.json"
MAX_FILE = 256 << 20


class ArtifactError(Exception):
    """The artifact cannot be fetched now."""


class Bundles:
    """Fetches bundles once, verifies length and digest, and reads files out of them."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._locks: dict[str, asyncio.Lock] = {}

    async def read(self, statement: Statement, url: str, name: str) -> bytes | None:
        """Return a file of a bundle, or None if the bundle has none of that name.

        Raises:
            VerificationError: If the artifact is not the bundle that was signed.
            ArtifactError: If it cannot be fetched.
        """
        digest = statement.bundle_sha256.hex()
        path = self._cache / f"{digest}.zip"
        if not path.exists():
            async with self._locks.setdefault(digest, asyncio.Lock()):
                if not path.exists():
                    await self._fetch(statement, url, path)
        return await asyncio.to_thread(_read, path, name)

    async def _fetch(self, statement: Statement, url: str, path: Path) -> None:
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=self._cache)
        try:
            with os.fdopen(handle, "wb") as file:
                hasher, length = hashlib.sha256(), 0
                async for chunk in chunks(url):
                    length += len(chunk)
                    if length > statement.bundle_length:
                        raise VerificationError("artifact is longer than the signed bundle")
                    hasher.update(chunk)
                    file.write(chunk)
            if length != statement.bundle_length or hasher.digest() != statement.bundle_sha256:
                raise VerificationError("artifact is not the bundle that was signed")
            os.replace(scratch, path)  # noqa: PTH105 - a rename does not block
        except (OSError, httpx.HTTPError) as error:
            raise ArtifactError(type(error).__name__) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)  # noqa: PTH108 - as above


async def chunks(url: str) -> AsyncIterator[bytes]:
    """Read an artifact piece by piece. Raises OSError, httpx.HTTPError."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        with _open_regular(unquote(parts.path)) as file:
            while chunk := file.read(1 << 20):
                yield chunk
        return
    async with (
        httpx.AsyncClient(timeout=30, follow_redirects=False) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        async for chunk in response.aiter_bytes(1 << 20):
            yield chunk


def _open_regular(path: str) -> BinaryIO:
    """Open a regular file; a pipe or a terminal would stop the daemon until somebody writes."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("artifact is not a regular file")
    return os.fdopen(handle, "rb")


def _read(path: Path, name: str) -> bytes | None:
    with zipfile.ZipFile(path) as bundle:
        try:
            info = bundle.getinfo(name)
        except KeyError:
            return None
        if info.file_size > MAX_FILE:
            raise VerificationError("file is larger than the gateway serves")
        return bundle.read(info)
