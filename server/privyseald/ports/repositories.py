"""What there is in the store, a kind of record each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from privyseal.verify.statement import NativeRange

from privyseald.model.approvals import Approval
from privyseald.model.field import CheckIns, NativeBuild
from privyseald.model.policy import Grant
from privyseald.model.records import (
    AppRecord,
    ChannelRecord,
    DeniedCertificate,
    DeploymentRecord,
    KeyRecord,
    KeyVersionRecord,
    LogHead,
    PolicyRecord,
    ReleaseRecord,
    SessionRecord,
    SignedRecord,
    SuccessorRecord,
    TokenRecord,
)
from privyseald.model.rotation import Rotation


class Apps(Protocol):
    """The apps."""

    def get(self, app: str) -> AppRecord | None:
        """Return one."""
        ...

    def add(self, record: AppRecord) -> None:
        """Add one that is not there."""
        ...

    def list(self, after: str, limit: int) -> list[AppRecord]:
        """Return those with an id above `after`, ordered."""
        ...


class Keys(Protocol):
    """Keys and their versions."""

    def get(self, app: str, key: str) -> KeyRecord | None:
        """Return one with its versions."""
        ...

    def list(self, app: str) -> list[KeyRecord]:
        """Return an app's keys with their versions, ordered by id."""
        ...

    def add(self, record: KeyRecord) -> None:
        """Add a key with its versions."""
        ...

    def by_digest(self, public_key_sha256: bytes) -> KeyVersionRecord | None:
        """Return the version that has a public key, of whichever app."""
        ...

    def add_version(self, record: KeyVersionRecord) -> None:
        """Add a version to a key that is there; raises the revision."""
        ...

    def put_version(self, record: KeyVersionRecord) -> None:
        """Give a version its life and its blob, which is empty once destroyed; raises it, too."""
        ...

    def set_primary(self, app: str, key: str, version: int) -> None:
        """Make a version the primary, of a key that is not given up any more; raises it, too."""
        ...

    def give_up(self, app: str, key: str) -> None:
        """Give a key up: releases are signed without it; raises the revision."""
        ...

    def set_cryptoperiod(self, app: str, key: str, days: int) -> None:
        """Set how long the key's new versions may sign; 0 for ever."""
        ...

    def due(self, now: int) -> Sequence[KeyVersionRecord]:
        """Return the versions whose destruction is due, of all apps."""
        ...

    def expiring(self) -> Sequence[KeyVersionRecord]:
        """Return the active versions whose cryptoperiod has an end, of all apps."""
        ...

    def chained(self) -> Sequence[KeyVersionRecord]:
        """Return the versions with certificates of a root that sign, or may again, of all apps."""
        ...


class Tokens(Protocol):
    """Credentials that callers hold, and those that do not count any more."""

    def get(self, token_id: str) -> TokenRecord | None:
        """Return an API token."""
        ...

    def list(self) -> list[TokenRecord]:
        """Return all API tokens, newest first."""
        ...

    def put(self, record: TokenRecord) -> None:
        """Add an API token, or replace the one of its id; raises the revision."""
        ...

    def session(self, session_id: str) -> SessionRecord | None:
        """Return a workload's session."""
        ...

    def add_session(self, record: SessionRecord) -> None:
        """Add a session."""
        ...

    def use(self, issuer: str, token_sha256: bytes, expires_at: int) -> bool:
        """Note that an identity token was used; False if it had been."""
        ...

    def denied(self, serial: str) -> DeniedCertificate | None:
        """Return a certificate that is denied."""
        ...

    def denials(self) -> Sequence[DeniedCertificate]:
        """Return all certificates that are denied."""
        ...

    def deny(self, record: DeniedCertificate) -> None:
        """Deny a certificate; raises the revision."""
        ...


class Grants(Protocol):
    """Who has which role where. Every change raises the revision."""

    def list(self, *, principal: str = "", app: str = "", grant_id: str = "") -> list[Grant]:
        """Return the grants that match every argument given; an app's include those on all."""
        ...

    def add(self, grant: Grant) -> None:
        """Add a grant."""
        ...

    def remove(self, grant_id: str) -> None:
        """Remove a grant."""
        ...


class PolicyHistory(Protocol):
    """The team's policies."""

    def get(self, version: int = 0) -> PolicyRecord | None:
        """Return a version, the newest if none is named; None if there is none."""
        ...

    def add(self, record: PolicyRecord) -> None:
        """Put a new version in force; raises the revision."""
        ...


