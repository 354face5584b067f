"""Connections of devices, none of which can keep others from being served.

The server's own protocol waits for a request as long as its client likes. Here a connection ends
if its client sends no whole request, or takes nothing of the answer, for a while; and where
there are too many, the one that has waited longest for a request gives way to the next.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from privyseald.gateway.listener import Listener

MOST = 384
"""Connections at one time, as long as any of them waits for its client."""
READ_SECONDS = 15.0
"""Seconds in which a client sends the head of a request, and then its body."""
WRITE_SECONDS = 60.0
"""Seconds for which a client may take nothing of an answer."""
_LOOK = 2.5


class PatientServer(uvicorn.Server):
    """A server that waits for no client longer than its turn takes, handshakes included."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Listen. Raises OSError if the port is taken."""
        config = self.config
        await self.lifespan.startup()

        def connection() -> asyncio.Protocol:
            return PatientConnection(
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )

        listener = Listener(connection, config.ssl, READ_SECONDS)
        await listener.start(config.host, config.port, config.backlog)
        self.servers, self.started = [listener], True  # type: ignore[list-item] # all that is done with it is to close it


class PatientConnection(H11Protocol):
    """An HTTP/1.1 connection whose client does not keep it waiting for ever."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._read: tuple[object, object] = (None, None)
        self._unsent = 0
        self.read_at = self._sent_at = 0.0
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.read_at = self._sent_at = self.loop.time()
        self._make_room()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        super().connection_lost(exc)

    @property
    def waits(self) -> bool:
        """Whether it is its client's turn: a head or a body is not all there."""
        return self.conn.their_state in {h11.IDLE, h11.SEND_BODY}

    def _make_room(self) -> None:
        if len(self.connections) <= MOST:
            return
        others = [
            c
            for c in self.connections
            if isinstance(c, PatientConnection) and c is not self and c.waits
        ]
        if others:
            min(others, key=lambda other: other.read_at).transport.abort()

    def _look(self) -> None:
        """End the connection if its client has kept it waiting; look again in a moment."""
        now = self.loop.time()
        read = (self.cycle, self.conn.their_state)
        if not self.waits or any(a is not b for a, b in zip(read, self._read, strict=True)):
            self._read, self.read_at = read, now
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent != self._unsent:
            self._unsent, self._sent_at = unsent, now
        if now - self.read_at > READ_SECONDS or now - self._sent_at > WRITE_SECONDS:
            self.transport.abort()
            return
        self._next = self.loop.call_later(_LOOK, self._look)
