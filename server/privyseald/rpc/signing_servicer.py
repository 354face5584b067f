"""SigningService: each method converts, calls one use case and converts back."""

from __future__ import annotations

import hashlib

from privyseal.v1 import signing_service_pb2 as signing_pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc
from privyseal.v1 import types_pb2
from privyseal.verify.statement import Statement

from privyseald.model import fields
from privyseald.model.policy import Caller
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.signing import SignedRelease, Signing


class SigningServicer(signing_grpc.SigningServiceServicer):
    """privyseal.v1.SigningService."""

    def __init__(self, gate: Gate, signing: Signing) -> None:
        self.gate, self._signing = gate, signing

    @call
    async def SignRelease(
        self, request: signing_pb.SignReleaseRequest, caller: Caller
    ) -> signing_pb.SignReleaseResponse:
        """Sign a release."""
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
        )
        answer = await self._signing.sign(caller, idempotent(caller, request, _signed), wanted)
        return signing_pb.SignReleaseResponse.FromString(answer)


def _signed(signed: SignedRelease) -> signing_pb.SignReleaseResponse:
    return signing_pb.SignReleaseResponse(
        signatures=[
            types_pb2.Signature(
                key_version=s.key_version,
                scheme=convert.scheme_to_wire(s.scheme),
                algorithm=convert.algorithm_to_wire(s.algorithm),
                signature=s.signature,
                public_key_sha256=hashlib.sha256(s.public_key).digest(),
                reason="primary",
            )
            for s in signed.signatures
        ],
        statement=signed.statement,
        receipt=signed.receipt,
        counter=signed.counter,
    )
