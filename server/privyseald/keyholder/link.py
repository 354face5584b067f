"""The daemon's end of one keyholder's socket."""

from __future__ import annotations

import asyncio
from typing import cast

from privyseald.keyholder import wire
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.model.errors import Unavailable

SLOW = frozenset({"generate_key", "import_key", "destroy_key", "sign_archive"})
"""Calls that may take long."""


def _gone() -> Unavailable:
    return Unavailable("the keyholder was restarted; try again", reason="KEYHOLDER_RESTARTED")


class Link(asyncio.Protocol):
    """The daemon's end of one keyholder's socket."""

    def __init__(self, on_ready: asyncio.Future[pb.Ready], *, token: bool = False) -> None:
        self.token = token
        self.waiting: dict[int, asyncio.Future[pb.Response]] = {}
        self.started: dict[int, float] = {}
        self.slow: set[int] = set()
        self.closed = False
        self.answered = self.worked = self.signed = False
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._ready = on_ready
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are Transports by behaviour, not by inheritance.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for message in wire.unframe(self._buffer):
            response = pb.Response.FromString(message)
            if response.id == 0:
                if not self._ready.done():
                    self._ready.set_result(response.ready)
                continue
            self.started.pop(response.id, None)
            self.slow.discard(response.id)
            future = self.waiting.pop(response.id, None)
            if future is not None and not future.done():
                future.set_result(response)
                self.answered = True
                self.worked |= response.WhichOneof("result") != "failure"
        # The oldest request still waiting has only now come to be worked on.
        if self.started:
            self.started[next(iter(self.started))] = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.closed = True
        if not self._ready.done():
            self._ready.set_exception(_gone())
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(_gone())
        self.waiting.clear()
        self.started.clear()

    def send(self, request: pb.Request) -> asyncio.Future[pb.Response]:
        """Send a request at the end of this turn of the loop, together with others.

        Raises:
            Unavailable: If the process has gone; nobody would ever answer.
            ValueError: If the request does not fit a frame.
        """
        if self.closed:
            raise _gone()
        frame = wire.frame(request.SerializeToString())
        future: asyncio.Future[pb.Response] = self._loop.create_future()
        self.waiting[request.id] = future
        self.started[request.id] = self._loop.time()
        if request.WhichOneof("call") in SLOW:
            self.slow.add(request.id)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)
        return future

    def close(self) -> None:
        """Close the socket, which ends the process."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.write(b"".join(self._out))
        self._out.clear()
