"""Registers signed bundles, narrows and withdraws them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from privyseal.verify.canonical import Json
from privyseal.verify.note import NoteVerifier
from privyseal.verify.receipt import receipt_parts, verify_receipt
from privyseal.verify.statement import NativeRange

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from privyseald.model.policy import Action, Caller
from privyseald.model.records import (
    ReleaseRecord,
    SignedRecord,
)
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.key_records import require_app

_TAKE_MANIFESTS = {"ionic"}
"""The plugins whose devices fetch single files by a manifest."""
ARTIFACT_TYPES = ("zip", "manifest")


@dataclass(frozen=True)
class Artifact:
    """What a release is registered with."""

    url: str
    type: str
    commit_sha: str = ""
    commit_ref: str = ""
    commit_message: str = ""


class Releases:
    """What was registered.

    Args:
        store: The store.
        access: Authorisation.
        clock: Tells the time.
        log: The log's public key.
        artifacts: The address of the gateway's own artifacts, ending in a slash.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        clock: Clock,
        log: NoteVerifier,
        *,
        artifacts: str,
    ) -> None:
        self._artifacts = artifacts
        self._store = store
        self._access = access
        self._clock = clock
        self._verifier = log

    async def register(
        self, caller: Caller, request: Request, *, app: str, version: str, artifact: Artifact
    ) -> bytes:
        """Register the artifact of a signed version; the answer is made of a ReleaseRecord.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            version: What was signed under it is registered.
            artifact: Where devices find it, and its commit.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app is missing.
            FailedPrecondition: If the version was never signed.
            AlreadyExists: If it is registered with another artifact.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        fields.version(version)
        artifact = self._checked(app, artifact)
        permit = await self._access.authorise(caller, Action.RELEASE_MANAGE, app)
        now = self._clock()

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            require_app(tx, app)
            record, payload = self._release_of(tx, app, version, artifact, now)
            existing = tx.releases.get(app, record.counter)
            if existing is not None:
                if (existing.artifact_url, existing.artifact_type) != (artifact.url, artifact.type):
                    raise AlreadyExists(
                        f"{existing.name} is registered with another artifact",
                        reason="RELEASE_EXISTS",
                        field="artifact_url",
                    )
                return lambda _: existing
            tx.releases.add(record)
            tx.record(
                {
                    "act": "release.register",
                    "principal": caller.principal,
                    "release": record.name,
                    "version": version,
                    "statementSha256": hashlib.sha256(payload).hexdigest(),
                    "url": artifact.url,
                    "type": artifact.type,
                }
            )
            return lambda _: record

        return await self._store.commit(act, request)

    def _checked(self, app: str, artifact: Artifact) -> Artifact:
        """Return an artifact in its one form. Raises InvalidArgument."""
        fields.url(artifact.url, "artifact_url")
        own = f"{self._artifacts}{app}/"
        if artifact.url.startswith(self._artifacts) and not artifact.url.startswith(own):
            raise InvalidArgument(
                "artifact_url", f"the gateway serves artifacts of this app below {own} alone"
            )
        if artifact.type not in ARTIFACT_TYPES:
            raise InvalidArgument("artifact_type", "must be zip or manifest")
        fields.text(artifact.commit_ref, "commit_ref", 200)
        return replace(
            artifact,
            commit_sha=fields.commit(artifact.commit_sha, "commit_sha"),
            commit_message=fields.shown_text(artifact.commit_message, 500),
        )

    def _release_of(
        self, view: View, app: str, version: str, artifact: Artifact, now: int
    ) -> tuple[ReleaseRecord, bytes]:
        """Return what is registered of a signed version, and its statement.

        Raises:
            FailedPrecondition: If it was never signed, or may not be registered so.
        """
        signed = view.releases.signed(app, version=version)
        if signed is None or not signed.receipt:
            raise FailedPrecondition(
                f"version {version} of apps/{app} was never signed; sign it first, "
                "`privyseal publish` does both",
                reason="NOT_SIGNED",
            )
        require_sound(view, signed)
        _require_taken(view, app, artifact.type)
        statement = verify_receipt(signed.receipt, log=self._verifier).statement
        record = ReleaseRecord(
            app=app,
            counter=signed.counter,
            version=version,
            artifact_url=artifact.url,
            artifact_type=artifact.type,
            bundle_sha256=statement.bundle_sha256,
            bundle_length=statement.bundle_length,
            signed_ranges=statement.native_ranges,
            ranges=(),
            commit_sha=artifact.commit_sha or statement.source_commit,
            commit_ref=artifact.commit_ref,
            commit_message=artifact.commit_message,
            created_at=now,
        )
        return record, receipt_parts(signed.receipt)[0]

    async def release(self, caller: Caller, app: str, counter: int) -> tuple[ReleaseRecord, bytes]:
        """Return a release and its receipt. Raises NotFound."""
        await self._access.authorise(caller, Action.RELEASE_READ, app)

        def query(view: View) -> tuple[ReleaseRecord, bytes]:
            record = require_release(view, app, counter)
            signed = view.releases.signed(app, counter=counter)
            return record, signed.receipt if signed else b""

        found: tuple[ReleaseRecord, bytes] = await self._store.read(query)
        return found

    async def releases(
        self, caller: Caller, app: str, below: int, limit: int
    ) -> list[ReleaseRecord]:
        """Return releases, newest first."""
        await self._access.authorise(caller, Action.RELEASE_READ, app)

        def query(view: View) -> list[ReleaseRecord]:
            require_app(view, app)
            return view.releases.list(app, below, limit)

        found: list[ReleaseRecord] = await self._store.read(query)
        return found

    async def set_native_versions(
        self,
        caller: Caller,
        request: Request,
        *,
        app: str,
        counter: int,
        ranges: tuple[NativeRange, ...],
    ) -> bytes:
        """Narrow a release; platforms that are not named keep what they have.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            counter: The release's number.
            ranges: One per platform, replacing what was set for it before.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        ranges = fields.native_ranges(ranges)
        if not ranges:
            raise InvalidArgument("native_ranges", "must name a platform")
        permit = await self._access.authorise(caller, Action.RELEASE_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = require_release(tx, app, counter)
            named = {r.platform for r in ranges}
            kept = [r for r in record.ranges if r.platform not in named]
            merged = fields.native_ranges((*kept, *ranges))
            tx.releases.set_ranges(app, counter, merged)
            listed: list[Json] = [
                {"platform": r.platform, "min": r.min, "max": r.max, "eq": r.eq} for r in merged
            ]
            tx.record(
                {
                    "act": "release.native-versions",
                    "principal": caller.principal,
                    "release": record.name,
                    "ranges": listed,
                }
            )
            return lambda _: replace(record, ranges=merged)

        return await self._store.commit(act, request)

    async def withdraw(
        self, caller: Caller, request: Request, *, app: str, counter: int, reason: str
    ) -> bytes:
        """Withdraw a release for ever; the gateway gives it to nobody any more.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            counter: The release's number.
            reason: For people, 1 to 500 characters.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If it was withdrawn before.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        fields.text(reason, "reason", 500, least=1)
        permit = await self._access.authorise(caller, Action.RELEASE_WITHDRAW, app)
        now = max(1, self._clock())

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = require_release(tx, app, counter)
            if record.withdrawn_at:
                raise FailedPrecondition(
                    f"{record.name} was withdrawn before", reason="RELEASE_WITHDRAWN"
                )
            tx.releases.withdraw(app, counter, now)
            tx.record(
                {
                    "act": "release.withdraw",
                    "principal": caller.principal,
                    "release": record.name,
                    "reason": reason,
                }
            )
            return lambda _: replace(record, withdrawn_at=now)

        return await self._store.commit(act, request)


def require_release(view: View, app: str, counter: int) -> ReleaseRecord:
    """Return a release. Raises NotFound."""
    record = view.releases.get(app, counter)
    if record is None:
        raise NotFound(
            f"there is no release apps/{app}/releases/{counter}", reason="RELEASE_NOT_FOUND"
        )
    return record


def _require_taken(view: View, app: str, artifact_type: str) -> None:
    """Refuse a kind of artifact that no device would ever be given."""
    plugins = {build.plugin for build in view.builds.list(app) if build.live}
    if artifact_type == "manifest" and plugins and not plugins & _TAKE_MANIFESTS:
        raise FailedPrecondition(
            f"the native builds of apps/{app} ({', '.join(sorted(plugins))}) take no manifest: "
            "publish it as a zip, or register the build that does (`privyseal native register`)",
            reason="ARTIFACT_TYPE_UNUSED",
        )


def require_sound(view: View, signed: SignedRecord) -> None:
    """Refuse what a key signed when others may have had it: it proves nothing."""
    for key in view.keys.list(signed.app):
        for number in signed.versions_of(key.id):
            version = key.version(number)
            if version is not None and 0 < version.compromised_at <= signed.created_at:
                raise FailedPrecondition(
                    f"version {signed.version} was signed with {version.name} after its "
                    "compromise; publish it anew, as another version",
                    reason="SIGNED_AFTER_COMPROMISE",
                )
