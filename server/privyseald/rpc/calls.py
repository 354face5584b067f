"""What every call goes through: authentication, limits, error mapping, idempotency."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from privyseald.model import fields
from privyseald.model.errors import ResourceExhausted, Unauthenticated
from privyseald.model.limits import Buckets
from privyseald.model.policy import Caller, covers
from privyseald.ports import Peers, Request
from privyseald.rpc.metrics import CALLS
from privyseald.rpc.status import abort
from privyseald.services.access import Access
from privyseald.services.secret_text import secret_id_of

_Req = TypeVar("_Req", bound=Message)
_Res = TypeVar("_Res")
_In = TypeVar("_In")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Method = Callable[[Any, _Req, Caller], Awaitable[_Res]]
Enter = Callable[[Message], Awaitable[Caller]]
"""Lets the caller in, for one request of many: its credential counts, and its rate."""
OpenMethod = Callable[[Any, _Req], Awaitable[_Res]]

# A look-up costs the store little; many callers can share an address with one that guesses.
_FAILURES_PER_SECOND, _FAILURES_BURST = 50, 500
# More than one caller has under way at once: after a start all of them may wait for a look-up.
_REFUSED_PER_SECOND, _REFUSED_BURST = 10, 1000
_OPEN_PER_SECOND, _OPEN_BURST = 200, 2000


class Gate:
    """Lets callers in: says who calls, and holds them to their rates.

    Args:
        access: Knows tokens and certificates.
        peers: Reads client certificates.
        principal_rate: Calls per second of one principal in the long run; 0 for any number.
        app_rate: Calls per second about one app, likewise. Twice as many at once.
    """

    def __init__(
        self, access: Access, peers: Peers, *, principal_rate: float, app_rate: float
    ) -> None:
        self._access = access
        self._peers = peers
        self._principals = Buckets(principal_rate, 2 * principal_rate)
        self._apps = Buckets(app_rate, 2 * app_rate)
        self._failures = Buckets(_FAILURES_PER_SECOND, _FAILURES_BURST)
        self._refused = Buckets(_REFUSED_PER_SECOND, _REFUSED_BURST)
        self._open = Buckets(_OPEN_PER_SECOND, _OPEN_BURST)

    async def enter(self, context: Context, request: Message) -> Caller:
        """Return the caller.

        Raises:
            Unauthenticated: If there is no credential that counts.
            ResourceExhausted: If the caller, or everybody who calls about the app, or the
                address or certificate that keeps failing, has had its share.
        """
        now = time.monotonic()
        caller = await self._who(context, now)
        self._take(caller, request, now)
        return caller

    def many(self, context: Context) -> Enter:
        """Return what lets the caller of one call in for each request in it.

        Who calls is asked once, and counts as it does in a call of its own; each request
        takes its share.
        """
        known: list[Caller] = []

        async def enter(request: Message) -> Caller:
            now = time.monotonic()
            if not known:
                known.append(await self._who(context, now))
            self._take(known[0], request, now)
            return known[0]

        return enter

    async def _who(self, context: Context, now: float) -> Caller:
        # A certificate was proved in the handshake: its failures are its own, and not those of
        # the address, which it may share with all who come through one proxy.
        certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
        who = hashlib.sha256(certificate).hexdigest() if certificate else _address(context)
        return await self._authenticate(context, certificate, who, now)

    def _take(self, caller: Caller, request: Message, now: float) -> None:
        """Take a request's shares. Raises ResourceExhausted."""
        if not self._principals.take(caller.principal, now):
            raise _too_many(f"calls by {caller.principal}")
        app = _app_of(request)
        # Who has no grant there cannot use up the app's share.
        own = any(covers(grant, app[5:]) for grant in caller.grants)
        if app and own and not self._apps.take(app, now):
            raise _too_many(f"calls about {app}")

    def enter_openly(self, context: Context) -> None:
        """Let in a call that needs no credential. Raises ResourceExhausted."""
        if not self._open.take(_address(context), time.monotonic()):
            raise _too_many("calls from this address")

    async def _authenticate(
        self, context: Context, certificate: bytes, who: str, now: float
    ) -> Caller:
        if certificate:
            with _share(self._refused, who, now) as taken:
                if not taken:
                    raise _too_many("failed attempts with this certificate")
                chain = b"".join(context.auth_context().get("x509_pem_cert_chain", ()))
                return await self._access.by_certificate(*self._peers.identify(certificate, chain))
        for name, value in context.invocation_metadata() or ():
            if name == "authorization" and isinstance(value, str):
                kind, _, text = value.partition(" ")
                if kind.lower() == "bearer":
                    # What is no credential at all costs no look-up.
                    secret_id_of(text)
                    with _share(self._failures, who, now) as taken:
                        # Who keeps guessing is not looked up any more; who is known still is.
                        if not taken and not self._access.knows(text):
                            raise _too_many("failed attempts from this address")
                        return await self._access.by_token(text)
        raise Unauthenticated(
            "no credential; set PRIVYSEAL_TOKEN or use a client certificate",
            reason="NO_CREDENTIAL",
        )


