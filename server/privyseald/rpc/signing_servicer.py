"""SigningService: each method converts, calls one use case and converts back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

from privyseal.v1 import signing_service_pb2 as signing_pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc
from privyseal.v1 import types_pb2
from privyseal.verify.expo import Expo
from privyseal.verify.messages import expo_from_message
from privyseal.verify.receipt import SchemeSignature
from privyseal.verify.statement import Statement

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument, Unavailable
from privyseald.model.policy import Caller
from privyseald.rpc import convert
from privyseald.rpc.calls import (
    Enter,
    Gate,
    call,
    call_of_many,
    idempotent,
    in_order,
    stream,
)
from privyseald.rpc.status import told
from privyseald.services.archives import Archives, SignedArchive
from privyseald.services.signing import SignedRelease, Signing

MOST = 100
"""Releases in one call, and on their way in one stream."""
MAX_PIECE = 512 * 1024
"""Bytes of an archive in one message."""
PIECE_WAIT, ARCHIVE_WAIT = 30.0, 600.0
"""Seconds for which the next piece of an archive is waited for, and all of it."""


class SigningServicer(signing_grpc.SigningServiceServicer):
    """privyseal.v1.SigningService."""

    def __init__(self, gate: Gate, signing: Signing, archives: Archives) -> None:
        self.gate, self._signing, self._archives = gate, signing, archives

    @call
    async def SignRelease(
        self, request: signing_pb.SignReleaseRequest, caller: Caller
    ) -> signing_pb.SignReleaseResponse:
        """Sign a release."""
        return signing_pb.SignReleaseResponse.FromString(await self._sign(request, caller))

    @call_of_many
    async def SignReleases(
        self, request: signing_pb.SignReleasesRequest, enter: Enter
    ) -> signing_pb.SignReleasesResponse:
        """Sign many releases."""
        if not 1 <= len(request.releases) <= MOST:
            raise InvalidArgument("releases", f"must be 1 to {MOST}, got {len(request.releases)}")
        callers = [await enter(one) for one in request.releases]
        results = await asyncio.gather(*map(self._result, request.releases, callers))
        return signing_pb.SignReleasesResponse(results=results)

    @stream
    async def StreamReleases(
        self, requests: AsyncIterator[signing_pb.SignReleaseRequest], enter: Enter
    ) -> AsyncIterator[signing_pb.SignReleaseResult]:
        """Sign releases as they come."""
        async for result in in_order(requests, self._entered(enter), MOST):
            yield result

    @call_of_many
    async def SignArchive(
        self, requests: AsyncIterator[signing_pb.SignArchiveRequest], enter: Enter
    ) -> signing_pb.SignArchiveResponse:
        """Sign an archive."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "release":
            raise InvalidArgument("release", "must be the first message")
        caller = await enter(first.release)
        answer = await self._archives.sign(
            caller,
            idempotent(caller, first.release, _archive_signed, kind="SignArchive"),
            _wanted(first.release),
            _pieces(requests),
        )
        return signing_pb.SignArchiveResponse.FromString(answer)

    def _entered(
        self, enter: Enter
    ) -> Callable[[signing_pb.SignReleaseRequest], Awaitable[signing_pb.SignReleaseResult]]:
        async def answer(request: signing_pb.SignReleaseRequest) -> signing_pb.SignReleaseResult:
            return await self._result(request, await enter(request))

        return answer

    async def _result(
        self, request: signing_pb.SignReleaseRequest, caller: Caller
    ) -> signing_pb.SignReleaseResult:
        """Return what became of one release of many."""
        try:
            answer = await self._sign(request, caller)
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            return signing_pb.SignReleaseResult(error=told(error))
        result = signing_pb.SignReleaseResult()
        result.signed.MergeFromString(answer)
        return result

    async def _sign(self, request: signing_pb.SignReleaseRequest, caller: Caller) -> bytes:
        once = idempotent(caller, request, _signed)
        return await self._signing.sign(caller, once, _wanted(request))


def _wanted(request: signing_pb.SignReleaseRequest) -> Statement:
    return Statement(
        app=fields.app_name(request.parent, "parent"),
        version=request.version,
        counter=0,
        bundle_sha256=request.bundle_sha256,
        bundle_length=request.bundle_length,
        manifest_sha256=request.manifest_sha256,
        native_ranges=fields.native_ranges(convert.ranges(request.native_ranges)),
        source_commit=fields.commit(request.source_commit, "source_commit"),
        signed_at=0,
        log_origin="",
        bundle_blake2b=request.bundle_blake2b,
        codepush_sha256=request.codepush_sha256,
        expo=_expo(request.expo) if request.HasField("expo") else None,
    )


async def _pieces(requests: AsyncIterator[signing_pb.SignArchiveRequest]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    end = loop.time() + ARCHIVE_WAIT
    while True:
        try:
            async with asyncio.timeout(min(PIECE_WAIT, end - loop.time())):
                request = await anext(requests, None)
        except TimeoutError:
            raise Unavailable(
                f"nothing came of the archive for {PIECE_WAIT:.0f} seconds, or not all of it in "
                f"{ARCHIVE_WAIT:.0f}; send it again",
                reason="ARCHIVE_STALLED",
            ) from None
        if request is None:
            return
        if not 0 < len(request.piece) <= MAX_PIECE:
            raise InvalidArgument("piece", f"must be 1 to {MAX_PIECE:,} bytes")
        yield request.piece


def _expo(message: types_pb2.ExpoContent) -> Expo:
    try:
        return expo_from_message(message)
    except KeyError:
        raise InvalidArgument("expo", "must name a platform") from None


def _signed(signed: SignedRelease) -> signing_pb.SignReleaseResponse:
    return signing_pb.SignReleaseResponse(
        signatures=[
            _signature(s, signed.reasons.get(s.key_version, "primary")) for s in signed.signatures
        ],
        statement=signed.statement,
        receipt=signed.receipt,
        counter=signed.counter,
        archive_wanted=signed.archive_wanted,
    )


def _archive_signed(signed: SignedArchive) -> signing_pb.SignArchiveResponse:
    return signing_pb.SignArchiveResponse(
        signatures=[_signature(s, "primary") for s in signed.added], receipt=signed.receipt
    )


def _signature(signature: SchemeSignature, reason: str) -> types_pb2.Signature:
    return types_pb2.Signature(
        key_version=signature.key_version,
        scheme=convert.scheme_to_wire(signature.scheme),
        algorithm=convert.algorithm_to_wire(signature.algorithm),
        signature=signature.signature,
        public_key_sha256=hashlib.sha256(signature.public_key).digest(),
        reason=reason,
    )
