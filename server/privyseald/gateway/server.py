"""The HTTP server that devices reach."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from privyseald.gateway.connections import MOST, PatientServer

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
        )
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

    async def start(self) -> None:
        """Start it; when this returns, it is serving. Raises OSError if the port is taken."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                raise OSError(f"cannot listen on {self._address}; is another daemon running?")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Finish what was accepted and stop."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
