"""Where devices connect: TLS handshakes are bounded in number and in time.

The event loop's own server keeps a connection whose handshake goes on out of everybody's sight.
Of those, a stranger could open as many as the process may have files, and keep what signs from
opening its own. Here the oldest handshake gives way to the next connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
from collections.abc import Callable, Collection

MOST_HANDSHAKES = 384
"""Handshakes at one time."""
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What a name's address is that this machine has not, such as IPv6's of `localhost`."""
_PAUSE = 0.2
"""Seconds until the next try where a connection cannot be accepted: files may be short."""


class Listener:
    """Accepts connections and gives each to a protocol once its handshake is done.

    Args:
        protocol: Makes the protocol of a connection.
        context: What TLS is spoken with; none is if absent.
        handshake_seconds: How long a handshake may take.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        handshake_seconds: float,
    ) -> None:
        self._protocol = protocol
        self._context = context
        self._handshake_seconds = handshake_seconds if context is not None else None
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], None] = {}

    async def start(self, host: str, port: int, backlog: int) -> None:
        """Listen on every address of a host. Raises OSError if a port cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        addresses = {(family, (str(to[0]), port)) for family, _, _, _, to in found}
        for listening in _listening(addresses, backlog):
            task = loop.create_task(self._accept(listening))
            # Not before: the loop watches it as long as it is accepted from.
            task.add_done_callback(functools.partial(_close, listening))
            self._accepting.append(task)

    def close(self) -> None:
        """Accept no more, and let go of handshakes; connections that are there stay."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until what `close` ended has ended."""
        await asyncio.gather(*self._accepting, *self._handshakes, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(_PAUSE)
                continue
            task = loop.create_task(self._hand_over(accepted))
            self._handshakes[task] = None
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))
            # It begins, and who is connected is served, also while others keep connecting.
            await asyncio.sleep(0)
            if len(self._handshakes) > MOST_HANDSHAKES:
                oldest = next(iter(self._handshakes))
                # Now, and not when it has ended: the next has another to give way to it.
                self._handshakes.pop(oldest)
                oldest.cancel()

    async def _hand_over(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Who breaks off, or speaks no TLS, is nobody to tell of it.
        with contextlib.suppress(OSError):
            await loop.connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
            )


def _listening(
    addresses: Collection[tuple[int, tuple[str, int]]], backlog: int
) -> list[socket.socket]:
    """Return sockets that listen. Raises OSError if one cannot, and none is left open."""
    with contextlib.ExitStack() as opened:
        made: list[socket.socket] = []
        for family, address in addresses:
            try:
                one = socket.create_server(address, family=family, backlog=backlog)
            except OSError as error:
                if error.errno in _NOT_HERE and len(addresses) > 1:
                    continue
                raise
            made.append(opened.enter_context(one))
            one.setblocking(False)
        if not made:
            raise OSError(errno.EADDRNOTAVAIL, "no address of it is this machine's")
        opened.pop_all()
    return made


def _close(listening: socket.socket, _: asyncio.Task[None]) -> None:
    listening.close()