@contextlib.contextmanager
def _share(failures: Buckets, who: str, now: float) -> Iterator[bool]:
    """Take a share of failures before a look-up and put it back unless the look-up fails.

    Before, because a share that is counted afterwards lets through as many as wait at once.
    """
    unused = taken = failures.take(who, now)
    try:
        yield taken
    except (Unauthenticated, asyncio.CancelledError):
        # Who hangs up had the look-up, too.
        unused = False
        raise
    finally:
        if unused:
            failures.give(who)


def call(method: Method[_Req, _Res]) -> Callable[[Any, _Req, Context], Awaitable[_Res]]:
    """Make a servicer's method out of one that takes the caller; errors become statuses."""
    calls = CALLS.labels(method.__name__)

    @functools.wraps(method)
    async def handler(self: Any, request: _Req, context: Context) -> _Res:
        calls.inc()
        try:
            return await method(self, request, await self.gate.enter(context, request))
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


def call_of_many(
    method: Callable[[Any, _In, Enter], Awaitable[_Res]],
) -> Callable[[Any, _In, Context], Awaitable[_Res]]:
    """Make a servicer's method out of one that lets the caller in for each part of a call.

    The parts are in one message, or come as a stream.
    """
    calls = CALLS.labels(method.__name__)

    @functools.wraps(method)
    async def handler(self: Any, given: _In, context: Context) -> _Res:
        calls.inc()
        try:
            return await method(self, given, self.gate.many(context))
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


def stream(
    method: Callable[[Any, AsyncIterator[_Req], Enter], AsyncIterator[_Res]],
) -> Callable[[Any, AsyncIterator[_Req], Context], AsyncIterator[_Res]]:
    """Make a servicer's method out of one that answers a stream; errors end it."""
    calls = CALLS.labels(method.__name__)

    @functools.wraps(method)
    async def handler(
        self: Any, requests: AsyncIterator[_Req], context: Context
    ) -> AsyncIterator[_Res]:
        calls.inc()
        try:
            async for answer in method(self, requests, functools.partial(self.gate.enter, context)):
                yield answer
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


def answer_stream(
    method: Callable[[Any, _Req, Caller], AsyncIterator[_Res]],
) -> Callable[[Any, _Req, Context], AsyncIterator[_Res]]:
    """Make a servicer's method out of one that answers a request with a stream."""
    calls = CALLS.labels(method.__name__)

    @functools.wraps(method)
    async def handler(self: Any, request: _Req, context: Context) -> AsyncIterator[_Res]:
        calls.inc()
        try:
            caller = await self.gate.enter(context, request)
            async for answer in method(self, request, caller):
                yield answer
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


async def in_order(
    requests: AsyncIterator[_Req], answer: Callable[[_Req], Awaitable[_Res]], most: int
) -> AsyncIterator[_Res]:
    """Answer requests as they come, at most so many at one time, in their order.

    When it ends early, what was begun and not answered is cancelled.
    """
    begun: asyncio.Queue[asyncio.Task[_Res] | None] = asyncio.Queue()
    room = asyncio.Semaphore(most)
    tasks: set[asyncio.Task[Any]] = set()

    async def read() -> None:
        try:
            async for request in requests:
                await room.acquire()
                task = asyncio.ensure_future(answer(request))
                tasks.add(task)
                begun.put_nowait(task)
        finally:
            begun.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (task := await begun.get()) is not None:
            yield await task
            tasks.discard(task)
            room.release()
        await reader
    finally:
        for task in (reader, *tasks):
            task.cancel()
        await asyncio.gather(reader, *tasks, return_exceptions=True)


def open_call(method: OpenMethod[_Req, _Res]) -> Callable[[Any, _Req, Context], Awaitable[_Res]]:
    """Make a servicer's method that needs no credential; errors become statuses."""
    calls = CALLS.labels(method.__name__)

    @functools.wraps(method)
    async def handler(self: Any, request: _Req, context: Context) -> _Res:
        calls.inc()
        try:
            self.gate.enter_openly(context)
            return await method(self, request)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


def _address(context: Context) -> str:
    return context.peer().rpartition(":")[0]


def _app_of(request: Message) -> str:
    """Return apps/{app} if the request is about one app."""
    for field in ("parent", "name", "release", "resource"):
        value = getattr(request, field, "")
        if value.startswith("apps/"):
            return "/".join(value.split("/", 2)[:2])
    return ""


def _too_many(what: str) -> ResourceExhausted:
    return ResourceExhausted(f"too many {what}; wait a second and try again", reason="RATE_LIMITED")


def idempotent(
    caller: Caller, request: Message, encode: Callable[[Any], Message], *, kind: str = ""
) -> Request:
    """Return what makes a mutation idempotent. Raises InvalidArgument for its request_id.

    Args:
        caller: Who asks.
        request: What for.
        encode: Makes the answer a message.
        kind: What it is, where the same message asks for two things.
    """
    request_id = fields.request_id(request.request_id)  # type: ignore[attr-defined]
    body = (
        (kind or type(request).__name__).encode()
        + b"\n"
        + request.SerializeToString(deterministic=True)
    )
    return Request(
        caller.principal,
        request_id,
        hashlib.sha256(body).digest(),
        lambda value: encode(value).SerializeToString(),
    )


def page(size: int, default: int) -> int:
    """Return a page size within bounds."""
    return min(size, 1000) if size > 0 else default
