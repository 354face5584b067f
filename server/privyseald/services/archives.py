"""Signs the archives of releases, for schemes that sign their raw bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from privyseal.verify.receipt import SchemeSignature, receipt_parts
from privyseal.verify.statement import Statement

from privyseald.model.errors import (
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from privyseald.model.field import needed_versions
from privyseald.model.fields import MAX_ARCHIVE
from privyseald.model.policy import Action, Caller
from privyseald.model.records import KeyVersionRecord, SignedRecord
from privyseald.model.schemes import ARCHIVE_SCHEMES, KeyVersionState
from privyseald.ports import Keyholder, Request, Sealed, Spool, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.added_signatures import add_signatures
from privyseald.services.replay import replayed
from privyseald.services.signing import checked, content_of, identity_sha256

MOST_AT_ONCE = 2
"""Archives of one caller on their way at one time."""


@dataclass(frozen=True)
class SignedArchive:
    """The receipt with all its signatures, and those that were added to it."""

    receipt: bytes
    added: tuple[SchemeSignature, ...]


class Archives:
    """Signs archives."""

    def __init__(self, store: Store, access: Access, keyholder: Keyholder, spool: Spool) -> None:
        self._store = store
        self._access = access
        self._keyholder = keyholder
        self._spool = spool
        self._under_way: Counter[str] = Counter()

    @replayed
    async def sign(
        self, caller: Caller, request: Request, wanted: Statement, pieces: AsyncIterator[bytes]
    ) -> bytes:
        """Sign the archive of a release that was signed; return the encoded `SignedArchive`.

        Args:
            caller: Who asks; needs the right to sign the release.
            request: What makes it idempotent.
            wanted: The release, as it was asked for.
            pieces: Its archive.
        """
        wanted = checked(wanted)
        content = content_of(wanted)
        permit = await self._access.authorise(
            caller, Action.RELEASE_SIGN, wanted.app, digest=content
        )
        found = await self._store.read(lambda view: _asked_for(view, wanted))
        record, missing = found
        statement = Statement.parse(receipt_parts(record.receipt)[0])
        if not missing:
            raw: list[bytes] = []
        elif statement.bundle_length > MAX_ARCHIVE:
            raise InvalidArgument("bundle_length", f"must be at most {MAX_ARCHIVE:,} for this")
        else:
            with self._turn(caller.principal):
                raw = await self._signatures(statement, missing, pieces)
        added = tuple(
            SchemeSignature(v.scheme, v.algorithm, v.name, v.public_key, signature)
            for v, signature in zip(missing, raw, strict=True)
        )

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            if not added:
                return lambda _: SignedArchive(record.receipt, ())
            now, still = _asked_for(tx, wanted)
            if now.receipt != record.receipt or _names(still) != _names(missing):
                raise Unavailable(
                    "the app's keys or this release changed; try again", reason="KEYS_CHANGING"
                )
            finish = add_signatures(tx, caller.principal, now, added)
            return lambda sealed: SignedArchive(finish(sealed), added)

        return await self._store.commit(act, request)

    async def _signatures(
        self,
        statement: Statement,
        versions: Sequence[KeyVersionRecord],
        pieces: AsyncIterator[bytes],
    ) -> list[bytes]:
        async with self._spool.hold(pieces, statement.bundle_length) as archive:
            wrapped = [version.wrapped for version in versions]
            return await self._keyholder.sign_archive(statement, wrapped, archive)

    @contextmanager
    def _turn(self, principal: str) -> Iterator[None]:
        """Take one of a caller's turns. Raises ResourceExhausted."""
        if self._under_way[principal] >= MOST_AT_ONCE:
            raise ResourceExhausted(
                f"{MOST_AT_ONCE} archives of {principal} are on their way; send one after another",
                reason="RATE_LIMITED",
            )
        self._under_way[principal] += 1
        try:
            yield
        finally:
            self._under_way[principal] -= 1
            if not self._under_way[principal]:
                del self._under_way[principal]


def _names(versions: Sequence[KeyVersionRecord]) -> list[str]:
    return [version.name for version in versions]


def _asked_for(view: View, wanted: Statement) -> tuple[SignedRecord, tuple[KeyVersionRecord, ...]]:
    """Return what was signed, and the versions that have still to sign its archive.

    Raises:
        DomainError: If it was not signed, or otherwise; or if no key could sign.
    """
    record = view.releases.signed(wanted.app, version=wanted.version)
    if record is not None and not record.receipt:
        raise Unavailable("this version is being signed right now; try again", reason="IN_PROGRESS")
    if record is None:
        raise NotFound(
            f"version {wanted.version} of apps/{wanted.app} is not signed yet; "
            "call SignRelease first",
            reason="VERSION_NOT_SIGNED",
        )
    if record.content_sha256 != identity_sha256(wanted, content_of(wanted)):
        raise InvalidArgument("release", "is not what was signed under this version")
    release = view.releases.get(wanted.app, record.counter)
    if release is not None and release.withdrawn_at:
        raise FailedPrecondition(f"{release.name} was withdrawn", reason="RELEASE_WITHDRAWN")
    builds = view.builds.list(wanted.app)
    keys = [
        key
        for key in view.keys.list(wanted.app)
        if key.scheme in ARCHIVE_SCHEMES and not key.given_up
    ]
    if not keys:
        raise _no_key(wanted.app)
    have = {s.key_version for s in receipt_parts(record.receipt)[1]}
    missing = []
    for key in keys:
        for number in needed_versions(key, builds, wanted.native_ranges):
            version = key.version(number)
            if version is None or version.state is not KeyVersionState.ACTIVE:
                raise FailedPrecondition(
                    f"the primary of {key.name} is not active; resume it (`privyseal key resume`) "
                    "or rotate away from it",
                    reason="KEY_NOT_ACTIVE",
                )
            if version.name not in have:
                missing.append(version)
    return record, tuple(missing)


def _no_key(app: str) -> DomainError:
    schemes = ", ".join(sorted(ARCHIVE_SCHEMES))
    return FailedPrecondition(
        f"apps/{app} has no key that signs archives ({schemes}); make one with `privyseal "
        "live-update generate-signing-key --scheme`",
        reason="KEY_NOT_FOUND",
    )
