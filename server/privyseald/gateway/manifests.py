"""Artifacts that are a manifest and single files: each file is checked before it is served.

The statement binds the manifest's digest, and the manifest the size and digests of each
file, so that a file is as well protected here as in a zip.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import httpx
from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import Statement

from privyseald.gateway.artifacts import MANIFEST, MAX_FILE, ArtifactError, chunks

MAX_MANIFEST = 32 << 20
_ALGORITHM = "sha512-"


class ManifestFiles:
    """Fetches manifests and files, verifies them, and keeps them by digest."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._listed: dict[bytes, dict[str, tuple[int, bytes]]] = {}

    async def read(self, statement: Statement, url: str, name: str) -> bytes | None:
        """Return the manifest or a file that it lists; None if it lists none of that name.

        Raises:
            VerificationError: If what was fetched is not what was signed.
            ArtifactError: If it cannot be fetched.
        """
        if not url.endswith("/" + MANIFEST):
            raise VerificationError("artifact is not a manifest")
        digest = statement.manifest_sha256
        if name == MANIFEST:
            return await self._manifest(digest, url)
        listed = self._listed.get(digest)
        if listed is None:
            listed = _listed(await self._manifest(digest, url))
            if len(self._listed) >= 64:
                self._listed.clear()
            self._listed[digest] = listed
        if name not in listed:
            return None
        size, wanted = listed[name]
        kept = self._cache / f"{wanted.hex()}.file"
        if not kept.exists():
            data = await _fetch(url.removesuffix(MANIFEST) + quote(name), size)
            if len(data) != size or hashlib.sha512(data).digest() != wanted:
                raise VerificationError("file is not the one that the signed manifest lists")
            await asyncio.to_thread(_keep, self._cache, kept, data)
            return data
        return await asyncio.to_thread(kept.read_bytes)

    async def _manifest(self, digest: bytes, url: str) -> bytes:
        kept = self._cache / f"{digest.hex()}.manifest"
        if kept.exists():
            return await asyncio.to_thread(kept.read_bytes)
        data = await _fetch(url, MAX_MANIFEST)
        if hashlib.sha256(data).digest() != digest:
            raise VerificationError("manifest is not the one that was signed")
        await asyncio.to_thread(_keep, self._cache, kept, data)
        return data


async def _fetch(url: str, limit: int) -> bytes:
    data = bytearray()
    try:
        async for chunk in chunks(url):
            data += chunk
            if len(data) > limit:
                raise VerificationError("artifact is longer than what was signed")
    except (OSError, httpx.HTTPError) as error:
        raise ArtifactError(type(error).__name__) from error
    return bytes(data)


def _keep(cache: Path, path: Path, data: bytes) -> None:
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=cache)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    Path(scratch).replace(path)


def _listed(manifest: bytes) -> dict[str, tuple[int, bytes]]:
    """Return size and SHA-512 of each file of a manifest whose digest was verified."""
    listed: dict[str, tuple[int, bytes]] = {}
    try:
        for entry in json.loads(manifest):
            (text,) = (d for d in entry["integrity"].split() if d.startswith(_ALGORITHM))
            digest = base64.b64decode(text.removeprefix(_ALGORITHM), validate=True)
            if not 0 <= entry["size"] <= MAX_FILE or len(digest) != 64:
                raise ValueError("out of bounds")
            listed[entry["href"]] = (entry["size"], digest)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise VerificationError("manifest is malformed") from error
    return listed
