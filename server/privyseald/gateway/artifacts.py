"""Verified copies of artifacts, in files, for protocols that ask for single files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import Statement

from privyseald.gateway.fetch import ArtifactError, Fetcher

MAX_FILE = 256 << 20
_PIECE = 64 * 1024
_OPEN_ZIPS = 8
_LOOKS = 16
"""How often the cache is looked through while so much is written as it may have."""


class Cache:
    """Files by name, each written once and whole; the longest unused go when it is full.

    Args:
        folder: Where they are.
        limit: How many bytes there may be.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._locks: dict[str, asyncio.Lock] = {}
        # Bytes written since the folder was last looked through; at first, anything may be there.
        self._unseen = limit
        # What a power cut left may have a name and not its content: nothing is trusted by name.
        for path in folder.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()

    async def get(self, name: str, make: Callable[[IO[bytes]], AsyncIterator[None]]) -> Path:
        """Return a file, made first if it is not there.

        Args:
            name: Its name.
            make: Writes it into a file, and raises if it is not what it must be; yields when
                others may run.
        """
        path = self._folder / name
        async with self._locks.setdefault(name, asyncio.Lock()):
            if not path.exists():
                await self._make(path, make)
            self._locks.pop(name, None)
        try:
            os.utime(path)
        except OSError as error:
            raise ArtifactError(type(error).__name__) from error
        return path

    async def _make(self, path: Path, make: Callable[[IO[bytes]], AsyncIterator[None]]) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=self._folder)
        except OSError as error:
            raise ArtifactError(type(error).__name__) from error
        try:
            with os.fdopen(handle, "wb") as file:
                async for _ in make(file):
                    pass
            self._unseen += os.stat(scratch).st_size  # noqa: PTH116 - it does not block
            os.replace(scratch, path)  # noqa: PTH105 - as above
        except OSError as error:
            raise ArtifactError(type(error).__name__) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)  # noqa: PTH108 - as above
        if self._unseen * _LOOKS >= self._limit:
            self._unseen = 0
            await asyncio.to_thread(self._prune)

    def _prune(self) -> None:
        found = []
        for path in self._folder.iterdir():
            try:
                status = path.stat()
            except OSError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        size = sum(size for _, size, _ in found)
        for _, length, path in sorted(found)[:-1]:
            if size <= self._limit:
                return
            path.unlink(missing_ok=True)
            size -= length


async def fetch_into(
    fetcher: Fetcher, url: str, file: IO[bytes], *, length: int, digest: bytes, algorithm: str
) -> AsyncIterator[None]:
    """Fetch exactly what was signed into a file.

    Args:
        fetcher: Reads it.
        url: Where it is.
        file: Where it goes.
        length: Its length in bytes, at most; the digest says the rest.
        digest: Its digest.
        algorithm: The digest's, as hashlib calls it.

    Raises:
        VerificationError: If it is another.
    """
    hasher, got = hashlib.new(algorithm), 0
    async for piece in fetcher.pieces(url):
        got += len(piece)
        if got > length:
            raise VerificationError("artifact is longer than what was signed")
        hasher.update(piece)
        file.write(piece)
        yield
    if hasher.digest() != digest:
        raise VerificationError("artifact is not what was signed")


class Bundles:
    """Fetches bundles once, verifies length and digest, and takes files out of them."""

    def __init__(self, cache: Cache, fetcher: Fetcher) -> None:
        self._cache = cache
        self._fetcher = fetcher
        # Opening one means reading the names of all its files, thousands in some.
        self._opened: OrderedDict[Path, zipfile.ZipFile] = OrderedDict()

    async def read(self, statement: Statement, url: str, name: str) -> Path | None:
        """Return a file of a bundle, or None if the bundle has none of that name.

        Raises:
            VerificationError: If the artifact is not the bundle that was signed.
            ArtifactError: If it cannot be fetched.
        """

        def take_out(file: IO[bytes]) -> AsyncIterator[None]:
            return _take_out(bundle, name, file)

        digest = statement.bundle_sha256
        bundle = await self._open(await self.whole(statement, url))
        if name not in bundle.NameToInfo:
            return None
        if bundle.NameToInfo[name].file_size > MAX_FILE:
            raise VerificationError("file is larger than the gateway serves")
        member = hashlib.sha256(digest + name.encode()).hexdigest()
        return await self._cache.get(f"{member}.member", take_out)

    async def whole(self, statement: Statement, url: str) -> Path:
        """Return a bundle.

        Raises:
            VerificationError: If the artifact is not the bundle that was signed.
            ArtifactError: If it cannot be fetched.
        """
        length, digest = statement.bundle_length, statement.bundle_sha256

        def fetch(file: IO[bytes]) -> AsyncIterator[None]:
            return fetch_into(
                self._fetcher, url, file, length=length, digest=digest, algorithm="sha256"
            )

        return await self._cache.get(f"{digest.hex()}.zip", fetch)

    async def _open(self, path: Path) -> zipfile.ZipFile:
        opened = self._opened.get(path)
        if opened is None:
            try:
                opened = await asyncio.to_thread(zipfile.ZipFile, path)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise ArtifactError(type(error).__name__) from error
            # Who reads one that goes keeps it open until it is read.
            self._opened[path] = opened
            if len(self._opened) > _OPEN_ZIPS:
                self._opened.popitem(last=False)[1].close()
        self._opened.move_to_end(path)
        return opened


async def _take_out(bundle: zipfile.ZipFile, name: str, file: IO[bytes]) -> AsyncIterator[None]:
    try:
        with bundle.open(name) as source:
            left = MAX_FILE
            while piece := await asyncio.to_thread(source.read, _PIECE):
                left -= len(piece)
                if left < 0:
                    raise VerificationError("file is larger than the gateway serves")
                file.write(piece)
                yield
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise ArtifactError(type(error).__name__) from error
