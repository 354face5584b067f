"""Backups of everything, with the consent of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists
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
            AlreadyExists: If the request was answered before: each backup that leaves is one that
                this very call put into the log, with consent of its own.
        """
        permit = await self._access.authorise(
            caller, Action.BACKUP_EXPORT, fields.ALL_APPS, subject=SUBJECT
        )
        archive = await self._archiver.make()
        recorded = False
        try:

            def act(tx: Transaction) -> Callable[[Sealed], object]:
                nonlocal recorded
                permit.confirm(tx)
                recorded = True
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
            if not recorded:
                raise AlreadyExists(
                    "this request was answered with a backup already; make another with a new "
                    "request_id",
                    reason="BACKUP_MADE",
                    field="request_id",
                )
            async for piece in archive.pieces():
                yield piece
        finally:
            archive.discard()
