"""Signs releases: the path that CI waits on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from privyseal.verify.canonical import Json, canonical
from privyseal.verify.receipt import SchemeSignature, build_receipt, receipt_parts, signature_act
from privyseal.verify.statement import NativeRange, Statement, content_sha256

from privyseald import ports
from privyseald.model import expo_content, fields
from privyseald.model.audience import Signer, signers
from privyseald.model.errors import (
    AlreadyExists,
    CounterTakenError,
    DomainError,
    InvalidArgument,
    KeysChangedError,
    Unavailable,
)
from privyseald.model.policy import Action, Caller
from privyseald.model.records import KeyVersionRecord, SignedRecord, signers_text
from privyseald.model.schemes import Scheme
from privyseald.ports import Clock, Keyholder, Request, Sealed, Store, Transaction
from privyseald.services.access import Access, Permit
from privyseald.services.app_keys import AppKeys, RememberedKeys

_TRIES = 3
_Chosen = tuple[tuple[Signer, ...], tuple[KeyVersionRecord, ...], dict[str, Any]]


@dataclass(frozen=True)
class SignedRelease:
    """The answer: the receipt, what is in it, and why each version signed.

    `reasons` is by the name of the version; one that is not there signed as a primary.
    `archive_wanted` says that a key of the app has still to sign the archive itself.
    """

    receipt: bytes
    counter: int
    statement: bytes
    signatures: tuple[SchemeSignature, ...]
    reasons: Mapping[str, str] = field(default_factory=dict)
    archive_wanted: bool = False


class Signing:
    """Signs releases."""

    def __init__(
        self,
        store: Store,
        access: Access,
        keyholder: Keyholder,
        clock: Clock,
        *,
        origin: str,
        gateway: str,
    ) -> None:
        self._store = store
        self._access = access
        self._keyholder = keyholder
        self._clock = clock
        self._origin = origin
        self._gateway = gateway
        self._keys = RememberedKeys(store)

    async def sign(self, caller: Caller, request: Request, wanted: Statement) -> bytes:
        """Sign a release, log it, and return the encoded `SignedRelease`.

        Args:
            caller: Who asks.
            request: What makes it idempotent.
            wanted: The content; its counter, time and log are filled in here.
        """
        wanted = checked(wanted)
        app = wanted.app
        content = content_of(wanted)
        permit = await self._access.authorise(caller, Action.RELEASE_SIGN, app, digest=content)
        identity = identity_sha256(wanted, content)
        for _ in range(_TRIES):
            try:
                return await self._sign_once(permit, request, wanted, identity)
            except (KeysChangedError, CounterTakenError):
                self._keys.forget(app)
        raise Unavailable("the app's keys keep changing; try again", reason="KEYS_CHANGING")

    async def _choose(self, wanted: Statement, revision: int) -> tuple[AppKeys, _Chosen]:
        """Return the app's keys, who signs, and what only some of them sign.

        Raises:
            DomainError: If nobody can, as the app's keys are at this revision or later.
        """
        known = await self._keys.of(wanted.app, revision)
        try:
            return known, self._chosen(known, wanted)
        except DomainError:
            # What is remembered can be older than the key that was resumed, promoted or given up
            # since.
            self._keys.forget(wanted.app)
            known = await self._keys.of(wanted.app, revision)
            return known, self._chosen(known, wanted)

    def _chosen(self, known: AppKeys, wanted: Statement) -> _Chosen:
        chosen = known.signers(wanted.app, wanted.native_ranges)
        keys = tuple(signer.version for signer in chosen)
        return chosen, keys, _needed(wanted, keys, self._gateway)

    async def _sign_once(
        self, permit: Permit, request: Request, wanted: Statement, content: bytes
    ) -> bytes:
        app, caller = wanted.app, permit.caller
        known, (chosen, keys, content_of_some) = await self._choose(wanted, caller.revision)
        now = self._clock()
        counter = self._keys.next_counter(app)
        if wanted.expo is not None:
            now = self._keys.after_the_last(app, counter, now)
        statement = replace(
            wanted,
            counter=counter,
            signed_at=now,
            log_origin=self._origin,
            **content_of_some,
        )
        payload, raw = await self._keyholder.sign_release(
            statement, keys[0].wrapped, [key.wrapped for key in keys[1:]]
        )
        signer: dict[str, Json] = {"principal": caller.principal}
        if caller.session_app:
            signer["session"] = caller.credential
        signatures = tuple(
            SchemeSignature(key.scheme, key.algorithm, key.name, key.public_key, signature)
            for key, signature in zip(keys, raw, strict=True)
        )

        reasons = {s.version.name: s.reason for s in chosen if s.reason != "primary"}

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            self._access.saw(tx.revision)
            window = permit.check(tx)
            existing = tx.releases.signed(app, version=wanted.version)
            if existing is not None:
                answer = _same(existing, content, known.archive_schemes)
                return lambda _: answer
            if tx.revision != known.revision:
                _require_same_keys(tx, app, wanted.native_ranges, keys)
            permit.use(tx, window)
            index = tx.record({**signer, **signature_act(payload, statement, signatures)})
            names = signers_text(key.name for key in keys)
            record = SignedRecord(app, wanted.version, counter, content, b"", now, names)
            tx.releases.add_signed(record)

            def finish(sealed: Sealed) -> SignedRelease:
                receipt = build_receipt(
                    payload=payload,
                    signatures=signatures,
                    leaf=sealed.leaf(index),
                    index=index,
                    proof=sealed.proof(index),
                    checkpoint=sealed.checkpoint,
                )
                tx.releases.set_receipt(app, wanted.version, receipt)
                archive = bool(known.archive_schemes)
                return SignedRelease(receipt, counter, payload, signatures, reasons, archive)

            return finish

        try:
            return await self._store.commit(
                act, request, ports.Signing(app, wanted.version, counter)
            )
        except DomainError:
            # Whatever another replica changed is read again before the next signature.
            self._keys.forget(app)
            raise


def _require_same_keys(
    tx: Transaction,
    app: str,
    ranges: tuple[NativeRange, ...],
    keys: tuple[KeyVersionRecord, ...],
) -> None:
    """Drop what was signed if the versions that must sign are others by now."""
    now = signers(app, tx.keys.list(app), tx.builds.list(app), ranges)
    if [signer.version.name for signer in now] != [key.name for key in keys]:
        raise KeysChangedError


def content_of(wanted: Statement) -> bytes:
    """Return the digest by which a session may sign a release, 32 bytes."""
    return content_sha256(
        bundle_sha256=wanted.bundle_sha256,
        bundle_length=wanted.bundle_length,
        manifest_sha256=wanted.manifest_sha256,
        bundle_blake2b=wanted.bundle_blake2b,
        codepush_sha256=wanted.codepush_sha256,
        expo=wanted.expo,
    )


def identity_sha256(wanted: Statement, content: bytes) -> bytes:
    """Return the digest of what must be the same if a version is asked for again, 32 bytes.

    Args:
        wanted: The release.
        content: What `content_of` says of it.
    """
    identity: dict[str, Json] = {
        "app": wanted.app,
        "version": wanted.version,
        "content": content.hex(),
        "ranges": [[r.platform, r.min, r.max, r.eq] for r in wanted.native_ranges],
        "commit": wanted.source_commit,
    }
    return hashlib.sha256(canonical(identity)).digest()


def _same(
    existing: SignedRecord, content: bytes, archive_schemes: AbstractSet[str] = frozenset()
) -> SignedRelease:
    if existing.content_sha256 != content:
        raise AlreadyExists(
            f"version {existing.version} was signed with another digest, range or commit; "
            "use a new version",
            reason="VERSION_SIGNED",
            field="version",
        )
    if not existing.receipt:
        # It is in the same group commit: its receipt exists once that is sealed.
        raise Unavailable("this version is being signed right now; try again", reason="IN_PROGRESS")
    statement, signatures = receipt_parts(existing.receipt)
    unsigned = bool(archive_schemes - {s.scheme for s in signatures})
    return SignedRelease(
        existing.receipt, existing.counter, statement, signatures, archive_wanted=unsigned
    )


def checked(wanted: Statement) -> Statement:
    """Return what is asked for, in its one form. Raises InvalidArgument."""
    fields.app_id(wanted.app, "parent")
    fields.version(wanted.version)
    fields.digest(wanted.bundle_sha256, "bundle_sha256")
    fields.bundle_length(wanted.bundle_length)
    fields.digest(wanted.manifest_sha256, "manifest_sha256")
    fields.native_ranges(wanted.native_ranges)
    fields.commit(wanted.source_commit, "source_commit")
    if len(wanted.bundle_blake2b) not in {0, 64}:
        raise InvalidArgument("bundle_blake2b", "must be a BLAKE2b-512 digest of 64 bytes")
    if wanted.codepush_sha256:
        fields.digest(wanted.codepush_sha256, "codepush_sha256")
    if wanted.expo is None:
        return wanted
    return replace(wanted, expo=expo_content.check(wanted.expo))


def _needed(wanted: Statement, keys: tuple[KeyVersionRecord, ...], gateway: str) -> dict[str, Any]:
    """Return what the app's schemes sign of the content that only some do, and no more."""
    schemes = {key.scheme for key in keys}
    for scheme, name, value, what in (
        (Scheme.MINISIGN, "bundle_blake2b", wanted.bundle_blake2b, "send it"),
        (Scheme.CODEPUSH_V1, "codepush_sha256", wanted.codepush_sha256, "send it"),
        (Scheme.EXPO_V1, "expo", wanted.expo, "publish what `npx expo export` wrote"),
    ):
        if scheme in schemes and not value:
            version = next(key.name for key in keys if key.scheme is scheme)
            raise InvalidArgument(
                name,
                f"is needed, since the app has a key for {scheme}: {what}, or give the key up "
                f"(`privyseal key deactivate {version}`)",
            )
    expo = wanted.expo if Scheme.EXPO_V1 in schemes else None
    return {
        "bundle_blake2b": wanted.bundle_blake2b if Scheme.MINISIGN in schemes else b"",
        "codepush_sha256": wanted.codepush_sha256 if Scheme.CODEPUSH_V1 in schemes else b"",
        "expo": expo and replace(expo, gateway=gateway),
    }
