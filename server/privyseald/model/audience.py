"""Which key versions sign a release: each key's primary, and what its audience still needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from privyseal.verify.schemes import STATEMENTS
from privyseal.verify.statement import MAX_SIGNATURES, NativeRange

from privyseald.model.errors import FailedPrecondition, NotFound
from privyseald.model.field import NativeBuild, needed_versions
from privyseald.model.records import KeyRecord, KeyVersionRecord
from privyseald.model.schemes import APART, KeyVersionState, Scheme

_GIVE_UP = (
    "rotate to another version (`privyseal rotation start`), or give the key up (`privyseal key "
    "deactivate`)"
)
_ROTATE = "rotate away from it (`privyseal rotation start --emergency --old`)"
_REMEDIES = {
    KeyVersionState.DESTROYED: _GIVE_UP,
    KeyVersionState.DEACTIVATED: _GIVE_UP,
    KeyVersionState.SUSPENDED: "resume it (`privyseal key resume`), or rotate away from it",
    KeyVersionState.DESTROY_SCHEDULED: (
        "restore it (`privyseal key restore`), or rotate away from it"
    ),
}


@dataclass(frozen=True)
class Signer:
    """A version that signs, and why: `primary`, or for which builds."""

    version: KeyVersionRecord
    reason: str


def signers(
    app: str,
    keys: Sequence[KeyRecord],
    builds: Sequence[NativeBuild],
    ranges: tuple[NativeRange, ...],
) -> tuple[Signer, ...]:
    """Return what signs a release for some native ranges, the statement's primary first.

    Raises:
        FailedPrecondition: If a primary is not active, or too many versions would sign.
        NotFound: If the app has no statement key.
    """
    chosen: list[Signer] = []
    for key in keys:
        if key.scheme in APART:
            continue
        for number, reason in needed_versions(key, builds, ranges).items():
            version = key.version(number)
            if version is None or version.state is not KeyVersionState.ACTIVE:
                state = version.state if version is not None else KeyVersionState.DESTROYED
                raise FailedPrecondition(
                    f"the primary of {key.name}, version {number}, is {state}; a security officer "
                    f"must {_REMEDIES.get(state, _ROTATE)}",
                    reason="KEY_NOT_ACTIVE",
                )
            chosen.append(Signer(version, reason))
    if sum(s.version.scheme in STATEMENTS for s in chosen) > MAX_SIGNATURES:
        raise FailedPrecondition(
            f"builds in the field need more than {MAX_SIGNATURES} versions of statement keys; "
            "end builds that are no longer used (`privyseal native end`), or narrow the range",
            reason="TOO_MANY_VERSIONS",
        )
    chosen.sort(key=_order)
    if not chosen or _order(chosen[0]) != (False, False):
        raise NotFound(f"apps/{app} has no statement key", reason="KEY_NOT_FOUND")
    return tuple(chosen)


def _order(signer: Signer) -> tuple[bool, bool]:
    return signer.version.scheme is not Scheme.STATEMENT_V1, signer.reason != "primary"
