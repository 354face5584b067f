"""The steps of a rotation inside a transaction: what they change, and what the log is told."""

from __future__ import annotations

from collections.abc import Sequence

from privyseal.verify.canonical import Json
from privyseal.verify.successor import Successor, envelope

from privyseald.model import lifecycle
from privyseald.model.obstacles import Obstacle
from privyseald.model.records import KeyVersionRecord, SuccessorRecord
from privyseald.model.rotation import Rotation, RotationState
from privyseald.model.schemes import KeyVersionState
from privyseald.ports import Transaction
from privyseald.services.field_status import signed_since
from privyseald.services.key_records import Told, forced, put, require_key, require_version


def activate(tx: Transaction, principal: str, current: Rotation, now: int) -> None:
    """Let the new version sign, if it does not yet."""
    new = require_version(tx, current.app, current.key, current.new)
    if new.state is not KeyVersionState.PRE_ACTIVATION:
        return
    days = require_key(tx, current.app, current.key).cryptoperiod_days
    life = lifecycle.activate(new.life, now, days)
    more: dict[str, Json] = {"expires": life.expires_at} if life.expires_at else {}
    put(tx, new, life, Told("key.activate", principal, current.name, more))


def supersede(tx: Transaction, principal: str, other: Rotation, rotation_id: str, now: int) -> None:
    """End a rotation that an emergency overtakes, or whose new version it gives up."""
    tx.rotations.put(other.reached(RotationState.ABORTED, now, principal, forced=False))
    tx.record(
        {
            "act": "rotation.abort",
            "principal": principal,
            "rotation": other.name,
            "reason": f"an emergency (rotations/{rotation_id})",
            "newVersionSignsOn": True,
        }
    )


def emergency(tx: Transaction, principal: str, begun: Rotation, since: int, now: int) -> Rotation:
    """Compromise the old version, promote the new one, withdraw what others could forge."""
    old = require_version(tx, begun.app, begun.key, begun.old)
    life = lifecycle.compromise(old.life, since, now)
    more: dict[str, Json] = {"compromisedSince": life.compromised_at}
    put(tx, old, life, Told("key.compromise", principal, begun.reason, more))
    activate(tx, principal, begun, now)
    tx.keys.set_primary(begun.app, begun.key, begun.new)
    # Nothing that a compromised key signs proves anything: the record only tells.
    add_successor(tx, principal, begun, (b"", now))
    for counter in signed_since(tx, begun, life.compromised_at):
        release = tx.releases.get(begun.app, counter)
        if release is None or release.withdrawn_at:
            continue
        tx.releases.withdraw(begun.app, counter, max(now, 1))
        tx.record(
            {
                "act": "release.withdraw",
                "principal": principal,
                "release": release.name,
                "reason": f"signed with {old.name} after its compromise",
            }
        )
    return reach(tx, principal, begun, RotationState.PROMOTED, now)


def add_successor(
    tx: Transaction, principal: str, current: Rotation, signed: tuple[bytes, int]
) -> None:
    """Keep that the old version signed for the new one, with the time at which it did."""
    signature, at = signed
    old = require_version(tx, current.app, current.key, current.old)
    new = require_version(tx, current.app, current.key, current.new)
    record = envelope(successor(old, new, at), signature)
    number = 1 + len(tx.rotations.successors(current.app, current.key))
    made = SuccessorRecord(current.app, current.key, number, record, at)
    tx.rotations.add_successor(made)
    tx.record(
        {
            "act": "key.promote",
            "principal": principal,
            "keyVersion": new.name,
            "instead": old.name,
            "successor": record.decode(),
        }
    )


def reach(
    tx: Transaction,
    principal: str,
    current: Rotation,
    state: RotationState,
    now: int,
    *,
    against: Sequence[Obstacle] = (),
) -> Rotation:
    """Return a rotation in its next state, and tell the log, also what was forced."""
    leaf: dict[str, Json] = {
        "act": "rotation.advance",
        "principal": principal,
        "rotation": current.name,
        "state": state,
    }
    tx.record(leaf | forced(against))
    return current.reached(state, now, principal, forced=bool(against))


def successor(old: KeyVersionRecord, new: KeyVersionRecord, at: int) -> Successor:
    """Return what the old version signs for the new one."""
    return Successor(
        app=old.app,
        key=old.key,
        old=old.version,
        new=new.version,
        old_sha256=old.public_key_sha256,
        new_public_key=new.public_key,
        at=at,
    )
