"""Signs again what is deployed, for builds that came later than its first signatures.

The content stays what it is, byte for byte: the statement that was signed is built anew from
its own fields, and the signatures that are missing are added to the receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from privyseal.verify.receipt import SchemeSignature, receipt_parts
from privyseal.verify.statement import Statement

from privyseald.model.errors import FailedPrecondition, KeysChangedError, Unavailable
from privyseald.model.field import needed_versions
from privyseald.model.records import KeyVersionRecord, SignedRecord
from privyseald.model.schemes import APART, KeyVersionState, Scheme
from privyseald.ports import Keyholder, Sealed, Store, Transaction, View
from privyseald.services.added_signatures import add_signatures
from privyseald.services.key_records import deployed

_TRIES = 3


@dataclass(frozen=True)
class _Missing:
    """A release that some versions have still to sign, as of a revision."""

    record: SignedRecord
    revision: int
    statement_key: KeyVersionRecord
    versions: tuple[KeyVersionRecord, ...]


class Renewal:
    """Adds signatures to deployed releases."""

    def __init__(self, store: Store, keyholder: Keyholder) -> None:
        self._store = store
        self._keyholder = keyholder

    async def cover(self, app: str, principal: str) -> int:
        """Sign the deployed releases of an app with every version that their audience needs.

        Args:
            app: The app.
            principal: On whose account; the log names it.

        Returns:
            How many releases were signed again.

        Raises:
            Unavailable: If keys or builds keep changing, or the keyholder cannot sign now.
        """
        renewed = 0
        for _ in range(_TRIES):
            try:
                for missing in await self._store.read(lambda view: list(_missing(view, app))):
                    await self._renew(missing, principal)
                    renewed += 1
            except KeysChangedError:
                continue
            return renewed
        raise Unavailable("the app's keys keep changing; try again", reason="KEYS_CHANGING")

    async def _renew(self, missing: _Missing, principal: str) -> None:
        record, versions = missing.record, missing.versions
        payload, _ = receipt_parts(record.receipt)
        statement = Statement.parse(payload)
        others = [v for v in versions if v.name != missing.statement_key.name]
        built, raw = await self._keyholder.sign_release(
            statement, missing.statement_key.wrapped, [v.wrapped for v in others]
        )
        if built != payload:
            raise FailedPrecondition(
                f"release {record.counter} was stated in another form; publish it anew",
                reason="STATEMENT_FORM",
            )
        made = dict(zip((missing.statement_key.name, *(v.name for v in others)), raw, strict=True))
        added = tuple(
            SchemeSignature(v.scheme, v.algorithm, v.name, v.public_key, made[v.name])
            for v in versions
        )

        def act(tx: Transaction) -> Callable[[Sealed], bytes]:
            if tx.revision != missing.revision:
                raise KeysChangedError
            found = tx.releases.signed(record.app, version=record.version)
            if found is None or found.receipt != record.receipt:
                raise KeysChangedError
            finish = add_signatures(tx, principal, found, added)

            def done(sealed: Sealed) -> bytes:
                finish(sealed)
                return b""

            return done

        await self._store.commit(act)


def _missing(view: View, app: str) -> Iterable[_Missing]:
    """Return the deployed releases that some version has still to sign."""
    keys, builds = view.keys.list(app), view.builds.list(app)
    statement_key = next((k for k in keys if k.scheme is Scheme.STATEMENT_V1), None)
    able = [
        v
        for v in (statement_key.versions if statement_key else ())
        if v.state is KeyVersionState.ACTIVE
    ]
    if not able:
        return
    for release, record, _ in deployed(view, app):
        if not record.receipt:
            continue
        have = {s.key_version for s in receipt_parts(record.receipt)[1]}
        statement = Statement.parse(receipt_parts(record.receipt)[0])
        ranges = (*release.signed_ranges, *release.ranges)
        wanted = tuple(
            version
            for key in keys
            if key.scheme not in APART
            for number in needed_versions(key, builds, ranges)
            if (version := key.version(number)) is not None
            and version.state is KeyVersionState.ACTIVE
            and version.name not in have
            and _can_sign(version.scheme, statement)
        )
        if wanted:
            first = next((v for v in able if v in wanted), able[-1])
            yield _Missing(record, view.revision, first, wanted)


def _can_sign(scheme: Scheme, statement: Statement) -> bool:
    """Say whether a statement has what a scheme signs; what was not stated cannot be added."""
    if scheme is Scheme.MINISIGN:
        return bool(statement.bundle_blake2b)
    if scheme is Scheme.CODEPUSH_V1:
        return bool(statement.codepush_sha256)
    if scheme is Scheme.EXPO_V1:
        return statement.expo is not None
    return True
