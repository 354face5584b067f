"""What acts on key versions share: finding one, giving it another life, and telling the log."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from privyseal.verify.canonical import Json

from privyseald.model.errors import FailedPrecondition, NotFound
from privyseald.model.lifecycle import DAY, Life
from privyseald.model.obstacles import Obstacle
from privyseald.model.records import (
    AppRecord,
    KeyRecord,
    KeyVersionRecord,
    ReleaseRecord,
    SignedRecord,
)
from privyseald.model.schemes import GeneratedKey, KeyVersionState
from privyseald.ports import Transaction, View

LEAF_SPARE_DAYS = 30
"""How long before a certificate's end its key leads nowhere any more."""


def forced(against: Sequence[Obstacle]) -> dict[str, Json]:
    """Return what a leaf tells of an act that was forced; nothing if nothing was against it."""
    if not against:
        return {}
    return {
        "forced": True,
        "against": [o.reason for o in against],
        "strands": list(sorted({b for o in against for b in o.builds})[:100]),
    }


@dataclass(frozen=True)
class Told:
    """What a leaf tells of a change: which, by whom, why, and what more."""

    act: str
    principal: str
    reason: str
    more: Mapping[str, Json] = field(default_factory=dict)


def put(tx: Transaction, version: KeyVersionRecord, life: Life, told: Told) -> KeyVersionRecord:
    """Give a version another life and tell the log."""
    made = version.living(life)
    tx.keys.put_version(made)
    tx.record(
        {
            "act": told.act,
            "principal": told.principal,
            "keyVersion": version.name,
            "reason": told.reason,
            **told.more,
        }
    )
    return made


def add_standby(tx: Transaction, principal: str, made: GeneratedKey, now: int) -> KeyVersionRecord:
    """Add a new version, PRE_ACTIVATION. Raises FailedPrecondition if another came first."""
    identity = made.wrapped.identity
    key = require_key(tx, identity.app, identity.key)
    if identity.version != 1 + max(v.version for v in key.versions):
        raise FailedPrecondition(
            "another version was made at the same time; try again", reason="KEYS_CHANGING"
        )
    record = KeyVersionRecord.of(made, KeyVersionState.PRE_ACTIVATION, now)
    require_anchor(tx, record)
    tx.keys.add_version(record)
    protection: dict[str, Json] = dict(record.protection)
    tx.record(
        {
            "act": "key.create-version",
            "principal": principal,
            "keyVersion": record.name,
            "scheme": record.scheme,
            "algorithm": record.algorithm,
            "publicKeySha256": record.public_key_sha256.hex(),
            "protection": protection,
            **certificate_told(record),
        }
    )
    return record


def require_anchor(view: View, version: KeyVersionRecord) -> None:
    """Drop a version whose certificate was issued by a root that was stopped meanwhile.

    Once a suspension or a compromise has returned, nothing signed before it is released.
    """
    if not version.anchor_sha256:
        return
    root = view.keys.by_digest(version.anchor_sha256)
    if root is None or root.state is not KeyVersionState.ACTIVE:
        raise FailedPrecondition(
            "the root that issued the certificate was stopped meanwhile; look at it and try again",
            reason="KEYS_CHANGING",
        )


def serves_on(view: View, version: KeyVersionRecord, now: int) -> bool:
    """Say whether its certificate, if it has one of a root, lasts for a rotation to it."""
    if not version.anchor_sha256:
        return True
    root = view.keys.by_digest(version.anchor_sha256)
    active = root is not None and root.state is KeyVersionState.ACTIVE
    return active and version.certificate_ends - now > LEAF_SPARE_DAYS * DAY


def certificate_told(version: KeyVersionRecord) -> dict[str, Json]:
    """Return what a leaf tells of a version's certificate; nothing if it has none."""
    if not version.certificate:
        return {}
    return {
        "certificateSha256": hashlib.sha256(version.certificate).hexdigest(),
        "certificateBegins": version.certificate_begins,
        "certificateEnds": version.certificate_ends,
        "anchorSha256": version.anchor_sha256.hex(),
    }


def require_app(view: View, app: str) -> AppRecord:
    """Return an app. Raises NotFound."""
    found = view.apps.get(app)
    if found is None:
        raise NotFound(
            f"there is no app apps/{app}; `privyseal app list` shows them", reason="APP_NOT_FOUND"
        )
    return found


def require_key(view: View, app: str, key_id: str) -> KeyRecord:
    """Return a key. Raises NotFound."""
    key = view.keys.get(app, key_id)
    if key is None:
        raise NotFound(
            f"there is no key apps/{app}/keys/{key_id}; `privyseal key list` shows them",
            reason="KEY_NOT_FOUND",
        )
    return key


def require_version(view: View, app: str, key_id: str, number: int) -> KeyVersionRecord:
    """Return a key version. Raises NotFound."""
    version = require_key(view, app, key_id).version(number)
    if version is None:
        raise NotFound(
            f"there is no apps/{app}/keys/{key_id}/versions/{number}",
            reason="KEY_VERSION_NOT_FOUND",
        )
    return version


def deployed(view: View, app: str) -> Iterator[tuple[ReleaseRecord, SignedRecord, list[str]]]:
    """Yield each release that a channel points at and that was not withdrawn, oldest first.

    With what was signed of it, and the names of those channels.
    """
    at: dict[int, list[str]] = {}
    for channel in view.channels.list(app):
        if channel.counter:
            at.setdefault(channel.counter, []).append(channel.name)
    for counter, channels in sorted(at.items()):
        release = view.releases.get(app, counter)
        record = view.releases.signed(app, counter=counter)
        if release is not None and record is not None and not release.withdrawn_at:
            yield release, record, channels
