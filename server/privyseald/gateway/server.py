"""The HTTP server that devices reach."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import nullcontext
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from privyseald.gateway.connections import MOST, PatientServer

LOOK_SECONDS = 2.0
"""Seconds between looks at the certificate's files."""
_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})


class GatewayServer:
    """Serves the gateway to devices.

    Args:
        gateway: The application.
        address: HOST:PORT to listen on.
        certificate: The file with its certificate, PEM; devices are served over HTTP without.
        key: The file with the certificate's key, PEM.
    """

    def __init__(
        self, gateway: Starlette, address: str, certificate: Path | None, key: Path | None
    ) -> None:
        host, _, port = address.rpartition(":")
        config = uvicorn.Config(
            gateway,
            host=host,
            port=int(port),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            limit_concurrency=2 * MOST,
            timeout_graceful_shutdown=3,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            # Of TLS 1.2 what is authenticated and forward secret; 1.3 has nothing else.
            ssl_ciphers="ECDHE+AESGCM:ECDHE+CHACHA20",
        )
        self._config = config
        self._files = (certificate, key)
        self._known = self._looked_at()
        self._address = address
        if certificate is None and host not in _LOOPBACK:
            structlog.get_logger("gateway").warning(
                "devices are served without TLS; set gateway_certificate, or listen on loopback "
                "behind a proxy: Ionic's plugin verifies nothing else",
                gateway=address,
            )
        self._server = PatientServer(config)
        self._server.capture_signals = nullcontext  # type: ignore[method-assign,assignment] # the daemon's own handlers stop it
        self._task: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; when this returns, it is serving.

        Raises:
            OSError: If the port is taken, or the certificate cannot be used.
        """
        try:
            self._config.load()
        except (OSError, ssl.SSLError) as error:
            raise OSError(f"gateway_certificate and gateway_key: {_reason(error)}") from None
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                raise OSError(f"cannot listen on {self._address}; is another daemon running?")
            await asyncio.sleep(0.01)
        if self._config.ssl is not None:
            self._watch = asyncio.create_task(self._take_up(self._config.ssl))

    async def _take_up(self, context: ssl.SSLContext) -> None:
        """Serve with a certificate that was renewed; connections that are there keep theirs."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._looked_at()
            if now == self._known or None in now:
                continue
            self._known = now
            certificate, key = (str(file) for file in self._files)
            log = structlog.get_logger("gateway")
            try:
                # First into another: one that does not fit would be half taken.
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
                context.load_cert_chain(certificate, key)
            except (OSError, ssl.SSLError) as error:
                log.warning("gateway's certificate not taken up", error=_reason(error))
            else:
                log.info("gateway's certificate taken up")

    def _looked_at(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_version, self._files))

    async def stop(self) -> None:
        """Finish what was accepted and stop."""
        if self._watch is not None:
            self._watch.cancel()
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def _version(file: Path | None) -> tuple[int, int] | None:
    """Return what changes when a file does; None if it is not there."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns) if status is not None else None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"they are no certificate and its key ({error.reason or 'malformed'})"
    return f"{getattr(error, 'strerror', '') or type(error).__name__}"
