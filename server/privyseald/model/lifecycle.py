"""The states of a key version, and what leads from one to another.

Pure transitions over NIST SP 800-57 part 1 (revision 5, section 7), and scheduled destruction,
which can be undone until its time::

    PRE_ACTIVATION ──activate──▶ ACTIVE ◀──resume── SUSPENDED
          │                        │ └──suspend────────▲
          └──────deactivate────────┴──▶ DEACTIVATED ◀──┘  (from SUSPENDED, too)

    every state but DESTROYED ──compromise──▶ COMPROMISED
    all but ACTIVE and DESTROYED ──schedule──▶ DESTROY_SCHEDULED ──(its time)──▶ DESTROYED
    DESTROY_SCHEDULED ──restore──▶ what it was

Only ACTIVE versions sign. Time is an argument, in seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from privyseald.model.errors import FailedPrecondition, InvalidArgument
from privyseald.model.schemes import KeyVersionState

DAY = 86_400
MAX_DESTROY_DELAY = 90 * DAY
DEFAULT_DESTROY_DELAY = 7 * DAY
MAX_CRYPTOPERIOD_DAYS = 3650
WARN_DAYS = (60, 30, 14, 7, 3, 2, 1)
"""Days before the end of a cryptoperiod on which people are told of it."""

S = KeyVersionState
_ALLOWED: dict[str, frozenset[KeyVersionState]] = {
    "activate": frozenset({S.PRE_ACTIVATION}),
    "suspend": frozenset({S.ACTIVE}),
    "resume": frozenset({S.SUSPENDED}),
    "deactivate": frozenset({S.PRE_ACTIVATION, S.ACTIVE, S.SUSPENDED}),
    "compromise": frozenset(
        {
            *(S.PRE_ACTIVATION, S.ACTIVE, S.SUSPENDED, S.DEACTIVATED),
            *(S.COMPROMISED, S.DESTROY_SCHEDULED),
        }
    ),
    "schedule": frozenset({S.PRE_ACTIVATION, S.SUSPENDED, S.DEACTIVATED, S.COMPROMISED}),
    "restore": frozenset({S.DESTROY_SCHEDULED}),
    "destroy": frozenset({S.DESTROY_SCHEDULED}),
}


@dataclass(frozen=True)
class Life:
    """The state of a key version, and the times that go with it; 0 where there is none.

    Attributes:
        state: Now.
        before: While its destruction is scheduled: the state that restoring gives back.
        destroy_at: When it is destroyed.
        activated_at: When it was first activated.
        expires_at: The end of its cryptoperiod.
        compromised_at: Since when its private key may be known to others.
    """

    state: KeyVersionState
    before: KeyVersionState | None = None
    destroy_at: int = 0
    activated_at: int = 0
    expires_at: int = 0
    compromised_at: int = 0

    @property
    def signs(self) -> bool:
        """Whether it may sign."""
        return self.state is S.ACTIVE


def born(state: KeyVersionState, now: int, cryptoperiod_days: int = 0) -> Life:
    """Return the life of a new version, PRE_ACTIVATION or ACTIVE."""
    life = Life(S.PRE_ACTIVATION)
    return activate(life, now, cryptoperiod_days) if state is S.ACTIVE else life


def activate(life: Life, now: int, cryptoperiod_days: int = 0) -> Life:
    """Let it sign; its cryptoperiod begins."""
    _require(life, "activate")
    expires = now + cryptoperiod_days * DAY if cryptoperiod_days else 0
    return replace(life, state=S.ACTIVE, activated_at=now, expires_at=expires)


def suspend(life: Life) -> Life:
    """Stop it from signing until it is resumed."""
    _require(life, "suspend")
    return replace(life, state=S.SUSPENDED)


def resume(life: Life) -> Life:
    """Let it sign again."""
    _require(life, "resume")
    return replace(life, state=S.ACTIVE)


def deactivate(life: Life) -> Life:
    """Stop it from signing for good."""
    _require(life, "deactivate")
    return replace(life, state=S.DEACTIVATED)


def compromise(life: Life, since: int, now: int) -> Life:
    """Note that others may know the private key; an earlier time replaces a later one.

    Raises:
        FailedPrecondition: If it is destroyed, or being destroyed.
        InvalidArgument: If the time is in the future.
    """
    _require(life, "compromise")
    if since > now:
        raise InvalidArgument("compromise_time", "must not be in the future (--since)")
    if life.state is S.DESTROY_SCHEDULED and now >= life.destroy_at:
        raise FailedPrecondition(
            "the time of its destruction has come, and its private key may be erased already; "
            "it signs nothing any more",
            reason="KEY_VERSION_STATE",
        )
    earliest = min(since, life.compromised_at) if life.state is S.COMPROMISED else since
    return replace(
        life, state=S.COMPROMISED, before=None, destroy_at=0, compromised_at=max(1, earliest)
    )


def schedule_destruction(life: Life, now: int, delay: int) -> Life:
    """Have it destroyed after a delay in seconds, until when that can be undone."""
    if not 0 <= delay <= MAX_DESTROY_DELAY:
        raise InvalidArgument("delay", f"must be 0 to {MAX_DESTROY_DELAY:,} seconds")
    _require(life, "schedule", "suspend or retire it first, and see that nothing needs it")
    return replace(life, state=S.DESTROY_SCHEDULED, before=life.state, destroy_at=now + delay)


def in_short(seconds: int) -> str:
    """Return a time in its largest whole unit, as the command line takes it, such as 7d."""
    for unit, length in (("d", DAY), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def restore(life: Life, now: int) -> Life:
    """Undo the scheduled destruction, until its time: from then on the key may be erased."""
    _require(life, "restore")
    if now >= life.destroy_at:
        raise FailedPrecondition(
            "its time has come, and its private key may be erased already; nothing brings it back",
            reason="KEY_VERSION_STATE",
        )
    if life.before is None:
        raise FailedPrecondition("it has no state to go back to", reason="KEY_VERSION_STATE")
    return replace(life, state=life.before, before=None, destroy_at=0)


def destroy(life: Life, now: int) -> Life:
    """Note that its private key was erased, whose time had come."""
    _require(life, "destroy")
    if now < life.destroy_at:
        raise FailedPrecondition("its time has not come", reason="KEY_VERSION_STATE")
    return replace(life, state=S.DESTROYED, before=None)


def warnings_due(life: Life, since: int, now: int) -> int | None:
    """Return the days left of which people are to be told, None if of none.

    Args:
        life: Of an active version.
        since: When this was last asked.
        now: The time.
    """
    if not life.signs or not life.expires_at:
        return None
    for days in reversed(WARN_DAYS):
        at = life.expires_at - days * DAY
        if since < at <= now:
            return days
    return 0 if since < life.expires_at <= now else None


def _require(life: Life, what: str, remedy: str = "") -> None:
    if life.state not in _ALLOWED[what]:
        wanted = " or ".join(sorted(_ALLOWED[what]))
        raise FailedPrecondition(
            f"the key version is {life.state}; it must be {wanted} for this"
            + (f"; {remedy}" if remedy else ""),
            reason="KEY_VERSION_STATE",
        )
