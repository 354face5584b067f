"""The daemon's own state, as the facts of `privyseal.log_replay`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from privyseal import log_replay
from privyseal.errors import ClientError, UnreachableError


def facts_of(to: Any, verify: Callable[[Any, bytes], None]) -> tuple[dict[str, str], bool]:
    """Ask the daemon for its apps, keys, releases, channels and grants.

    Args:
        to: The connection.
        verify: Called with each release and its receipt; raises VerificationError.

    Returns:
        The facts, and whether grants, which only admins may list, are among them.
    """
    facts: dict[str, str] = {}
    apps = list(_apps(to))
    for app in apps:
        facts[app] = "there"
        _keys(to, app, facts)
        _releases(to, app, facts, verify)
        _channels(to, app, facts)
    return facts, _grants(to, apps, facts)


def _pages(to: Any, method: Any, request: Any) -> Iterator[Any]:
    """Yield the answers of a method that lists, one page after the other."""
    while True:
        page = to.call(method, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _apps(to: Any) -> Iterator[str]:
    from privyseal.v1 import app_service_pb2 as pb

    for page in _pages(to, to.apps.ListApps, pb.ListAppsRequest(page_size=1000)):
        yield from (app.name for app in page.apps)


def _keys(to: Any, app: str, facts: dict[str, str]) -> None:
    from privyseal.cli.key_life import state_of
    from privyseal.v1 import key_service_pb2 as pb

    for key in to.call(to.keys.ListKeys, pb.ListKeysRequest(parent=app)).keys:
        facts[key.name] = log_replay.primary(key.primary)
        for version in key.versions:
            state = state_of(version).lower().replace("_", "-")
            digest = version.public_key_sha256.hex()
            facts[version.name] = log_replay.version(state, digest)


def _releases(
    to: Any, app: str, facts: dict[str, str], verify: Callable[[Any, bytes], None]
) -> None:
    from privyseal.v1 import release_service_pb2 as pb
    from privyseal.v1 import types_pb2

    asked = pb.ListReleasesRequest(parent=app, page_size=1000)
    for release in (
        r for page in _pages(to, to.releases.ListReleases, asked) for r in page.releases
    ):
        answer = to.call(to.releases.GetRelease, pb.GetReleaseRequest(name=release.name))
        verify(release, answer.receipt)
        ranges = [
            (_word(types_pb2.Platform, "PLATFORM_", r.platform), r.min, r.max, r.eq)
            for r in release.native_ranges
        ]
        facts[release.name] = log_replay.release(
            release.artifact_url,
            _word(pb.ArtifactType, "ARTIFACT_TYPE_", release.artifact_type),
            log_replay.native(ranges),
            "withdrawn" if release.HasField("withdraw_time") else "-",
        )


def _channels(to: Any, app: str, facts: dict[str, str]) -> None:
    from privyseal.v1 import release_service_pb2 as pb

    for channel in to.call(to.releases.ListChannels, pb.ListChannelsRequest(parent=app)).channels:
        facts[channel.name] = log_replay.channel(channel.release)


def _grants(to: Any, apps: list[str], facts: dict[str, str]) -> bool:
    from privyseal.v1 import access_service_pb2 as pb
    from privyseal.v1 import types_pb2

    for resource in ("apps/-", *apps):
        try:
            found = to.call(to.access.ListGrants, pb.ListGrantsRequest(resource=resource)).grants
        except UnreachableError:
            raise
        except ClientError:
            return False
        for grant in found:
            role = _word(types_pb2.Role, "ROLE_", grant.role)
            told = (grant.principal, role, grant.resource, dict(grant.conditions))
            facts[grant.name] = log_replay.grant(*told)
    return True


def _word(enum: Any, prefix: str, number: int) -> str:
    return str(enum.Name(number).removeprefix(prefix).lower().replace("_", "-"))
