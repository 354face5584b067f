"""Backups of everything, with the consent of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from privyseald.model import fields
from privyseald.model.policy import Action, Caller
from privyseald.ports import Archiver, Request, Sealed, Store, Transaction
from privyseald.services.access import Access

SUBJECT = "backup"


class Backups:
    """Makes backups for who may have them."""

    def __init__(self, store: Store, access: Access, archiver: Archiver) -> None:
        self._store = store
        self._access = access
        self._archiver = archiver

    async def create(self, caller: Caller, request: Request) -> AsyncIterator[bytes]:
        """Make a backup, and yield it in pieces once the log tells of it.

        Raises:
            FailedPrecondition: If nobody is set who could open it, or consent is missing.
            Unavailable: If it cannot be made.
        """
        permit = await self._access.authorise(
            caller, Action.BACKUP_EXPORT, fields.ALL_APPS, subject=SUBJECT
        )
        archive = await self._archiver.make()
        try:

            def act(tx: Transaction) -> Callable[[Sealed], object]:
                permit.confirm(tx)
                tx.record(
                    {
                        "act": "backup.create",
                        "principal": caller.principal,
                        "backupSha256": archive.sha256.hex(),
                        "size": archive.size,
                    }
                )
                return lambda _: None

            await self._store.commit(act, request)
            async for piece in archive.pieces():
                yield piece
        finally:
            archive.discard()
