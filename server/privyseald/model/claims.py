"""What CI systems' identity tokens say of a job, read claim by claim.

Claims are compared as the provider sends them: where one says the text "true", the boolean
true is not it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from privyseald.model.workload import ATTRIBUTES, Issuer, Provider, Workload, refuse

MAX_VALUE = 512
"""Characters of a claim."""
LEEWAY = 30
"""Seconds by which the clocks of a provider and of the daemon may differ."""
MAX_AGE = 600
"""Seconds since a token was issued, however long it lives."""
MAX_ANCHOR = 90
"""Characters of a workload's immutable id, which is part of its principal's name."""
_ANCHOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/{}:-]*")

_WITHOUT_NBF = {Provider.CIRCLECI, Provider.BITBUCKET, Provider.OIDC}
"""Those whose documents do not promise `nbf`; a token is valid from `iat` on then."""


def check_claims(issuer: Issuer, claims: Mapping[str, Any], now: int, digest: str) -> Workload:
    """Check a token's claims, whose signature was verified, and return what they say.

    Args:
        issuer: Whose token it is; its `iss` was compared.
        claims: The payload.
        now: Seconds since 1970.
        digest: SHA-256 of what was signed, hexadecimal; stands for `jti` where there is none.

    Raises:
        TokenRefused: With the first thing that is wrong.
    """
    _audience(issuer, claims.get("aud"))
    expires_at = _times(issuer, claims, now)
    token_id = claims.get("jti", digest)
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_VALUE:
        refuse("TOKEN_CLAIM", "the token's jti is not a text", "jti")
    read = _Claims(claims)
    anchor, owner = _PROVIDERS[issuer.provider](read, issuer)
    if len(anchor) > MAX_ANCHOR or not _ANCHOR.fullmatch(anchor):
        refuse("TOKEN_CLAIM", "the token names its workload in a form that is not supported")
    if issuer.organizations and owner not in issuer.organizations:
        refuse("TOKEN_ORGANIZATION", "the token is of another organisation", owner)
    values = {
        **read.found,
        "issuer": issuer.name,
        "provider": str(issuer.provider),
        "repository_id": anchor,
        "owner_id": owner,
    }
    attributes = {name: values[name] for name in ATTRIBUTES if values.get(name)}
    return Workload(f"workload:{issuer.name}:{anchor}", attributes, token_id, expires_at)


def _audience(issuer: Issuer, audience: object) -> None:
    if issuer.provider is Provider.KUBERNETES and isinstance(audience, list) and len(audience) == 1:
        # The API server sends a list, always; one member is as strict as a text.
        audience = audience[0]
    if isinstance(audience, list):
        refuse("TOKEN_AUDIENCE_LIST", "the token is for more than one audience; ask for one")
    if audience != issuer.audience:
        refuse("TOKEN_AUDIENCE", "the token is for another audience", f"got {audience!r}")


def _times(issuer: Issuer, claims: Mapping[str, Any], now: int) -> int:
    times: dict[str, int] = {}
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None and name == "nbf" and issuer.provider in _WITHOUT_NBF:
            value = claims.get("iat")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
            refuse("TOKEN_CLAIM", f"the token has no valid {name}", name)
        times[name] = value
    if times["exp"] <= now - LEEWAY:
        refuse("TOKEN_EXPIRED", "the token has expired", f"exp {times['exp']}")
    if times["nbf"] > now + LEEWAY or times["iat"] > now + LEEWAY:
        refuse("TOKEN_NOT_YET_VALID", "the token is not valid yet; check the clocks")
    if times["exp"] - times["iat"] > issuer.max_lifetime:
        refuse("TOKEN_LIFETIME", f"the token lives longer than {issuer.max_lifetime} s")
    if now - times["iat"] > MAX_AGE + LEEWAY:
        refuse("TOKEN_AGE", f"the token is older than {MAX_AGE} s; ask for a new one")
    return times["exp"] + LEEWAY


class _Claims:
    """Reads claims of the type that the provider documents, and keeps what was read."""

    def __init__(self, claims: Mapping[str, Any]) -> None:
        self._claims = claims
        self.found: dict[str, str] = {}

    def text(self, name: str, attribute: str = "", *, required: bool = False) -> str:
        """Return a text; empty if it is absent or null."""
        value = self._claims.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or len(value) > MAX_VALUE or (required and not value):
            refuse("TOKEN_CLAIM", f"the token's {name} is missing or not a text", name)
        if attribute and value:
            self.found[attribute] = value
        return value

    def number_text(self, name: str) -> str:
        """Return an id that is sent as a text of digits."""
        value = self.text(name, required=True)
        if not (value.isascii() and value.isdigit()):
            refuse("TOKEN_CLAIM", f"the token's {name} is not a number", name)
        return value

    def record(self, name: str) -> _Claims:
        """Return an object within the claims."""
        value = self._claims.get(name)
        if not isinstance(value, dict):
            refuse("TOKEN_CLAIM", f"the token's {name} is missing", name)
        return _Claims(value)

    def exactly(self, name: str, wanted: object) -> None:
        """Require a claim to be one value, of that very type."""
        value = self._claims.get(name)
        if type(value) is not type(wanted) or value != wanted:
            refuse("TOKEN_CLAIM", f"the token's {name} must be {json.dumps(wanted)}", repr(value))

    def event(self, name: str, allowed: frozenset[str]) -> None:
        """Require an event that only insiders can cause."""
        event = self.text(name, "event", required=True)
        if event not in allowed:
            refuse("TOKEN_EVENT", f"a job that {event} started may not sign", event)

    def not_event(self, name: str, refused: frozenset[str]) -> None:
        """Require an event that an outsider cannot cause."""
        event = self.text(name, "event", required=True)
        if event in refused:
            refuse("TOKEN_EVENT", f"a job that {event} started may not sign", event)


_GITHUB_EVENTS = frozenset(
    {
        "push",
        "workflow_dispatch",
        "repository_dispatch",
        "schedule",
        "release",
        "create",
        "deployment",
        "merge_group",
    }
)


def _github(read: _Claims, _: Issuer) -> tuple[str, str]:
    # Of all others outsiders can be the cause: their code, or their text, runs.
    read.event("event_name", _GITHUB_EVENTS)
    read.text("repository", "repository")
    read.text("ref", "ref")
    read.text("ref_type", "ref_type")
    read.text("environment", "environment")
    read.text("job_workflow_ref", "workflow")
    read.text("sha", "sha")
    read.text("sub", "subject")
    read.found["run"] = f"{read.text('run_id')}/{read.text('run_attempt')}".strip("/")
    _runner(read, {"github-hosted": "hosted", "self-hosted": "self-hosted"})
    return read.number_text("repository_id"), read.number_text("repository_owner_id")


def _runner(read: _Claims, names: Mapping[str, str]) -> None:
    runner = read.text("runner_environment")
    if runner in names:
        read.found["runner"] = names[runner]


def _gitlab(read: _Claims, _: Issuer) -> tuple[str, str]:
    read.not_event(
        "pipeline_source", frozenset({"merge_request_event", "external_pull_request_event"})
    )
    read.text("project_path", "repository")
    read.text("ref_path", "ref") or read.text("ref", "ref")
    read.text("ref_type", "ref_type")
    for name in ("ref_protected", "environment_protected"):
        if read.text(name) not in {"", "true", "false"}:
            refuse("TOKEN_CLAIM", f'the token\'s {name} must be the text "true" or "false"', name)
        read.text(name, name)
    read.text("environment", "environment")
    read.text("ci_config_ref_uri", "workflow")
    read.text("sha", "sha")
    read.text("sub", "subject")
    read.text("pipeline_id", "run")
    _runner(read, {"gitlab-hosted": "hosted", "self-hosted": "self-hosted"})
    return read.number_text("project_id"), read.number_text("namespace_id")


def _buildkite(read: _Claims, _: Issuer) -> tuple[str, str]:
    # The ids are there only if the job asked for them (--claim organization_id ...).
    branch, tag = read.text("build_branch"), read.text("build_tag")
    if tag:
        read.found["ref"], read.found["ref_type"] = f"refs/tags/{tag}", "tag"
    elif branch:
        read.found["ref"], read.found["ref_type"] = f"refs/heads/{branch}", "branch"
    organization, pipeline = read.text("organization_slug"), read.text("pipeline_slug")
    read.found["repository"] = f"{organization}/{pipeline}"
    read.text("step_key", "workflow")
    read.text("build_commit", "sha")
    read.text("job_id", "run")
    read.text("sub", "subject")
    return read.text("pipeline_id", required=True), read.text("organization_id", required=True)


def _circleci(read: _Claims, issuer: Issuer) -> tuple[str, str]:
    prefix = "oidc.circleci.com/"
    read.exactly(prefix + "ssh-rerun", wanted=False)
    read.text(prefix + "vcs-origin", "repository")
    read.text(prefix + "vcs-ref", "ref")
    read.text(prefix + "job-id", "run")
    read.text("sub", "subject")
    return read.text(prefix + "project-id", required=True), issuer.url.rpartition("/")[2]


def _bitbucket(read: _Claims, _: Issuer) -> tuple[str, str]:
    read.text("deploymentEnvironmentUuid", "environment")
    branch = read.text("branchName")
    if branch:
        read.found["ref"], read.found["ref_type"] = f"refs/heads/{branch}", "branch"
    read.text("pipelineUuid", "run")
    read.text("sub", "subject")
    repository = read.text("repositoryUuid", required=True)
    return repository.strip("{}"), read.text("workspaceUuid").strip("{}")


def _azure(read: _Claims, _: Issuer) -> tuple[str, str]:
    # The service connection is all it says: no branch, so nothing else can be asked for.
    subject = read.text("sub", "subject", required=True)
    read.text("rpl_id", "run")
    return subject.removeprefix("sc://"), read.text("org_id")


def _kubernetes(read: _Claims, _: Issuer) -> tuple[str, str]:
    of = read.record("kubernetes.io")
    account = of.record("serviceaccount")
    namespace = of.text("namespace", required=True)
    read.found["repository"] = f"{namespace}/{account.text('name', required=True)}"
    read.text("sub", "subject", required=True)
    return account.text("uid", required=True), namespace


def _oidc(read: _Claims, issuer: Issuer) -> tuple[str, str]:
    for attribute, claim in issuer.claims.items():
        read.text(claim, attribute)
    read.text("sub", "subject", required=True)
    anchor = issuer.claims.get("repository_id", "sub")
    return read.text(anchor, required=True), read.found.get("owner_id", "")


_PROVIDERS: dict[Provider, Callable[[_Claims, Issuer], tuple[str, str]]] = {
    Provider.GITHUB: _github,
    Provider.GITLAB: _gitlab,
    Provider.BUILDKITE: _buildkite,
    Provider.CIRCLECI: _circleci,
    Provider.BITBUCKET: _bitbucket,
    Provider.AZURE_DEVOPS: _azure,
    Provider.KUBERNETES: _kubernetes,
    Provider.OIDC: _oidc,
}
