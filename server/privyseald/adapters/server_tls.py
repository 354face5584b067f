"""The server's certificates, exchanged while it runs."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc

from privyseald.adapters import pki
from privyseald.adapters.peers import CertificatePeers


class ServerTls:
    """The server's certificate and the CAs of its clients, read again when they change.

    gRPC asks at every handshake, on several threads at once, and swaps what it has without
    holding them off: a daemon that answers each time dies of it. So it is told of changes alone.

    Args:
        folder: With server.pem and server.key.
        peers: Knows the CAs.
        roots: Whether callers bring certificates.

    Raises:
        OSError: If there is no certificate with its key.
    """

    def __init__(self, folder: Path, peers: CertificatePeers, *, roots: bool) -> None:
        self._folder = folder
        self._peers = peers
        self._roots = roots
        self._lock = threading.Lock()
        self._current = self._read()
        try:
            pki.require_pair(*self._current[:2])
        except ValueError:
            raise OSError(
                "tls/server.key is not the key of tls/server.pem; run `privyseald "
                "renew-server-certificate`"
            ) from None

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials of a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed,  # type: ignore[arg-type] # None is for no change, as documented
            require_client_authentication=self._roots,
        )

    def _read(self) -> tuple[bytes, bytes, bytes]:
        self._peers.reload()
        key, chain = ((self._folder / f"server.{part}").read_bytes() for part in ("key", "pem"))
        return key, chain, self._peers.roots() if self._roots else b""

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        key, chain, roots = self._current
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots or None)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            try:
                found = self._read()
                if found == self._current:
                    return None
                pki.require_pair(*found[:2])
            except (OSError, ValueError):
                # One of the two files is renewed, and the other not yet.
                return None
            self._current = found
            return self._configuration()
