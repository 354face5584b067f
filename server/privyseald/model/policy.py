"""Who may do what: roles on apps; what no grant allows is denied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from privyseald.model.fields import ALL_APPS


class Role(StrEnum):
    """What a principal may do on an app."""

    ADMIN = "admin"
    SECURITY_OFFICER = "security-officer"
    SIGNER = "signer"
    RELEASER = "releaser"
    AUDITOR = "auditor"


class Action(StrEnum):
    """What can be asked for."""

    APP_CREATE = "app.create"
    APP_READ = "app.read"
    ACCESS_MANAGE = "access.manage"
    KEY_MANAGE = "key.manage"
    KEY_READ = "key.read"
    RELEASE_SIGN = "release.sign"
    RELEASE_MANAGE = "release.manage"
    RELEASE_READ = "release.read"
    LOG_READ = "log.read"


_READ = {Action.APP_READ, Action.KEY_READ, Action.RELEASE_READ}
PERMISSIONS: dict[Role, frozenset[Action]] = {
    Role.ADMIN: frozenset({Action.APP_CREATE, Action.ACCESS_MANAGE, Action.LOG_READ, *_READ}),
    Role.SECURITY_OFFICER: frozenset({Action.KEY_MANAGE, *_READ}),
    Role.SIGNER: frozenset({Action.RELEASE_SIGN, *_READ}),
    Role.RELEASER: frozenset({Action.RELEASE_MANAGE, *_READ}),
    Role.AUDITOR: frozenset({Action.LOG_READ, *_READ}),
}


@dataclass(frozen=True)
class Grant:
    """A role of a principal on an app, or on all apps (`-`)."""

    id: str
    principal: str
    role: Role
    app: str
    created_at: int = 0


@dataclass(frozen=True)
class Caller:
    """An authenticated principal with its grants, as of one revision of the access data.

    Attributes:
        principal: token:{id} or certificate:{common name}.
        grants: All of the principal's grants.
        revision: The revision the grants were read at; a commit under a later revision
            asks again.
        token_id: The token used, empty for a certificate.
        expires_at: When the credential ends, seconds since 1970; 0 if it does not.
    """

    principal: str
    grants: tuple[Grant, ...] = field(default=())
    revision: int = 0
    token_id: str = ""
    expires_at: int = 0


def allows(grants: Iterable[Grant], action: Action, app: str) -> bool:
    """Say whether one of the grants allows an action on an app.

    An action on all apps (`-`) needs a grant on all apps.
    """
    return any(g.app in {app, ALL_APPS} and action in PERMISSIONS[g.role] for g in grants)
