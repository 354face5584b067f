"""Artifacts that are a manifest and single files: each file is checked before it is served.

The statement binds the manifest's digest, and the manifest the size and digests of each
file, so that a file is as well protected here as in a zip.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from privyseal.verify import MANIFEST
from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import Statement

from privyseald.gateway.artifacts import MAX_FILE, Cache, fetch_into
from privyseald.gateway.fetch import ArtifactError, Fetcher

MAX_MANIFEST = 32 << 20
_ALGORITHM = "sha512-"


class ManifestFiles:
    """Fetches manifests and files, verifies them, and keeps them by digest."""

    def __init__(self, cache: Cache, fetcher: Fetcher) -> None:
        self._cache = cache
        self._fetcher = fetcher
        self._listed: dict[bytes, dict[str, tuple[int, bytes]]] = {}

    async def read(self, statement: Statement, url: str, name: str) -> Path | None:
        """Return the manifest or a file that it lists; None if it lists none of that name.

        Raises:
            VerificationError: If what was fetched is not what was signed.
            ArtifactError: If it cannot be fetched.
        """
        if not url.endswith("/" + MANIFEST):
            raise VerificationError("artifact is not a manifest")
        digest = statement.manifest_sha256
        manifest = await self._get(f"{digest.hex()}.manifest", url, MAX_MANIFEST, digest, "sha256")
        if name == MANIFEST:
            return manifest
        listed = self._listed.get(digest)
        if listed is None:
            try:
                listed = _listed(await asyncio.to_thread(manifest.read_bytes))
            except OSError as error:
                raise ArtifactError(type(error).__name__) from error
            if len(self._listed) >= 64:
                self._listed.clear()
            self._listed[digest] = listed
        if name not in listed:
            return None
        size, wanted = listed[name]
        address = url.removesuffix(MANIFEST) + quote(name)
        return await self._get(f"{wanted.hex()}.file", address, size, wanted, "sha512")

    async def _get(self, name: str, url: str, length: int, digest: bytes, algorithm: str) -> Path:
        def fetch(file: IO[bytes]) -> AsyncIterator[None]:
            return fetch_into(
                self._fetcher, url, file, length=length, digest=digest, algorithm=algorithm
            )

        return await self._cache.get(name, fetch)


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
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        binascii.Error,
    ) as error:
        raise VerificationError("manifest is malformed") from error
    return listed
