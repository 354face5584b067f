"""Who may do what: roles, actions, grants, callers, and the question put to the policies.

Rules are Cedar policies (adapters); this module holds the words that they are about. What
no policy allows is denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from privyseald.model.fields import ALL_APPS


class Role(StrEnum):
    """What a principal may do on an app."""

    ADMIN = "admin"
    SECURITY_OFFICER = "security-officer"
    SIGNER = "signer"
    RELEASER = "releaser"
    AUDITOR = "auditor"
    APPROVER = "approver"
    RESPONDER = "responder"


class Action(StrEnum):
    """What can be asked for."""

    APP_CREATE = "app.create"
    APP_READ = "app.read"
    ACCESS_MANAGE = "access.manage"
    KEY_MANAGE = "key.manage"
    KEY_READ = "key.read"
    KEY_DESTROY = "key.destroy"
    KEY_IMPORT = "key.import"
    KEY_FORCE_RETIRE = "key.force-retire"
    NATIVE_MANAGE = "native.manage"
    BACKUP_EXPORT = "backup.export"
    RELEASE_SIGN = "release.sign"
    RELEASE_MANAGE = "release.manage"
    RELEASE_DEPLOY = "release.deploy"
    RELEASE_WITHDRAW = "release.withdraw"
    RELEASE_READ = "release.read"
    LOG_READ = "log.read"
    POLICY_MANAGE = "policy.manage"
    POLICY_READ = "policy.read"
    APPROVAL_REQUEST = "approval.request"
    APPROVAL_GIVE = "approval.give"
    BREAK_GLASS = "break-glass"


_READ = {Action.APP_READ, Action.KEY_READ, Action.RELEASE_READ}
PERMISSIONS: dict[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset(
        {
            Action.APP_CREATE,
            Action.ACCESS_MANAGE,
            Action.LOG_READ,
            Action.POLICY_READ,
            Action.APPROVAL_REQUEST,
            *_READ,
        }
    ),
    Role.SECURITY_OFFICER: frozenset(
        {
            Action.KEY_MANAGE,
            Action.KEY_DESTROY,
            Action.KEY_IMPORT,
            Action.KEY_FORCE_RETIRE,
            Action.NATIVE_MANAGE,
            Action.RELEASE_WITHDRAW,
            Action.BACKUP_EXPORT,
            Action.POLICY_MANAGE,
            Action.POLICY_READ,
            Action.APPROVAL_REQUEST,
            *_READ,
        }
    ),
    Role.SIGNER: frozenset({Action.RELEASE_SIGN, *_READ}),
    Role.RELEASER: frozenset(
        {
            Action.RELEASE_MANAGE,
            Action.RELEASE_DEPLOY,
            Action.RELEASE_WITHDRAW,
            Action.NATIVE_MANAGE,
            Action.APPROVAL_REQUEST,
            *_READ,
        }
    ),
    Role.AUDITOR: frozenset({Action.LOG_READ, Action.POLICY_READ, *_READ}),
    Role.APPROVER: frozenset({Action.APPROVAL_GIVE, *_READ}),
    Role.RESPONDER: frozenset({Action.BREAK_GLASS, *_READ}),
}
SENSITIVE = frozenset(
    {
        Action.KEY_DESTROY,
        Action.KEY_IMPORT,
        Action.KEY_FORCE_RETIRE,
        Action.BACKUP_EXPORT,
        Action.POLICY_MANAGE,
    }
)
"""Acts that need the consent of others, unless the daemon's settings ask for none."""

PEOPLE = frozenset({Role.APPROVER, Role.RESPONDER})
"""Roles that count for people alone, who bring client certificates."""

BREAK_GLASS_ROLES = frozenset(
    {Role.ADMIN, Role.SECURITY_OFFICER, Role.SIGNER, Role.RELEASER, Role.AUDITOR}
)


