"""CI systems' identity tokens: what each says, and what of it may decide.

Every system has other claims (see `docs/identity.md`, and `claims`, which reads them). They
become attributes of one vocabulary, so that grants and policies read alike. Names are kept for
people and for the log; what decides is the immutable id that is in the principal's own name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from privyseald.model.errors import InvalidArgument, TokenRefused
from privyseald.model.fields import shown_text

ATTRIBUTES = (
    "issuer",
    "provider",
    "repository_id",
    "repository",
    "owner_id",
    "ref",
    "ref_type",
    "ref_protected",
    "environment",
    "environment_protected",
    "workflow",
    "event",
    "runner",
    "sha",
    "run",
    "subject",
)
"""What can be known of a workload; grants and policies may ask for any of it."""

MAX_TOKEN = 16 * 1024
"""Characters of a token."""
_SHARED = {"https://token.actions.githubusercontent.com", "https://gitlab.com"}


class Provider(StrEnum):
    """Whose tokens an issuer's are."""

    GITHUB = "github"
    GITLAB = "gitlab"
    BUILDKITE = "buildkite"
    CIRCLECI = "circleci"
    BITBUCKET = "bitbucket"
    AZURE_DEVOPS = "azure-devops"
    KUBERNETES = "kubernetes"
    OIDC = "oidc"


@dataclass(frozen=True)
class Issuer:
    """One issuer that the daemon was told to trust.

    Attributes:
        name: Short, in principals: workload:{name}:{id}.
        provider: What its claims look like.
        url: The exact `iss`.
        audience: The exact `aud`: this daemon's own, unlike any other's.
        organizations: Ids of the owners whose tokens count; needed where one issuer serves
            everybody.
        max_lifetime: The longest `exp - iat` that is accepted, seconds.
        session_seconds: How long a session from one of its tokens lasts.
        claims: For `oidc`: attribute -> the claim that it is read from. `repository_id`
            names the workload and must be immutable.
    """

    name: str
    provider: Provider
    url: str
    audience: str
    organizations: frozenset[str] = frozenset()
    max_lifetime: int = 7200
    session_seconds: int = 600
    claims: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_organizations(self) -> bool:
        """Whether anybody in the world can get a token from it."""
        return self.provider is Provider.BUILDKITE or self.url in _SHARED


@dataclass(frozen=True)
class Workload:
    """What a verified token says.

    Attributes:
        principal: workload:{issuer}:{immutable id}.
        attributes: Attribute -> value; those the token does not speak of are absent.
        token_id: What makes the token unlike every other one of its issuer.
        expires_at: Until when it has to be remembered that it was used.
    """

    principal: str
    attributes: Mapping[str, str]
    token_id: str
    expires_at: int


_NUMBERED = {Provider.GITHUB, Provider.GITLAB}
_FULL_REFS = {Provider.GITHUB, Provider.BUILDKITE, Provider.BITBUCKET}


def check_granted(issuer: Issuer, ident: str, conditions: Mapping[str, str]) -> None:
    """Refuse a grant that no token of an issuer's could ever meet.

    Args:
        issuer: Whose workload it is.
        ident: The workload's immutable id.
        conditions: What its attributes must be.

    Raises:
        InvalidArgument: With what it must be.
    """
    if issuer.provider in _NUMBERED and not (ident.isascii() and ident.isdigit()):
        raise InvalidArgument(
            "principal",
            f"names a workload of {issuer.name} by its number, which never changes, not by its "
            "name; --from-token looks it up",
        )
    ref = conditions.get("ref", "refs/")
    if issuer.provider in _FULL_REFS and not ref.startswith("refs/"):
        raise InvalidArgument("conditions", f"say ref=refs/heads/{ref} or refs/tags/{ref}")


def refuse(reason: str, message: str, detail: str = "") -> NoReturn:
    """Refuse a token: a reason for programs, a short one for the caller, detail for the log."""
    # Of strangers' making: what no text of the log can hold would keep the refusal out of it.
    raise TokenRefused(message, reason=reason, detail=shown_text(detail, 300))


def strict_object(text: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object whose members are all different, at any depth.

    Two parsers can read a repeated member differently, so that one checks what the other
    does not use.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for name, value in pairs:
            if name in members:
                refuse("TOKEN_DUPLICATE_MEMBER", "the token repeats a claim", f"{what}: {name}")
            members[name] = value
        return members

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        refuse("TOKEN_MALFORMED", "the token is not a JSON web token", what)
    if not isinstance(value, dict):
        refuse("TOKEN_MALFORMED", "the token is not a JSON web token", what)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
