"""BackupService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from privyseal.v1 import backup_service_pb2 as backup_pb
from privyseal.v1 import backup_service_pb2_grpc as backup_grpc

from privyseald.model.policy import Caller
from privyseald.rpc.calls import Gate, answer_stream, idempotent
from privyseald.services.backups import Backups


class BackupServicer(backup_grpc.BackupServiceServicer):
    """privyseal.v1.BackupService."""

    def __init__(self, gate: Gate, backups: Backups) -> None:
        self.gate, self._backups = gate, backups

    @answer_stream
    async def CreateBackup(
        self, request: backup_pb.CreateBackupRequest, caller: Caller
    ) -> AsyncIterator[backup_pb.CreateBackupResponse]:
        """Make a backup and send it."""
        made = idempotent(caller, request, lambda _: backup_pb.CreateBackupResponse())
        async for piece in self._backups.create(caller, made):
            yield backup_pb.CreateBackupResponse(data=piece)
