"""Whom a client certificate stands for: the daemon's own CA, and SPIFFE trust domains.

TLS accepts a certificate that any trusted CA issued. That is not enough: the CA of one trust
domain must not speak for another, nor for the daemon's own people. So each certificate is
verified here again, with the CAs of the one authority that its name belongs to. (SPIFFE
X509-SVID, sections 2 to 5; https://github.com/spiffe/spiffe.)

Files of CAs are read again when they change: a bundle that drops a CA ends what it issued,
also on connections that are open.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from privyseald.model.errors import Unauthenticated

_SPIFFE_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_MAX_CHAIN = 16 * 1024
_MAX_BUNDLE = 1 << 20
_REMEMBERED = 4096
_TRUSTED_SECONDS = 60


class CaFile:
    """Certificates of CAs in a PEM file or a SPIFFE bundle, read again when it changes.

    Args:
        path: The file.

    Raises:
        ValueError, OSError: If it cannot be read at first; later, what was read stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._read_stamp()
        self.certificates = _load(path)

    def _read_stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def reload(self) -> bool:
        """Read the file if it changed; say whether it did."""
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return False
            certificates = _load(self._path)
        except (OSError, ValueError) as error:
            structlog.get_logger("peers").error(
                "CA file cannot be read; what was read before stays", error=type(error).__name__
            )
            return False
        self._stamp, self.certificates = stamp, certificates
        return True


class CertificatePeers:
    """Reads client certificates.

    Args:
        own: The daemon's CA, for certificate:{common name}.
        domains: SPIFFE trust domain -> its bundle.
        clock: Seconds since 1970.
    """

    def __init__(
        self, own: CaFile, domains: Mapping[str, CaFile], clock: Callable[[], int]
    ) -> None:
        self._own = own
        self._domains = dict(domains)
        self._clock = clock
        self._known: dict[bytes, tuple[int, str, str]] = {}
        self._lock = threading.Lock()
        self._checked = 0

    def reload(self) -> bool:
        """Read what changed; say whether anything did."""
        with self._lock:
            changed = [file.reload() for file in (self._own, *self._domains.values())]
            if any(changed):
                self._known.clear()
            return any(changed)

    def roots(self) -> bytes:
        """Return every CA that TLS is to accept, PEM."""
        files = (self._own, *self._domains.values())
        every = [c for file in files for c in file.certificates]
        return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in every)

    def identify(self, certificate: bytes, chain: bytes) -> tuple[str, str]:
        """Return the principal and the serial number; see the port."""
        now = self._clock()
        if now != self._checked:
            self._checked = now
            self.reload()
        known = self._known.get(certificate)
        if known is None or known[0] <= now:
            principal, serial, until = self._verify(certificate, chain, now)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = (min(until, now + _TRUSTED_SECONDS), principal, serial)
            self._known[certificate] = known
        return known[1], known[2]

    def _verify(self, certificate: bytes, chain: bytes, now: int) -> tuple[str, str, int]:
        try:
            if len(certificate) + len(chain) > 2 * _MAX_CHAIN:
                raise ValueError("chain is too long")
            leaf = x509.load_pem_x509_certificate(certificate)
            sent = x509.load_pem_x509_certificates(chain) if chain else []
            principal, authority = self._authority(leaf)
            _verify_chain(leaf, [c for c in sent if c != leaf], authority, now)
        except (ValueError, VerificationError, x509.ExtensionNotFound):
            digest = hashlib.sha256(certificate).hexdigest()[:16]
            structlog.get_logger("peers").warning("certificate refused", sha256=digest)
            raise Unauthenticated(
                "the client certificate was not issued by who may issue for its name",
                reason="CERTIFICATE_REFUSED",
            ) from None
        until = int(leaf.not_valid_after_utc.timestamp())
        return principal, f"{leaf.serial_number:x}", until

    def _authority(self, leaf: x509.Certificate) -> tuple[str, CaFile]:
        """Return the principal that a certificate claims, and who may issue for it."""
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            uris = []
        if not uris:
            common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            if len(common) != 1:
                raise ValueError("not one common name")
            return f"certificate:{common[0].value!s}", self._own
        match = _SPIFFE_ID.fullmatch(uris[0])
        if len(uris) != 1 or match is None or any(p in {".", ".."} for p in match[2].split("/")):
            raise ValueError("not one SPIFFE ID")
        _check_svid(leaf)
        domain = self._domains.get(match[1])
        if domain is None:
            raise ValueError("trust domain is not known")
        return uris[0], domain


def _check_svid(leaf: x509.Certificate) -> None:
    """Refuse a signing certificate as a leaf (X509-SVID sections 3.2 and 4)."""
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    if not usage.digital_signature or usage.key_cert_sign or usage.crl_sign:
        raise ValueError("not a leaf")


def _verify_chain(
    leaf: x509.Certificate, sent: list[x509.Certificate], authority: CaFile, now: int
) -> None:
    for extension in leaf.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            raise ValueError("a CA is no client")
        if (
            isinstance(value, x509.ExtendedKeyUsage)
            and ExtendedKeyUsageOID.CLIENT_AUTH not in value
        ):
            raise ValueError("not for clients")
    verifier = (
        PolicyBuilder()
        .store(Store(authority.certificates))
        .time(datetime.fromtimestamp(now, UTC).replace(tzinfo=None))
        .max_chain_depth(4)
        .extension_policies(
            ca_policy=ExtensionPolicy.permit_all().require_present(
                x509.BasicConstraints, Criticality.AGNOSTIC, None
            ),
            ee_policy=ExtensionPolicy.permit_all(),
        )
        .build_client_verifier()
    )
    for issuer in verifier.verify(leaf, sent).chain[1:]:
        # With every extension permitted above, this is what makes a CA of a certificate.
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not constraints.ca or not usage.key_cert_sign:
            raise ValueError("issuer is no CA")


def _load(path: Path) -> list[x509.Certificate]:
    with path.open("rb") as file:
        data = file.read(_MAX_BUNDLE + 1)
    if len(data) > _MAX_BUNDLE:
        raise ValueError("bundle is too large")
    if data.lstrip().startswith(b"{"):
        return _load_jwks(data)
    return x509.load_pem_x509_certificates(data)


def _load_jwks(data: bytes) -> list[x509.Certificate]:
    """Return the CAs of a SPIFFE bundle (SPIFFE Trust Domain and Bundle, section 4)."""
    try:
        found = [
            x509.load_der_x509_certificate(base64.b64decode(entry["x5c"][0], validate=True))
            for entry in json.loads(data)["keys"]
            if entry["use"] == "x509-svid"
        ]
    except (KeyError, TypeError, IndexError):
        raise ValueError("not a SPIFFE bundle") from None
    if not found:
        raise ValueError("the bundle has no CA")
    return found
