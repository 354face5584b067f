"""`privyseal rotation`: from one version of a key to another without stranding a device."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import APP, KEY, PATH, Output, command, connect, set_time, time_text

commands = click.Group("rotation", help="Rotate keys without stranding a device.")
STATES = ["prepared", "distributing", "overlap", "promoted"]


@command(commands, "start")
@APP
@KEY
@click.option("--reason", required=True, help="For people; of an emergency, what is known.")
@click.option("--to", "new", type=int, default=0, help="A version; else the standby, or a new one.")
@click.option("--emergency", is_flag=True, help="--old is compromised: it stops signing now.")
@click.option("--old", type=int, default=0, help="The version to rotate away from: the primary.")
@click.option(
    "--since", default="", help="Of an emergency: when it began, as 2026-11-24T10:00:00Z."
)
@click.option("--in-token", is_flag=True, help="Make a new private key in the daemon's HSM.")
def start(  # noqa: PLR0917 - options
    out: Output,
    app_id: str,
    key: str,
    reason: str,
    new: int,
    old: int,
    since: str,
    *,
    emergency: bool,
    in_token: bool,
) -> None:
    """Begin a rotation away from the primary version of a key.

    Example: privyseal rotation start --app-id 042a1261 --key capawesome-v1 --reason "yearly"
    """
    from privyseal.v1 import rotation_service_pb2 as pb

    if emergency and not old:
        raise click.UsageError("--emergency needs --old: the version that others may know")
    if since and not emergency:
        raise click.UsageError("--since needs --emergency: a planned rotation has no such time")
    name = f"apps/{app_id}/keys/{key}"
    request = pb.StartRotationRequest(
        parent=name,
        kind=pb.ROTATION_KIND_EMERGENCY if emergency else pb.ROTATION_KIND_PLANNED,
        old_version=f"{name}/versions/{old}" if old else "",
        new_version=f"{name}/versions/{new}" if new else "",
        reason=reason,
        in_token=in_token,
    )
    set_time(request.compromise_time, since, "--since")
    with connect() as to:
        made = to.call(to.rotations.StartRotation, request).rotation
        kind = "an emergency" if emergency else "planned"
        lines = [f"started {made.name}, {kind}: {made.old_version} to {made.new_version}"]
        if emergency:
            lines += _emergency_report(to, name, made.new_version)
    out.done(_row(made), *lines, *([] if emergency else _next(made)))


def _emergency_report(to: Any, name: str, new: str) -> list[str]:
    from privyseal.v1 import rotation_service_pb2 as pb

    found = to.call(to.rotations.GetFieldStatus, pb.GetFieldStatusRequest(name=name))
    affected = list(found.affected_releases)
    waiting = sorted(s.label for s in found.standings if s.verdict == "stranded")
    served = sorted(s.label for s in found.standings if s.served_by)
    return [
        "the compromised version signs nothing from now on",
        f"signed with it after its compromise: {', '.join(affected) or 'none'}",
        "  what of these was registered is withdrawn, and the rest cannot be registered any more",
        f"can be served by the new version: {', '.join(served) or 'none'}",
        "repaired by a store release alone: " + (", ".join(waiting) or "none"),
        "next: channels whose release was withdrawn give nothing: deploy one that is good",
        "  (`privyseal live-update list-releases`), or publish",
        f"then: privyseal key show {new} --public new.pem, and compile it into a store build",
    ]


@command(commands, "advance")
@click.argument("name")
@click.option("--expect", type=click.Choice(STATES), default=None, help="Only from this state.")
@click.option("--force", is_flag=True, help="Against what can be forced; others must consent.")
def advance(out: Output, name: str, expect: str | None, *, force: bool) -> None:
    """Take the next step of a rotation, if nothing stands in its way.

    Example: privyseal rotation advance apps/042a1261/keys/capawesome-v1/rotations/1
    """
    from privyseal.v1 import rotation_service_pb2 as pb

    request = pb.AdvanceRotationRequest(name=name, force=force)
    if expect:
        request.expected_state = pb.RotationState.Value(f"ROTATION_STATE_{expect.upper()}")
    with connect() as to:
        made = to.call(to.rotations.AdvanceRotation, request).rotation
    out.done(_row(made), f"{made.name} is {_state(made.state)}", *_next(made))


@command(commands, "abort")
@click.argument("name")
@click.option("--reason", required=True)
def abort(out: Output, name: str, reason: str) -> None:
    """Give a rotation up; the new version signs on if a live build depends on it.

    Example: privyseal rotation abort apps/042a1261/keys/capawesome-v1/rotations/1
    --reason "wrong key compiled in"
    """
    from privyseal.v1 import rotation_service_pb2 as pb

    with connect() as to:
        request = pb.AbortRotationRequest(name=name, reason=reason)
        made = to.call(to.rotations.AbortRotation, request).rotation
    out.done(_row(made), f"{made.name} is {_state(made.state)}")


@command(commands, "list")
@APP
def list_rotations(out: Output, app_id: str) -> None:
    """List an app's rotations, oldest first.

    Example: privyseal rotation list --app-id 042a1261
    """
    from privyseal.v1 import rotation_service_pb2 as pb

    with connect() as to:
        request = pb.ListRotationsRequest(parent=f"apps/{app_id}")
        found = to.call(to.rotations.ListRotations, request).rotations
    rows = [_row(r) for r in found]
    lines = (f"{r['rotation']}  {r['kind']:<9} {r['state']:<12} {r['reason']}" for r in rows)
    out.done({"rotations": rows}, *lines)


@command(commands, "plan")
@APP
@KEY
def plan(out: Output, app_id: str, key: str) -> None:
    """Say what each step ahead would do, what it waits for, and whom it would strand now.

    Example: privyseal rotation plan --app-id 042a1261 --key capawesome-v1
    """
    found = _status(app_id, key)
    out.done(_status_json(found), *_plan_lines(found))


@command(commands, "status")
@APP
@KEY
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until Ctrl-C.")
@click.option("--svg", type=PATH, default=None, help="Draw the coverage of the last days there.")
def status(out: Output, app_id: str, key: str, svg: Path | None, *, watch: bool) -> None:
    """Show how each native version stands with a key, and how far its rotation is.

    Example: privyseal rotation status --app-id 042a1261 --key capawesome-v1 --svg coverage.svg
    """
    from privyseal.coverage import draw
    from privyseal.errors import ClientError

    while True:
        found = _status(app_id, key)
        lines = [*_table(found), "", *_plan_lines(found)]
        if svg is not None:
            try:
                svg.write_text(draw(f"apps/{app_id}/keys/{key}", _days(found)), "utf-8")
            except OSError as error:
                raise ClientError(f"cannot write {svg}: {error.strerror}") from None
        if not watch:
            out.done(_status_json(found), *lines)
            return
        if sys.stdout.isatty() and not out.as_json:
            click.clear()
        out.done(_status_json(found), *lines)
        sys.stdout.flush()
        time.sleep(5)


def _status(app_id: str, key: str) -> Any:
    from privyseal.v1 import rotation_service_pb2 as pb

    with connect() as to:
        request = pb.GetFieldStatusRequest(name=f"apps/{app_id}/keys/{key}")
        return to.call(to.rotations.GetFieldStatus, request)


def _table(found: Any) -> list[str]:
    head = ("native version", "embeds", "check-ins", "share", "last seen", "verdict")
    rows = [
        (
            s.label,
            ", ".join(map(str, s.embedded_versions)) + (" +unknown" if s.unknown_keys else "")
            or "?",
            f"{s.check_ins:,}",
            f"{s.share:.1%}",
            s.last_day or "never",
            s.verdict,
        )
        for s in found.standings
    ]
    if not rows:
        return ["no native build is registered; see `privyseal native register`"]
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def _plan_lines(found: Any) -> list[str]:
    if not found.HasField("rotation"):
        return [f"version {found.primary} is the primary; nothing is being rotated"]
    rotation = found.rotation
    lines = [
        f"{rotation.name}  {_kind(rotation.kind)}  {_state(rotation.state)}",
        *(
            f"  {time_text(step.time)}  {_state(step.state):<12} by {step.principal}"
            + ("  (forced)" if step.forced else "")
            for step in rotation.history
        ),
    ]
    for step in found.steps:
        lines.append(f"ahead: {_state(step.state)}")
        lines += [f"  does     {effect}" for effect in step.effects]
        lines += [
            f"  waits    {o.text}" + (f" [{', '.join(o.native_builds)}]" if o.native_builds else "")
            for o in step.obstacles
        ]
        if step.strands:
            lines.append(f"  strands  {', '.join(step.strands)}")
        if not step.obstacles:
            lines.append("  waits    for nothing")
    if found.affected_releases:
        lines.append(f"signed since the compromise: {', '.join(found.affected_releases)}")
    return lines


def _days(found: Any) -> list[tuple[str, dict[int, int]]]:
    return [(day.day, dict(day.check_ins)) for day in found.days]


def _status_json(found: Any) -> dict[str, Any]:
    return {
        "rotation": _row(found.rotation) if found.HasField("rotation") else None,
        "primary": found.primary,
        "nativeVersions": [
            {
                "label": s.label,
                "nativeBuild": s.native_build,
                "embeddedVersions": list(s.embedded_versions),
                "unknownKeys": s.unknown_keys,
                "servedBy": s.served_by,
                "checkIns": s.check_ins,
                "share": s.share,
                "lastDay": s.last_day,
                "verdict": s.verdict,
            }
            for s in found.standings
        ],
        "ahead": [
            {
                "state": _state(step.state),
                "effects": list(step.effects),
                "obstacles": [
                    {
                        "reason": o.reason,
                        "text": o.text,
                        "nativeBuilds": list(o.native_builds),
                        "forceable": o.forceable,
                    }
                    for o in step.obstacles
                ],
                "strands": list(step.strands),
            }
            for step in found.steps
        ],
        "days": [
            {"day": day, "checkIns": {str(v): n for v, n in counts.items()}}
            for day, counts in _days(found)
        ],
        "affectedReleases": list(found.affected_releases),
    }


def _state(value: Any) -> str:
    from privyseal.v1 import rotation_service_pb2 as pb

    return pb.RotationState.Name(value).removeprefix("ROTATION_STATE_").lower()


def _kind(value: Any) -> str:
    from privyseal.v1 import rotation_service_pb2 as pb

    return pb.RotationKind.Name(value).removeprefix("ROTATION_KIND_").lower()


def _row(rotation: Any) -> dict[str, Any]:
    return {
        "rotation": rotation.name,
        "kind": _kind(rotation.kind),
        "state": _state(rotation.state),
        "oldVersion": rotation.old_version,
        "newVersion": rotation.new_version,
        "reason": rotation.reason,
        "history": [
            {
                "state": _state(step.state),
                "time": time_text(step.time),
                "principal": step.principal,
                "forced": step.forced,
            }
            for step in rotation.history
        ],
    }


def _next(rotation: Any) -> list[str]:
    """Return what to do next, for the states in which people have something to do."""
    key = rotation.new_version.rpartition("/versions/")[0].split("/")
    hints = {
        "prepared": [
            (
                f"next: compile the public key of {rotation.new_version} into a store build "
                "(`privyseal key show` prints it), and register that (`privyseal native register`)"
            ),
        ],
        "distributing": ["next: have every platform's newest build trust the new version"],
        "overlap": [f"next: privyseal rotation advance {rotation.name}"],
        "promoted": ["next: end the old builds when they do not count any more, then advance"],
    }
    see = f"look: privyseal rotation status --app-id {key[1]} --key {key[3]}"
    hint = hints.get(_state(rotation.state))
    return [*hint, see] if hint else []
