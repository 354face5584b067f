"""Ceremonies: that keys were made by several people from one reviewed file, in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Action, Caller
from privyseald.ports import Request, Sealed, Store, Transaction
from privyseald.services.access import Access
from privyseald.services.key_records import require_version

MAX_PARTICIPANTS, MAX_VERSIONS = 20, 50


@dataclass(frozen=True)
class Ceremony:
    """What is noted of a ceremony.

    Attributes:
        title: What it was for.
        participants: Who took part, by the word of who records it.
        file_sha256: Of the file that they reviewed, 32 bytes.
        transcript_sha256: Of what they were shown, 32 bytes.
        versions: The key versions that were made, by app, key and number.
    """

    title: str
    participants: Sequence[str]
    file_sha256: bytes
    transcript_sha256: bytes
    versions: Sequence[tuple[str, str, int]]


class Ceremonies:
    """Use cases about ceremonies.

    Args:
        store: The store.
        access: Decides.
    """

    def __init__(self, store: Store, access: Access) -> None:
        self._store = store
        self._access = access

    async def record(self, caller: Caller, request: Request, app: str, held: Ceremony) -> bytes:
        """Note a ceremony in the log.

        Raises:
            InvalidArgument: If a field is out of bounds, or a version is another app's.
            NotFound: If there is no such version.
        """
        fields.text(held.title, "title", 100, least=1)
        _bounded(held.participants, "participants", MAX_PARTICIPANTS)
        for name in held.participants:
            fields.text(name, "participants", 200, least=1)
        fields.digest(held.file_sha256, "file_sha256")
        fields.digest(held.transcript_sha256, "transcript_sha256")
        _bounded(held.versions, "key_versions", MAX_VERSIONS)
        if any(version[0] != app for version in held.versions):
            raise InvalidArgument("key_versions", f"must all be of apps/{app}")
        permit = await self._access.authorise(caller, Action.KEY_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            found = [require_version(tx, *version) for version in held.versions]
            index = tx.record(
                {
                    "act": "key.ceremony",
                    "principal": caller.principal,
                    "app": f"apps/{app}",
                    "title": held.title,
                    "participants": list(held.participants),
                    "fileSha256": held.file_sha256.hex(),
                    "transcriptSha256": held.transcript_sha256.hex(),
                    "keys": [
                        {"name": v.name, "publicKeySha256": v.public_key_sha256.hex()}
                        for v in found
                    ],
                }
            )
            return lambda _: index

        return await self._store.commit(act, request)


def _bounded(values: Sequence[object], field: str, most: int) -> None:
    if not 1 <= len(values) <= most or len(set(values)) != len(values):
        raise InvalidArgument(field, f"must be 1 to {most}, each once")