@dataclass(frozen=True)
class Grant:
    """A role of a principal on an app, or on all apps (`-`).

    Attributes:
        id: Given by the daemon.
        principal: Whom it is for; see `Caller`.
        role: What it allows.
        app: Where.
        created_at: Seconds since 1970.
        conditions: What a workload's token must say besides: attribute and value, sorted.
        expires_at: When it ends, seconds since 1970; 0 if it does not.
        break_glass: Whether it was made in an emergency.
    """

    id: str
    principal: str
    role: Role
    app: str
    created_at: int = 0
    conditions: tuple[tuple[str, str], ...] = ()
    expires_at: int = 0
    break_glass: bool = False

    def mismatch(self, attributes: Mapping[str, str]) -> str:
        """Return the first condition that some attributes do not meet, empty if they meet all."""
        return next((name for name, value in self.conditions if attributes.get(name) != value), "")


@dataclass(frozen=True)
class Query:
    """One question to the policies, besides who asks.

    Attributes:
        action: What is asked for.
        app: On which app; `-` for all of them.
        channel: For a deployment, the channel.
        bound: Whether the credential was issued for this very act: a workload's session
            names one app and the bundles that it may sign.
        approvals: How many people consented to this very act.
        window: Whether a signing window is open for it.
    """

    action: Action
    app: str
    channel: str = ""
    bound: bool = True
    approvals: int = 0
    window: bool = False


@dataclass(frozen=True)
class Decision:
    """What the policies say, and which of them decided."""

    allowed: bool
    policies: tuple[str, ...] = ()


class Decider(Protocol):
    """The policies, as they apply to one caller."""

    def decide(self, query: Query) -> Decision:
        """Answer a question; the same question has the same answer."""
        ...


@dataclass(frozen=True)
class Caller:
    """An authenticated principal with its grants, as of one revision of the access data.

    Attributes:
        principal: token:{id}, certificate:{common name}, spiffe://{trust domain}/{path}, or
            workload:{issuer}:{immutable id}.
        grants: All of the principal's grants that have not ended.
        revision: The revision the grants were read at; a commit under a later revision
            asks again.
        credential: The id of the token or session used; for a certificate, its serial number
            in hexadecimal.
        expires_at: When the credential, or the first of the grants, ends, seconds since 1970;
            0 if neither does.
        attributes: What is known of a workload; see `model.workload`.
        session_app: The app that a workload's session is for.
        digests: SHA-256 of the bundles that a workload's session may sign.
        decider: The policies for this caller.
    """

    principal: str
    grants: tuple[Grant, ...] = field(default=())
    revision: int = 0
    credential: str = ""
    expires_at: int = 0
    attributes: Mapping[str, str] = field(default_factory=dict)
    session_app: str = ""
    digests: frozenset[bytes] = frozenset()
    decider: Decider | None = field(default=None, compare=False, repr=False)

    @property
    def kind(self) -> str:
        """token, certificate, spiffe or workload."""
        return self.principal.partition(":")[0]

    def emergencies(self, app: str) -> tuple[Grant, ...]:
        """Return the emergency grants on an app; those on another count for nothing here."""
        return tuple(g for g in self.grants if g.break_glass and covers(g, app))

    def right_ends(self, action: Action, app: str) -> int:
        """Return when the caller's right to something ends; 0 if it does not.

        What it gives to others must not outlive it, or a right for a minute were one for ever.
        """
        giving = [
            g.expires_at
            for g in self.grants
            if covers(g, app) and action in PERMISSIONS[g.role] and not g.mismatch(self.attributes)
        ]
        ends = [g.expires_at for g in self.emergencies(app)]
        if giving and all(giving):
            ends.append(max(giving))
        return min(ends, default=0)

    def decide(self, query: Query) -> Decision:
        """Answer a question; nobody is allowed anything before the policies are known."""
        return self.decider.decide(query) if self.decider is not None else Decision(allowed=False)


def covers(grant: Grant, app: str) -> bool:
    """Say whether a grant is about an app; one on all apps is about each."""
    return grant.app in {app, ALL_APPS}
