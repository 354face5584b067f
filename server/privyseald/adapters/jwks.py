"""An issuer's public keys (RFC 7517), fetched from that issuer alone and kept in bounds.

Whoever can send tokens can make the daemon look for keys: so an unknown key id causes at
most one fetch a minute, whatever their number, and an answer is bounded in time and size.
Known keys are served on while an issuer is down, up to a hard limit.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from privyseald.model.errors import Unavailable

TTL = 600
COOL_DOWN = 60
STALE = 86_400
TIMEOUT = 5.0
MAX_BYTES = 512 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048
_ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

_UNREADABLE = (
    *(OSError, TimeoutError, ValueError, RecursionError),
    *(httpx.HTTPError, httpx.InvalidURL),
)


@dataclass(frozen=True)
class JwksSource:
    """Where an issuer's keys are.

    Attributes:
        issuer: The issuer's URL.
        uri: Its key set; found by OpenID Connect discovery if empty.
        file: A file instead, for issuers that cannot be reached; read again like a fetch.
        ca_file: CAs to trust for it, PEM; the system's if absent.
        hosts: Other hosts than the issuer's that discovery may point at.
        stale_seconds: How long known keys serve while the issuer cannot be reached.
    """

    issuer: str
    uri: str = ""
    file: Path | None = None
    ca_file: Path | None = None
    hosts: tuple[str, ...] = ()
    stale_seconds: int = STALE


class Jwks:
    """One issuer's keys.

    Args:
        source: Where they are.
        clock: Seconds, monotonic.
    """

    def __init__(self, source: JwksSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._ttl = 0.0
        self._lock = asyncio.Lock()
        self._log = structlog.get_logger("jwks")
        self.fetches = 0

    async def key(self, kid: str) -> PyJWK | None:
        """Return a key, None if the issuer has no such one.

        Raises:
            Unavailable: If the keys are not known, or have been out of reach for too long.
        """
        # Who finds a fetch under way waits for it: the key may be in what it brings.
        if self._wants_fetch(kid) or (kid not in self._keys and self._lock.locked()):
            async with self._lock:
                if self._wants_fetch(kid):
                    await self._refresh()
        if self._clock() - self._fetched > self._source.stale_seconds:
            raise Unavailable(
                "the issuer's keys cannot be fetched now; try again", reason="ISSUER_DOWN"
            )
        return self._keys.get(kid)

    def _wants_fetch(self, kid: str) -> bool:
        now = self._clock()
        if now - self._tried < COOL_DOWN:
            return False
        return kid not in self._keys or now - self._fetched >= self._ttl

    async def _refresh(self) -> None:
        self._tried = self._clock()
        self.fetches += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                self._keys = parse(await self._read())
        except _UNREADABLE as error:
            self._log.warning(
                "cannot fetch keys", issuer=self._source.issuer, error=type(error).__name__
            )
            return
        self._fetched = self._clock()
        # Replicas that began together do not ask together.
        self._ttl = TTL * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing

    async def _read(self) -> bytes:
        source = self._source
        if source.file is not None:
            return await asyncio.to_thread(_read_file, source.file)
        context = ssl.create_default_context(cafile=source.ca_file)
        async with httpx.AsyncClient(verify=context, timeout=TIMEOUT) as client:
            return await _get(client, source.uri or await self._discover(client))

    async def _discover(self, client: httpx.AsyncClient) -> str:
        issuer = self._source.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        found = json.loads(await _get(client, url))
        uri = found.get("jwks_uri") if isinstance(found, dict) else None
        if not isinstance(uri, str) or found.get("issuer") != issuer:
            raise ValueError("discovery document is of another issuer")
        parts, own = urlsplit(uri), urlsplit(issuer)
        if parts.scheme != "https" or parts.netloc not in {own.netloc, *self._source.hosts}:
            raise ValueError("jwks_uri is on another host")
        return uri


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("key set is too large")
    return data


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    if not url.startswith("https://"):
        raise ValueError("keys are fetched over https only")
    # Nothing is unpacked: a small answer cannot become a large one.
    plain = {"Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=plain, follow_redirects=False) as response:
        if response.status_code != httpx.codes.OK:
            raise ValueError("no key set there")
        data = b""
        async for chunk in response.aiter_raw():
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError("key set is too large")
    return data


def parse(data: bytes) -> dict[str, PyJWK]:
    """Return the keys of a key set that can verify tokens; others are left out.

    Raises:
        ValueError: If it is no key set, or holds too many keys.
    """
    value = json.loads(data)
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("not a key set")
    found: dict[str, PyJWK] = {}
    twice: set[str] = set()
    for entry in listed:
        key = _usable(entry)
        if key is None:
            continue
        if entry["kid"] in found:
            twice.add(entry["kid"])
        found[entry["kid"]] = key
    # Which of two keys is meant must not be left to chance.
    return {kid: key for kid, key in found.items() if kid not in twice}


def _usable(entry: Any) -> PyJWK | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    algorithm = _ALGORITHMS.get((entry.get("kty", ""), entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    try:
        key = PyJWK({**entry, "alg": algorithm})
    except (PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key.key, rsa.RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return None if "d" in entry else key
