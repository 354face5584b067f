"""`privyseal approval`: ask for the consent of others, and give it."""

from __future__ import annotations

from typing import Any

import click

from privyseal.cli.common import ON, ROLES, Output, command, connect, role_name, role_number

commands = click.Group("approval", help="Ask for the consent of others, and give it.")
REASON = click.option("--reason", required=True, help="Why; for people, and for ever in the log.")
NEEDED = click.option("--needed", default=0, help="How many must consent; else the daemon's rule.")


def _ask(out: Output, **values: Any) -> None:
    from privyseal.v1 import approval_service_pb2 as pb

    with connect() as to:
        made = to.call(to.approvals.RequestApproval, pb.RequestApprovalRequest(**values)).approval
    out.done(
        _row(made),
        f"{made.name} needs the consent of {made.needed}; another person runs: "
        f"privyseal approval approve {made.name}",
    )


@command(commands, "request")
@ON
@click.option("--action", required=True, help="The action, as the refusal named it.")
@click.option("--subject", required=True, help="What exactly, as the refusal named it.")
@click.option("--for", "beneficiary", default="", help="Another principal that will do it.")
@click.option("--hours", default=24, show_default=True, type=click.IntRange(1, 168))
@NEEDED
@REASON
def request(out: Output, app_id: str, hours: int, **values: Any) -> None:
    """Ask for consent to one act.

    Example: privyseal approval request --action key.destroy --app-id 042a1261
    --subject "apps/042a1261/keys/capawesome-v1/versions/1 after 7d" --reason "key leaked"
    """
    _ask(out, resource=f"apps/{app_id}", ttl_seconds=hours * 3600, **values)


@command(commands, "window")
@ON
@click.option("--ref", default="", help="Only for this ref, such as refs/tags/v3.")
@click.option("--workflow", default="", help="Only for this workflow, as the token names it.")
@click.option("--for", "beneficiary", default="", help="Only for this principal.")
@click.option("--releases", "uses", default=1, show_default=True, type=click.IntRange(1, 1000))
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 10_080))
@NEEDED
@REASON
def window(out: Output, app_id: str, minutes: int, **values: Any) -> None:
    """Ask for a signing window: so many releases, until a time.

    Example: privyseal approval window --app-id 042a1261 --ref refs/heads/main --releases 2
    --reason "release 3.1"
    """
    resource = f"apps/{app_id}"
    _ask(out, action="release.sign", resource=resource, ttl_seconds=minutes * 60, **values)


@command(commands, "break-glass")
@ON
@click.option("--role", required=True, type=click.Choice(ROLES), help="What the emergency needs.")
@click.option("--minutes", default=30, show_default=True, type=click.IntRange(1, 240))
@REASON
def break_glass(out: Output, app_id: str, role: str, minutes: int, reason: str) -> None:
    """Ask for a role in an emergency: another person must consent, and everybody will know.

    Example: privyseal approval break-glass --app-id 042a1261 --role security-officer
    --reason "CI token leaked, nobody else reachable"
    """
    _ask(
        out,
        action="break-glass",
        resource=f"apps/{app_id}",
        role=role_number(role),
        ttl_seconds=minutes * 60,
        reason=reason,
    )


@command(commands, "list")
@ON
def list_approvals(out: Output, app_id: str) -> None:
    """List an app's requests, newest first.

    Example: privyseal approval list --app-id 042a1261
    """
    from privyseal.v1 import approval_service_pb2 as pb

    with connect() as to:
        listing = pb.ListApprovalsRequest(resource=f"apps/{app_id}")
        found = to.call(to.approvals.ListApprovals, listing).approvals
    rows = [_row(approval) for approval in found]
    out.done({"approvals": rows}, *(_line(r) for r in rows))


@command(commands, "approve")
@click.argument("name")
def approve(out: Output, name: str) -> None:
    """Consent to what another person asked for.

    Example: privyseal approval approve approvals/0a1b
    """
    from privyseal.v1 import approval_service_pb2 as pb

    with connect() as to:
        approval = to.call(to.approvals.Approve, pb.ApproveRequest(name=name)).approval
    out.done(_row(approval), _line(_row(approval)))


@command(commands, "reject")
@click.argument("name")
def reject(out: Output, name: str) -> None:
    """Refuse a request, or take your own back.

    Example: privyseal approval reject approvals/0a1b
    """
    from privyseal.v1 import approval_service_pb2 as pb

    with connect() as to:
        approval = to.call(to.approvals.Reject, pb.RejectRequest(name=name)).approval
    out.done(_row(approval), _line(_row(approval)))


def _row(approval: Any) -> dict[str, Any]:
    from privyseal.v1 import approval_service_pb2 as pb

    state = pb.ApprovalState.Name(approval.state).removeprefix("APPROVAL_STATE_").lower()
    row = {
        "approval": approval.name,
        "state": state,
        "action": approval.action,
        "resource": approval.resource,
        "subject": approval.subject,
        "requester": approval.requester,
        "beneficiary": approval.beneficiary,
        "reason": approval.reason,
        "needed": approval.needed,
        "approvers": list(approval.approvers),
        "uses": approval.uses,
        "used": approval.used,
        "ref": approval.ref,
        "workflow": approval.workflow,
        "role": role_name(approval.role) if approval.role else "",
        "expireTime": approval.expire_time.ToJsonString(),
    }
    return {name: value for name, value in row.items() if value not in ("", [])}


def _line(row: dict[str, Any]) -> str:
    what = row.get("subject") or row.get("role") or row.get("ref") or row["resource"]
    count = f"{len(row.get('approvers', []))}/{row['needed']}"
    return (
        f"{row['approval']}  {row['state']:<9} {count}  {row['action']:<15} {what}  "
        f"asked by {row['requester']}: {row['reason']}"
    )
