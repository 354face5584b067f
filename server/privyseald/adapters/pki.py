"""The daemon's own certificate authority: server and client certificates."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_YEARS = 10
SERVER_DAYS = 825
CLIENT_DAYS = 90


_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9-]{1,63})*\.?")
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def require_host(host: str) -> None:
    """Raise ValueError for what is no DNS name or IP address of a server."""
    if len(host) > 253 or not (_is_address(host) or _HOST.fullmatch(host)):
        raise ValueError(
            f"{host[:80]!r} is no DNS name or IP address; give it without a scheme or port, and "
            "names of other scripts in their xn-- form"
        )


def require_client(name: str) -> None:
    """Raise ValueError for what cannot be the name of a person or machine."""
    if not _CLIENT.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is no name for a certificate: 1 to 64 letters, digits or . _ @ -, "
            "beginning with a letter or digit"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def hosts_of(certificate: bytes) -> list[str]:
    """Return the names and addresses in a server's certificate, PEM. Raises ValueError."""
    parsed = x509.load_pem_x509_certificate(certificate)
    names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, durably. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def create_ca(folder: Path) -> None:
    """Write ca.pem and ca.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name("Privyseal CA"))
        .issuer_name(_name("Privyseal CA"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca.key", _pem(key))
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def issue(
    ca: Path, *, common_name: str, hosts: list[str], days: int, now: datetime | None = None
) -> tuple[bytes, bytes]:
    """Return a certificate and its key, PEM, from the CA in a folder.

    Args:
        ca: The folder with ca.pem and ca.key.
        common_name: The principal's name for a client.
        hosts: Names and addresses of a server; empty for a client.
        days: How long it is valid.
        now: When it becomes valid, five minutes less; the clock's time if absent.
    """
    issuer = x509.load_pem_x509_certificate((ca / "ca.pem").read_bytes())
    signer = serialization.load_pem_private_key((ca / "ca.key").read_bytes(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("the CA's key is not the one that init wrote")
    key = ec.generate_private_key(ec.SECP256R1())
    start = now or datetime.now(UTC)
    usage = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(minutes=5))
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host)


def require_pair(key: bytes, certificate: bytes) -> None:
    """Check that a private key, PEM, is that of a certificate, PEM. Raises ValueError."""
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
    except TypeError:
        raise ValueError("the private key is encrypted") from None
    if public != x509.load_pem_x509_certificate(certificate).public_key():
        raise ValueError("the private key is another certificate's")
