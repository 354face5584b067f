"""Keyholder processes under supervision: spawned, fed, watched, killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator, Sequence

import structlog
from privyseal.verify.statement import Statement

from privyseald.keyholder import wire
from privyseald.keyholder.custody import KeyholderSource, Spawned
from privyseald.keyholder.link import Link
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.model.errors import FailedPrecondition, InvalidArgument, Unavailable
from privyseald.model.schemes import (
    CertificateTerms,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    WrappedKey,
)

MAX_WAITING = 4096
"""Requests in the keyholders at one time; more are refused, to be tried again."""

_SLOW_LIMIT = 60.0
"""Seconds for calls in `SLOW`: a device can need half a minute to make a key."""
_START_LIMIT, _TOKEN_START_LIMIT = 30.0, 10.0
"""Seconds in which a process is ready; one with a token logs in meanwhile, which can hang."""
_TOKEN_PATIENCE = 5.0
"""Seconds for which the start waits for the token; then the daemon serves what it can without."""
_DOUBT = 30.0
"""Seconds for which a token is not trusted that takes a login, and then does not sign."""
_MOST_PAUSE, _MOST_PAUSE_IF_ANSWERED = 1.0, 0.5
"""Seconds before a process that dies at once is started again, at most.

One that answered, if only that its token is away, may find it back the next time.
"""


class KeyholderPool:
    """N keyholder processes, and as many with a token if there is one, as one `Keyholder`.

    What needs no key of the token never meets a process that has one: a device that is away, or
    hangs, stops nothing else.

    Args:
        source: Starts the processes.
        processes: How many.
        call_limit: Seconds after which a call that does not end costs the process its life;
            calls that make keys have longer.
        token: Whether there is a token.
        sessions: How many processes have it, each with a session of its own; as many as the others
            if zero.
    """

    def __init__(
        self,
        source: KeyholderSource,
        processes: int,
        call_limit: float = 4.0,
        *,
        token: bool = False,
        sessions: int = 0,
    ) -> None:
        self._source = source
        self._sessions = (sessions or processes) if token else 0
        self._token = token
        self._with_token: set[Link] = set()
        self._doubted_until = 0.0
        self._processes = processes
        self._call_limit = call_limit
        self._links: list[Link] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._ids = itertools.count(1)
        self._log = structlog.get_logger("keyholder")
        self._archives = asyncio.Semaphore(1)
        self.pids: dict[int, int] = {}

    async def start(self) -> None:
        """Start the processes; return when those without a token are ready. Raises Unavailable."""
        started: list[asyncio.Future[None]] = []
        for slot in range(self._processes + self._sessions):
            first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            started.append(first)
            self._tasks.append(asyncio.create_task(self._keep(slot, first)))
        await asyncio.gather(*started[: self._processes])
        if self._token:
            await asyncio.wait(started[self._processes :], timeout=_TOKEN_PATIENCE)

    async def stop(self) -> None:
        """End the processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def generate(
        self,
        identity: KeyIdentity,
        place: KeyPlace = KeyPlace(),  # noqa: B008 - frozen
        certificate: CertificateTerms | None = None,
    ) -> GeneratedKey:
        """Make or take a key pair; see `Keyholder`."""
        call = pb.GenerateKey(
            identity=wire.identity_to_wire(identity),
            token=place.token,
            adopt_uri=place.uri,
            certificate=wire.terms_to_wire(certificate),
        )
        request = pb.Request(generate_key=call)
        made = (await self._make(request, token=place.token)).generated_key
        return wire.made_from_wire(made, certificate)

    async def import_key(
        self,
        identity: KeyIdentity,
        sealed: bytes,
        *,
        token: bool,
        certificate: CertificateTerms | None = None,
    ) -> GeneratedKey:
        """Take a private key that was sealed for the keyholder; see `Keyholder`."""
        call = pb.ImportKey(
            identity=wire.identity_to_wire(identity),
            sealed_private_key=sealed,
            token=token,
            certificate=wire.terms_to_wire(certificate),
        )
        made = (await self._make(pb.Request(import_key=call), token=token)).generated_key
        return wire.made_from_wire(made, certificate)

    async def sign_release(
        self, statement: Statement, statement_key: WrappedKey, scheme_keys: Sequence[WrappedKey]
    ) -> tuple[bytes, list[bytes]]:
        """Build, sign and verify; see `Keyholder`."""
        call = pb.SignRelease(
            content=wire.content_to_wire(statement),
            statement_key=wire.key_to_wire(statement_key),
            scheme_keys=[wire.key_to_wire(key) for key in scheme_keys],
        )
        token = any(key.in_token for key in (statement_key, *scheme_keys))
        request = pb.Request(sign_release=call)
        signed = (await self._call(request, token=token)).signed_release
        return signed.statement, [signed.statement_signature, *signed.scheme_signatures]

    async def sign_archive(
        self, statement: Statement, keys: Sequence[WrappedKey], pieces: AsyncIterator[bytes]
    ) -> list[bytes]:
        """Sign an archive; see `Keyholder`. One at a time: a process has all of it in memory."""
        async with self._archives:
            link = self._choose(token=any(key.in_token for key in keys))
            try:
                await self._hand_over(link, statement, pieces)
                content, signatures = wire.content_to_wire(statement), []
                for key in keys:
                    call = pb.SignArchive(content=content, key=wire.key_to_wire(key))
                    request = pb.Request(sign_archive=call)
                    signed = await self._ask(link, request, token=key.in_token)
                    signatures.append(signed.signed_archive.signature)
            finally:
                self._forget_archive(link)
        return signatures

    async def _make(self, request: pb.Request, *, token: bool) -> pb.Response:
        """Make or take a key; every process with a token knows then that it has one."""
        made = await self._call(request, token=token)
        for link in self._with_token if token else ():
            self._tell(link, pb.Request(expect_keys=pb.ExpectKeys()))
        return made

    async def _hand_over(
        self, link: Link, statement: Statement, pieces: AsyncIterator[bytes]
    ) -> None:
        """Send an archive to a process. Raises InvalidArgument if it is another."""
        first, hasher, length = True, hashlib.sha256(), 0
        async for piece in pieces:
            length += len(piece)
            if length > statement.bundle_length:
                break
            hasher.update(piece)
            taken = pb.Request(take_archive=pb.TakeArchive(first=first, piece=piece))
            await self._ask(link, taken)
            first = False
        if (hasher.digest(), length) != (statement.bundle_sha256, statement.bundle_length):
            raise InvalidArgument("piece", "the archive is not the one that was signed")

    def _forget_archive(self, link: Link) -> None:
        """Have a process let go of its archive, also when the caller has gone."""
        # One that died has let go, too.
        self._tell(link, pb.Request(take_archive=pb.TakeArchive(first=True)))

    def _tell(self, link: Link, request: pb.Request) -> None:
        """Send a process what matters only while it lives; its answer does not."""
        request.id = next(self._ids)
        with contextlib.suppress(Unavailable):
            link.send(request).add_done_callback(lambda done: done.exception())

    async def sign_successor(
        self, old: WrappedKey, new: WrappedKey, new_public_key: bytes, at: int
    ) -> bytes:
        """Sign a successor record; see `Keyholder`."""
        call = pb.SignSuccessor(
            key=wire.key_to_wire(old),
            new_key=wire.key_to_wire(new),
            new_public_key=new_public_key,
            time=at,
        )
        made = await self._call(pb.Request(sign_successor=call), token=old.in_token or new.in_token)
        return made.signed_successor.signature

    async def destroy(self, key: WrappedKey) -> None:
        """Destroy a key; see `Keyholder`. Every process forgets it."""
        call = pb.DestroyKey(key=wire.key_to_wire(key))
        if key.in_token:
            await self._call(pb.Request(destroy_key=call), token=True)
        call.only_forget = True
        for link in list(self._links):
            request = pb.Request(id=next(self._ids), destroy_key=call)
            # One that dies of it has forgotten, too.
            with contextlib.suppress(Unavailable):
                await link.send(request)

    @property
    def serving(self) -> bool:
        """Whether any process can answer."""
        return any(not link.token for link in self._links)

    @property
    def token_serving(self) -> bool:
        """Whether any process can use the token, and the token did as it was told."""
        trusted = asyncio.get_running_loop().time() >= self._doubted_until
        return bool(self._with_token) and trusted

    async def _call(self, request: pb.Request, *, token: bool = False) -> pb.Response:
        return await self._ask(self._choose(token=token), request, token=token)

    def _choose(self, *, token: bool) -> Link:
        """Return the process that has least to do. Raises Unavailable."""
        token = token and self._token
        links = [link for link in self._links if link.token is token]
        # A process without its token still says best what is the matter with it.
        links = [link for link in links if link in self._with_token] or links
        if not links and token:
            raise Unavailable("the token cannot be used now; try again", reason="TOKEN_DOWN")
        if not links:
            raise Unavailable("no keyholder is running; try again", reason="KEYHOLDER_DOWN")
        link = min(links, key=lambda candidate: len(candidate.waiting))
        if len(link.waiting) * len(links) >= MAX_WAITING:
            raise Unavailable("too many signatures are waiting; try again", reason="OVERLOADED")
        return link

    async def _ask(self, link: Link, request: pb.Request, *, token: bool = False) -> pb.Response:
        request.id = next(self._ids)
        response = await link.send(request)
        if token and response.WhichOneof("result") != "failure":
            self._doubted_until, link.signed = 0.0, True
        if response.WhichOneof("result") == "failure":
            failure = response.failure
            if failure.kind == pb.Failure.KIND_KEY_UNUSABLE:
                raise FailedPrecondition(
                    f"the keyholder cannot use this key: {failure.message}", reason="KEY_UNUSABLE"
                )
            self._log.error("keyholder refused", kind=failure.kind, message=failure.message)
            if failure.kind == pb.Failure.KIND_PIN_REFUSED:
                raise FailedPrecondition(
                    "the token refused its PIN, and it is not tried again before an operator "
                    "has set it right and run `privyseald token-login`",
                    reason="PIN_REFUSED",
                )
            if failure.kind == pb.Failure.KIND_TOKEN_DOWN:
                self._doubt(link)
                self._with_token.discard(link)
                raise Unavailable("the token cannot be used now; try again", reason="TOKEN_DOWN")
            if failure.kind == pb.Failure.KIND_REFUSED:
                raise FailedPrecondition(
                    f"the keyholder refuses: {failure.message}", reason="KEYHOLDER_REFUSED"
                )
            raise Unavailable("the keyholder failed; try again", reason="KEYHOLDER_FAILED")
        return response

    def _doubt(self, link: Link) -> None:
        """Trust the token no more for a while, if it took a process's login and never signed."""
        if link in self._with_token and not link.signed:
            self._doubted_until = asyncio.get_running_loop().time() + _DOUBT

    async def _keep(self, slot: int, first: asyncio.Future[None]) -> None:
        """Run one process after another in a slot."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            began = asyncio.get_running_loop().time()
            link: Link | None = None
            try:
                link = await self._run(slot, first)
            except (OSError, Unavailable) as error:
                if not (first.done() or self._has_token(slot)):
                    first.set_exception(
                        Unavailable("a keyholder could not start", reason="KEYHOLDER_DOWN")
                    )
                    return
                self._log.warning("keyholder failed", slot=slot, error=type(error).__name__)
            lived = asyncio.get_running_loop().time() - began
            # One that worked was no failure to start, however soon something killed it.
            worked = link is not None and link.worked
            most = _MOST_PAUSE_IF_ANSWERED if link is not None and link.answered else _MOST_PAUSE
            pause = 0.0 if worked or lived > 1 else min(most, pause * 2 + 0.1)
            self._log.warning(
                "keyholder ended; restarting", slot=slot, lived_seconds=round(lived, 1)
            )

    def _has_token(self, slot: int) -> bool:
        return slot >= self._processes

    async def _run(self, slot: int, first: asyncio.Future[None]) -> Link:
        """Run a process until it ends; return the link that it had."""
        token = self._has_token(slot)
        ours, theirs = socket.socketpair()

        def spawn() -> Spawned:
            with theirs:
                return self._source.spawn(theirs, token=token)

        try:
            # Beside the loop: a custodian that hangs must not stop the daemon's answers.
            process = await asyncio.to_thread(spawn)
        except BaseException:
            # Without this end, whatever is still started for the other ends by itself.
            ours.close()
            raise
        self.pids[slot] = process.pid
        ready: asyncio.Future[pb.Ready] = asyncio.get_running_loop().create_future()
        link = Link(ready, token=token)
        try:
            await _connect(ours, link)
            # Not wait_for: that of Python 3.11 forgets a cancellation that comes with the
            # result, and the daemon would wait for this task for ever when it stops.
            async with asyncio.timeout(_TOKEN_START_LIMIT if token else _START_LIMIT):
                told = await ready
            missed = ", ".join(told.missed)
            self._log.info("keyholder ready", slot=slot, pid=process.pid, not_confined_by=missed)
            if told.token_error:
                self._log.error("token cannot be used", slot=slot, error=told.token_error)
            elif token:
                self._with_token.add(link)
            self._links.append(link)
            if not first.done():
                first.set_result(None)
            await self._watch(link)
        except TimeoutError:
            self._log.error("keyholder did not become ready", slot=slot)
        finally:
            self._with_token.discard(link)
            if link in self._links:
                self._links.remove(link)
            link.close()
            process.kill()
            await asyncio.to_thread(process.wait)
        return link

    async def _watch(self, link: Link) -> None:
        """Return when the process has gone or the call it works on exceeds its limit."""
        loop = asyncio.get_running_loop()
        while not link.closed:
            await asyncio.sleep(min(0.05, self._call_limit / 4))
            oldest = next(iter(link.started.items()), None)
            if oldest is None:
                continue
            limit = _SLOW_LIMIT if oldest[0] in link.slow else self._call_limit
            if loop.time() - oldest[1] > limit:
                self._log.error("keyholder call exceeded its limit; killing the process")
                self._doubt(link)
                return


async def _connect(ours: socket.socket, link: Link) -> None:
    """Have a link use a socket, which is closed if it cannot."""
    ours.setblocking(False)
    try:
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
    except BaseException:
        ours.close()
        raise
