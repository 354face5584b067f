"""`privyseal native`: the store binaries that are out there, and the keys they trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import APP, PATH, Output, command, connect, read_text, time_text

commands = click.Group("native", help="Store binaries, and the keys that they trust.")
PLUGINS = ["capawesome", "capgo", "codepush", "expo", "minisign", "sparkle", "statement", "ionic"]


@command(commands, "register")
@APP
@click.option("--project", type=PATH, default=Path(), help="The native project.")
@click.option("--platform", type=click.Choice(["android", "ios"]), default=None)
@click.option("--version-name", default="", help="Over the project's.")
@click.option("--version-code", default="", help="Over the project's; iOS's build number.")
@click.option("--plugin", type=click.Choice(PLUGINS), default=None, help="Over the project's.")
@click.option("--public-key", type=PATH, multiple=True, help="PEM; over the project's; repeatable.")
@click.option(
    "--id", "build_id", default="", help="The build's id; made of the versions if absent."
)
@click.option("--allow-unknown", is_flag=True, help="Take keys that the daemon does not know.")
@click.option(
    "--already-shipped",
    is_flag=True,
    help="It is out there, whether its keys are wanted or not; for security officers.",
)
def register(  # noqa: PLR0917 - options
    out: Output,
    app_id: str,
    project: Path,
    platform: str | None,
    version_name: str,
    version_code: str,
    plugin: str | None,
    public_key: tuple[Path, ...],
    build_id: str,
    *,
    allow_unknown: bool,
    already_shipped: bool,
) -> None:
    """Register the store binary that a project makes: its versions and the keys it embeds.

    Run it where the store build is made, for each build that is published.

    Example: privyseal native register --app-id 042a1261 --project .
    """
    from privyseal.errors import ClientError
    from privyseal.native_project import key_sha256
    from privyseal.v1 import native_service_pb2 as pb

    found = _found(project, platform, all_told=bool(version_name and plugin))
    if build_id and len(found) > 1:
        raise click.UsageError("--id is for one platform; name it with --platform")
    given = [read_text(path, "public key") for path in public_key]
    told = {
        "version_name": version_name,
        "version_code": version_code,
        "public_keys": given,
    }
    for why in (f.unread[name] for f in found for name in f.unread if not told[name]):
        raise ClientError(why)
    rows = []
    with connect() as to:
        for each in found:
            request = pb.RegisterNativeBuildRequest(
                parent=f"apps/{app_id}",
                native_build_id=build_id,
                platform=_platform(each.platform),
                version_name=version_name or each.version_name,
                version_code=version_code or each.version_code,
                plugin=plugin or each.plugin,
                trusted_keys=[key_sha256(text) for text in given or each.public_keys],
                allow_unknown=allow_unknown,
                already_shipped=already_shipped,
            )
            _require_told(request, each.platform)
            made = to.call(to.native.RegisterNativeBuild, request).native_build
            rows.append(_row(made))
            _warn(out, to, app_id, made)
    out.done({"nativeBuilds": rows}, *(f"registered {_line(row)}" for row in rows))


def _found(project: Path, platform: str | None, *, all_told: bool) -> list[Any]:
    """Return what a project says of its binaries; it is not read if the options say all.

    Raises:
        ClientError: If there is no such project.
    """
    from privyseal.errors import ClientError
    from privyseal.native_project import Found, read_project

    if platform and all_told:
        return [Found(platform)]
    found = [f for f in read_project(project) if platform in {None, f.platform}]
    if not found:
        raise ClientError(f"{project} has no {platform} project")
    return found


def _require_told(request: Any, platform: str) -> None:
    """Raise ClientError if neither the project nor an option said what is registered."""
    from privyseal.errors import ClientError

    for name in ("version_name", "plugin"):
        if not getattr(request, name):
            option = "--" + name.replace("_", "-")
            raise ClientError(f"the {platform} project does not say its {name}; use {option}")


@command(commands, "list")
@APP
def list_builds(out: Output, app_id: str) -> None:
    """List an app's native builds.

    Example: privyseal native list --app-id 042a1261
    """
    from privyseal.v1 import native_service_pb2 as pb

    with connect() as to:
        request = pb.ListNativeBuildsRequest(parent=f"apps/{app_id}")
        found = to.call(to.native.ListNativeBuilds, request).native_builds
    rows = [_row(build) for build in found]
    out.done({"nativeBuilds": rows}, *map(_line, rows))


@command(commands, "end")
@click.argument("name")
@click.option("--reason", required=True)
@click.option("--force", is_flag=True, help="Though its devices still ask; others must consent.")
def end(out: Output, name: str, reason: str, *, force: bool) -> None:
    """Note that devices with a build do not count any more.

    Example: privyseal native end apps/042a1261/nativeBuilds/android-1.0.0-10
    --reason "the store forces an update"
    """
    from privyseal.v1 import native_service_pb2 as pb

    with connect() as to:
        request = pb.EndNativeBuildRequest(name=name, reason=reason, force=force)
        ended = to.call(to.native.EndNativeBuild, request).native_build
    out.done(_row(ended), f"ended {ended.name}")


def _warn(out: Output, to: Any, app_id: str, build: Any) -> None:
    """Say that a build trusts nothing that signs yet, where it is so."""
    from privyseal.v1 import key_service_pb2 as key_pb
    from privyseal.v1 import types_pb2

    keys = to.call(to.keys.ListKeys, key_pb.ListKeysRequest(parent=f"apps/{app_id}")).keys
    trusted = [v for k in keys for v in k.versions if v.public_key_sha256 in build.trusted_keys]
    waits = types_pb2.KEY_VERSION_STATE_PRE_ACTIVATION
    if trusted and all(v.state == waits for v in trusted):
        out.note(
            f"{build.name} trusts {trusted[0].name} alone, which does not sign yet: its devices "
            "get nothing before a rotation distributes it (`privyseal rotation start`, then "
            "`advance`)"
        )


def _platform(name: str) -> Any:
    from privyseal.v1 import types_pb2

    return types_pb2.Platform.Value(f"PLATFORM_{name.upper()}")


def _row(build: Any) -> dict[str, Any]:
    row = {
        "nativeBuild": build.name,
        "versionName": build.version_name,
        "versionCode": build.version_code,
        "plugin": build.plugin,
        "trusts": [digest.hex() for digest in build.trusted_keys],
        "registerTime": time_text(build.register_time),
    }
    if build.HasField("end_time"):
        row["endTime"] = time_text(build.end_time)
    return row


def _line(row: dict[str, Any]) -> str:
    trusts = ", ".join(digest[:16] for digest in row["trusts"]) or "nothing"
    ended = "  ended" if "endTime" in row else ""
    return f"{row['nativeBuild']}  {row['plugin']}  trusts {trusts}{ended}"
