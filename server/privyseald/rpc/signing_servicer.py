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
from privyseal.verify.statement import Statement

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Caller
from privyseald.rpc import convert
from privyseald.rpc.calls import Enter, Gate, call, call_of_many, idempotent, in_order, stream
from privyseald.rpc.status import told
from privyseald.services.signing import SignedRelease, Signing

MOST = 100
"""Releases in one call, and on their way in one stream."""


class SigningServicer(signing_grpc.SigningServiceServicer):
    """privyseal.v1.SigningService."""

    def __init__(self, gate: Gate, signing: Signing) -> None:
        self.gate, self._signing = gate, signing

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
        wanted = Statement(
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
        return await self._signing.sign(caller, idempotent(caller, request, _signed), wanted)


def _expo(message: types_pb2.ExpoContent) -> Expo:
    try:
        return expo_from_message(message)
    except KeyError:
        raise InvalidArgument("expo", "must name a platform") from None


def _signed(signed: SignedRelease) -> signing_pb.SignReleaseResponse:
    return signing_pb.SignReleaseResponse(
        signatures=[
            types_pb2.Signature(
                key_version=s.key_version,
                scheme=convert.scheme_to_wire(s.scheme),
                algorithm=convert.algorithm_to_wire(s.algorithm),
                signature=s.signature,
                public_key_sha256=hashlib.sha256(s.public_key).digest(),
                reason=signed.reasons.get(s.key_version, "primary"),
            )
            for s in signed.signatures
        ],
        statement=signed.statement,
        receipt=signed.receipt,
        counter=signed.counter,
    )
