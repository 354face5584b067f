"""`privyseal live-update`: the verbs about releases that are there."""

from __future__ import annotations

from typing import Any

import click

from privyseal.cli.channels import commands
from privyseal.cli.common import APP, Output, command, connect, time_text
from privyseal.cli.release_options import RANGES, native_ranges, options


def release_json(release: Any) -> dict[str, Any]:
    """Return a release for programs; buildId as in Appflow."""
    return {
        "release": release.name,
        "buildId": release.name.rsplit("/", 1)[-1],
        "buildNumber": int(release.name.rsplit("/", 1)[-1]),
        "version": release.version,
        "artifactUrl": release.artifact_url,
        "sha256": release.bundle_sha256.hex(),
    }


def look_at(url: str, length: int) -> str:
    """Return what looks wrong with what devices will fetch; empty if nothing does, or who knows.

    Args:
        url: Its address.
        length: Its bytes; 0 if they are not known.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        return ""
    try:
        with urlopen(Request(url, method="HEAD"), timeout=5) as answer:  # noqa: S310 - as above
            there = answer.headers.get("Content-Length", "")
    except HTTPError as error:
        with error:
            if error.code in {405, 501}:
                return ""
            return f"{url} answers {error.code}: see that devices can fetch it"
    except (OSError, ValueError):
        return f"{url} cannot be reached from here: see that devices can fetch it"
    if length and there.isdigit() and int(there) != length:
        return f"{url} has {int(there):,} bytes and {length:,} were signed: devices will refuse it"
    return ""


@command(commands, "set-native-versions")
@options(APP, *RANGES)
@click.option("--build-id", required=True, help="The release's number.")
def set_native_versions(out: Output, app_id: str, build_id: str, **values: str) -> None:
    """Narrow the native versions that get a release; `eq` is left out of it.

    Example: privyseal live-update set-native-versions --app-id 042a1261 --build-id 7
    --android-min 1.2.0
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        request = pb.SetNativeVersionsRequest(
            name=f"apps/{app_id}/releases/{build_id}", native_ranges=native_ranges(values)
        )
        release = to.call(to.releases.SetNativeVersions, request).release
    out.done({**release_json(release)}, f"narrowed {release.name}")


@command(commands, "list-releases")
@APP
@click.option("--first", default=20, show_default=True, type=click.IntRange(1, 1000))
def list_releases(out: Output, app_id: str, first: int) -> None:
    """List an app's releases, newest first.

    Example: privyseal live-update list-releases --app-id 042a1261
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        request = pb.ListReleasesRequest(parent=f"apps/{app_id}", page_size=first)
        found = to.call(to.releases.ListReleases, request).releases
    rows = []
    for release in found:
        row = {**release_json(release), "createdAt": time_text(release.create_time)}
        row["nativeRanges"] = _ranges_json(release)
        if release.HasField("withdraw_time"):
            row["withdrawnAt"] = time_text(release.withdraw_time)
        rows.append(row)
    lines = (
        f"{r['buildId']:>6}  {r['createdAt']}  {r['version']:<28} {r['sha256']}"
        + "".join(f"  {_in_words(n)}" for n in r["nativeRanges"])
        + ("  withdrawn" if "withdrawnAt" in r else "")
        for r in rows
    )
    out.done({"releases": rows}, *lines)


def _ranges_json(release: Any) -> list[dict[str, str]]:
    """Return what a native version must be within: what was signed, and what narrows it."""
    from privyseal.v1 import types_pb2 as pb

    return [
        {
            "platform": pb.Platform.Name(r.platform).removeprefix("PLATFORM_").lower(),
            **{bound: value for bound in ("min", "max", "eq") if (value := getattr(r, bound))},
        }
        for r in (*release.signed_native_ranges, *release.native_ranges)
    ]


def _in_words(found: dict[str, str]) -> str:
    bounds = [f"{b} {found[b]}" for b in ("min", "max") if b in found]
    bounds += [f"not {found['eq']}"] if "eq" in found else []
    return f"{found['platform']} {' '.join(bounds)}"


@command(commands, "withdraw-release")
@APP
@click.option("--build-id", required=True, help="The release's number.")
@click.option("--reason", required=True)
def withdraw_release(out: Output, app_id: str, build_id: str, reason: str) -> None:
    """Withdraw a release for good: no device is given it any more.

    Example: privyseal live-update withdraw-release --app-id 042a1261 --build-id 7 --reason broken
    """
    from privyseal.v1 import release_service_pb2 as pb

    with connect() as to:
        name = f"apps/{app_id}/releases/{build_id}"
        request = pb.WithdrawReleaseRequest(name=name, reason=reason)
        release = to.call(to.releases.WithdrawRelease, request).release
    out.note(f"its artifact is still at {release.artifact_url}; remove it there if it must go")
    out.done({**release_json(release)}, f"withdrew {release.name}")
