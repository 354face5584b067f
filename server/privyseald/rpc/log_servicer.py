"""LogService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import log_service_pb2 as log_pb
from privyseal.v1 import log_service_pb2_grpc as log_grpc
from privyseal.v1 import types_pb2

from privyseald.model.policy import Caller
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, page
from privyseald.services.audit import Audit


class LogServicer(log_grpc.LogServiceServicer):
    """privyseal.v1.LogService."""

    def __init__(self, gate: Gate, audit: Audit, vkey: str) -> None:
        self.gate, self._audit, self._vkey = gate, audit, vkey

    @call
    async def GetCheckpoint(
        self, request: log_pb.GetCheckpointRequest, caller: Caller
    ) -> log_pb.GetCheckpointResponse:
        """Return the newest checkpoint."""
        head = await self._audit.head()
        return log_pb.GetCheckpointResponse(checkpoint=head.note, verifier_key=self._vkey)

    @call
    async def GetInclusionProof(
        self, request: log_pb.GetInclusionProofRequest, caller: Caller
    ) -> log_pb.GetInclusionProofResponse:
        """Prove a leaf."""
        size, hashes = await self._audit.inclusion(request.index, request.tree_size)
        return log_pb.GetInclusionProofResponse(tree_size=size, hashes=hashes)

    @call
    async def GetConsistencyProof(
        self, request: log_pb.GetConsistencyProofRequest, caller: Caller
    ) -> log_pb.GetConsistencyProofResponse:
        """Prove a prefix."""
        size, hashes = await self._audit.consistency(request.old_size, request.new_size)
        return log_pb.GetConsistencyProofResponse(new_size=size, hashes=hashes)

    @call
    async def ListEntries(
        self, request: log_pb.ListEntriesRequest, caller: Caller
    ) -> log_pb.ListEntriesResponse:
        """List leaves."""
        limit = page(request.page_size, 100)
        leaves, size = await self._audit.entries(caller, request.start, limit)
        return log_pb.ListEntriesResponse(
            entries=[
                types_pb2.LogEntry(index=i, leaf=leaf, time=convert.time(at))
                for i, leaf, at in leaves
            ],
            next_start=leaves[-1][0] + 1 if leaves else size,
            log_size=size,
        )
