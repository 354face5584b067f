"""Verifies CI systems' identity tokens (OpenID Connect, RFC 7519), failing closed.

The order matters: nothing of a token is believed before its signature was verified with a
key of the issuer that it names, and the issuer is one that the daemon was told of.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Any

from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from privyseald.adapters.jwks import Jwks
from privyseald.model.claims import check_claims
from privyseald.model.workload import MAX_TOKEN, Issuer, Workload, refuse, strict_object

ALGORITHMS = ("RS256", "ES256", "EdDSA")
# The signature may be empty here: of an unsigned token, the algorithm is what is wrong.
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_FORBIDDEN = ("jku", "jwk", "x5u", "x5c", "crit", "zip", "b64")


class OidcTokens:
    """Verifies identity tokens of the issuers that the daemon was told of.

    Args:
        issuers: Each with its keys; no two with the same URL.
    """

    def __init__(self, issuers: Sequence[tuple[Issuer, Jwks]]) -> None:
        self._issuers = {issuer.url: (issuer, keys) for issuer, keys in issuers}

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """The issuers."""
        return tuple(issuer for issuer, _ in self._issuers.values())

    async def verify(self, token: str, now: int) -> tuple[Issuer, Workload]:
        """Verify a token and return what it says; see the port."""
        if len(token) > MAX_TOKEN:
            refuse("TOKEN_TOO_LONG", f"the token is longer than {MAX_TOKEN:,} characters")
        header, payload = _split(token)
        kid = _check_header(header)
        # Read to find the issuer, and believed only once the signature holds.
        claims = strict_object(payload, "payload")
        known = self._issuers.get(claims["iss"]) if isinstance(claims.get("iss"), str) else None
        if known is None:
            refuse("TOKEN_ISSUER", "the token's issuer is not one this daemon trusts")
        issuer, keys = known
        key = await keys.key(kid)
        if key is None:
            refuse("TOKEN_KEY_UNKNOWN", "the token's key is not one of its issuer's", kid)
        _check_signature(token, header["alg"], key)
        digest = hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()
        return issuer, check_claims(issuer, claims, now, digest)


def _split(token: str) -> tuple[dict[str, Any], bytes]:
    match = _FORM.fullmatch(token)
    if match is None:
        refuse("TOKEN_MALFORMED", "the token is not a JSON web token", "form")
    try:
        parts = [base64.urlsafe_b64decode(match[n] + "=" * (-len(match[n]) % 4)) for n in (1, 2)]
    except (binascii.Error, ValueError):
        refuse("TOKEN_MALFORMED", "the token is not a JSON web token", "base64")
    return strict_object(parts[0], "header"), parts[1]


def _check_header(header: dict[str, Any]) -> str:
    if header.get("alg") not in ALGORITHMS:
        refuse(
            "TOKEN_ALGORITHM",
            f"the token must be signed with one of {', '.join(ALGORITHMS)}",
            str(header.get("alg")),
        )
    for name in _FORBIDDEN:
        if name in header:
            refuse("TOKEN_HEADER", f"the token's header must not have {name}", name)
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 256:
        refuse("TOKEN_HEADER", "the token's header must name its key (kid)", "kid")
    return kid


def _check_signature(token: str, algorithm: str, key: PyJWK) -> None:
    if key.algorithm_name != algorithm:
        refuse("TOKEN_ALGORITHM", "the token's algorithm is not its key's", algorithm)
    try:
        PyJWS().decode(token, key, algorithms=[algorithm])
    except PyJWTError:
        refuse("TOKEN_SIGNATURE", "the token's signature does not verify")