class Approvals(Protocol):
    """Requests for consent."""

    def get(self, approval_id: str) -> Approval | None:
        """Return one."""
        ...

    def list(self, app: str) -> list[Approval]:
        """Return an app's, newest first, at most 200."""
        ...

    def consented(self, app: str, action: str, now: int) -> Sequence[Approval]:
        """Return an app's for an action that somebody consented to and that have not ended.

        Requests alone are left out: whoever may ask could hide a consent behind them.
        """
        ...

    def put(self, record: Approval) -> None:
        """Add one, or replace the one of its id."""
        ...


class Releases(Protocol):
    """Signed and registered releases, channels and deployments."""

    def signed(self, app: str, *, version: str = "", counter: int = 0) -> SignedRecord | None:
        """Return what was signed, by version or by counter."""
        ...

    def signed_by(self, app: str, key: str, version: int, since: int) -> Sequence[SignedRecord]:
        """Return what a key version signed since a time, oldest first."""
        ...

    def sign_again(self, record: SignedRecord) -> None:
        """Replace the signers of what was signed, and its receipt with `set_receipt`."""
        ...

    def last_signed(self, app: str) -> tuple[int, int]:
        """Return the highest counter signed, and when, in seconds since 1970; 0 for none."""
        ...

    def add_signed(self, record: SignedRecord) -> None:
        """Add it. Raises CounterTakenError if its counter was taken meanwhile."""
        ...

    def set_receipt(self, app: str, version: str, receipt: bytes) -> None:
        """Complete what was added in this transaction."""
        ...

    def get(self, app: str, counter: int) -> ReleaseRecord | None:
        """Return a registered release."""
        ...

    def add(self, record: ReleaseRecord) -> None:
        """Register a release."""
        ...

    def list(self, app: str, below: int, limit: int) -> list[ReleaseRecord]:
        """Return releases with a counter under `below`, newest first."""
        ...

    def set_ranges(self, app: str, counter: int, ranges: tuple[NativeRange, ...]) -> None:
        """Replace the ranges that narrow a release."""
        ...

    def withdraw(self, app: str, counter: int, at: int) -> None:
        """Mark a release as withdrawn, which is for ever."""
        ...


class NativeBuilds(Protocol):
    """Store binaries, and how often their devices ask."""

    def list(self, app: str) -> list[NativeBuild]:
        """Return an app's builds in the order of their registration."""
        ...

    def put(self, build: NativeBuild) -> None:
        """Add one, or replace the one of its id; raises the revision."""
        ...

    def check_ins(self, app: str, since_day: int) -> Sequence[CheckIns]:
        """Return an app's check-ins since a day."""
        ...


class Rotations(Protocol):
    """Rotations, and what old versions said of their successors."""

    def get(self, app: str, key: str, rotation: str) -> Rotation | None:
        """Return one."""
        ...

    def list(self, app: str, key: str = "") -> list[Rotation]:
        """Return those of an app, or of one key; those of a key oldest first."""
        ...

    def put(self, record: Rotation) -> None:
        """Add one, or replace the one of its id."""
        ...

    def successors(self, app: str, key: str) -> Sequence[SuccessorRecord]:
        """Return a key's successor records, oldest first."""
        ...

    def add_successor(self, record: SuccessorRecord) -> None:
        """Add one."""
        ...


class Channels(Protocol):
    """Channels and their deployments."""

    def list(self, app: str, channel: str = "") -> list[ChannelRecord]:
        """Return an app's channels ordered by id, or the one named."""
        ...

    def add(self, record: ChannelRecord) -> None:
        """Add a channel."""
        ...

    def remove(self, app: str, channel: str) -> None:
        """Remove a channel; its deployments stay."""
        ...

    def deploy(self, record: DeploymentRecord) -> None:
        """Record a deployment and point the channel at its release."""
        ...

    def deployments(self, app: str, channel: str, limit: int) -> Sequence[DeploymentRecord]:
        """Return a channel's deployments, newest first."""
        ...


class Log(Protocol):
    """The log as committed so far."""

    def head(self) -> LogHead:
        """Return the newest checkpoint."""
        ...

    def nodes(self, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        """Return complete nodes."""
        ...

    def leaves(self, start: int, limit: int) -> list[tuple[int, bytes, int]]:
        """Return index, leaf and time of the leaves from `start` on."""
        ...
