"""Finds out in which CI system this runs, and asks it for an identity token.

No secret is stored in CI: each of these systems vouches for its jobs, with a signed token
that is good for minutes. It is asked for one with the daemon's own audience, so that what
one daemon gets is worth nothing at another.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privyseal.errors import ClientError

KUBERNETES_TOKEN = Path("/var/run/secrets/privyseal/token")
_TIMEOUT = 20
_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Source:
    """Where an identity token comes from.

    Attributes:
        name: The CI system, for people.
        fetch: Takes the audience and returns the token. Raises ClientError.
    """

    name: str
    fetch: Callable[[str], str]


def find(env: Mapping[str, str] | None = None) -> Source | None:
    """Return where this job's identity token comes from, None if this is no known CI job.

    A token that was named (PRIVYSEAL_ID_TOKEN or PRIVYSEAL_ID_TOKEN_FILE) comes first.
    """
    values = os.environ if env is None else env
    for name, present, fetch in _SOURCES:
        if all(values.get(variable) for variable in present):
            return Source(name, lambda audience, use=fetch: use(values, audience))  # type: ignore[misc] # bound now
    if KUBERNETES_TOKEN.exists():
        return Source("Kubernetes", lambda _: _read(KUBERNETES_TOKEN))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ClientError(f"cannot read an identity token in {path}") from None


def _named(env: Mapping[str, str], _: str) -> str:
    return env["PRIVYSEAL_ID_TOKEN"].strip()


def _named_file(env: Mapping[str, str], _: str) -> str:
    return _read(Path(env["PRIVYSEAL_ID_TOKEN_FILE"]))


def _github(env: Mapping[str, str], audience: str) -> str:
    url = env["ACTIONS_ID_TOKEN_REQUEST_URL"]
    url += ("&" if "?" in url else "?") + urllib.parse.urlencode({"audience": audience})
    answer = _request(url, env["ACTIONS_ID_TOKEN_REQUEST_TOKEN"], "GitHub Actions")
    return _member(answer, "value", "GitHub Actions")


def _azure(env: Mapping[str, str], _: str) -> str:
    # The audience of these is fixed; what names the job is the service connection.
    query = {"api-version": "7.1", "serviceConnectionId": env["PRIVYSEAL_SERVICE_CONNECTION_ID"]}
    url = f"{env['SYSTEM_OIDCREQUESTURI']}?{urllib.parse.urlencode(query)}"
    answer = _request(url, env["SYSTEM_ACCESSTOKEN"], "Azure DevOps", body=b"")
    return _member(answer, "oidcToken", "Azure DevOps")


def _buildkite(_: Mapping[str, str], audience: str) -> str:
    # The ids that policies go by are in the token only if they are asked for.
    claims = ("organization_id", "pipeline_id")
    return _run(
        *("buildkite-agent", "oidc", "request-token", "--audience", audience),
        *("--lifetime", "300"),
        *(word for claim in claims for word in ("--claim", claim)),
    )


def _circleci(env: Mapping[str, str], audience: str) -> str:
    if shutil.which("circleci", path=env.get("PATH")) is None:
        return env["CIRCLE_OIDC_TOKEN_V2"].strip()
    return _run("circleci", "run", "oidc", "get", "--claims", json.dumps({"aud": audience}))


def _bitbucket(env: Mapping[str, str], _: str) -> str:
    return env["BITBUCKET_STEP_OIDC_TOKEN"].strip()


_SOURCES: tuple[tuple[str, tuple[str, ...], Callable[[Mapping[str, str], str], str]], ...] = (
    ("GitLab CI", ("GITLAB_CI", "PRIVYSEAL_ID_TOKEN"), _named),
    ("the token in PRIVYSEAL_ID_TOKEN", ("PRIVYSEAL_ID_TOKEN",), _named),
    ("the token in PRIVYSEAL_ID_TOKEN_FILE", ("PRIVYSEAL_ID_TOKEN_FILE",), _named_file),
    (
        "GitHub Actions",
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        _github,
    ),
    ("Buildkite", ("BUILDKITE", "BUILDKITE_AGENT_ACCESS_TOKEN"), _buildkite),
    ("CircleCI", ("CIRCLECI", "CIRCLE_OIDC_TOKEN_V2"), _circleci),
    ("Bitbucket Pipelines", ("BITBUCKET_STEP_OIDC_TOKEN",), _bitbucket),
    (
        "Azure DevOps",
        ("SYSTEM_OIDCREQUESTURI", "SYSTEM_ACCESSTOKEN", "PRIVYSEAL_SERVICE_CONNECTION_ID"),
        _azure,
    ),
)


def hint(env: Mapping[str, str] | None = None) -> str:
    """Return what is missing in a CI system that could vouch for this job, empty if none is."""
    values = os.environ if env is None else env
    if values.get("GITHUB_ACTIONS"):
        return "this GitHub job may not ask for a token; give it `permissions: id-token: write`"
    if values.get("GITLAB_CI"):
        return "this GitLab job has no token; name one PRIVYSEAL_ID_TOKEN under `id_tokens:`"
    if values.get("BITBUCKET_BUILD_NUMBER"):
        return "this Bitbucket step has no token; set `oidc: true` on it"
    if values.get("TF_BUILD"):
        return (
            "this Azure pipeline has no token; map SYSTEM_ACCESSTOKEN and set "
            "PRIVYSEAL_SERVICE_CONNECTION_ID"
        )
    return ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to be sent elsewhere: the job's credential would go along."""

    def redirect_request(self, *_: object) -> None:
        """Follow nothing."""


def _request(url: str, token: str, who: str, body: bytes | None = None) -> Any:
    if not url.startswith("https://"):
        raise ClientError(f"{who} gave an address for tokens that is not https")
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, body, headers)  # noqa: S310 - https, checked above
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT) as answer:
            return json.loads(answer.read(_MAX_ANSWER))
    except (OSError, ValueError) as error:
        code = f" ({error.code})" if isinstance(error, urllib.error.HTTPError) else ""
        raise ClientError(f"{who} did not give an identity token{code}") from None


def _member(answer: Any, name: str, who: str) -> str:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, str) or not value:
        raise ClientError(f"{who} did not give an identity token")
    return value


def _run(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, no shell
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        raise ClientError(f"{' '.join(command[:3])} did not give an identity token") from None
    return done.stdout.strip()
