"""`privyseal grant`: who has which role where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import (
    ON,
    PATH,
    ROLES,
    Output,
    command,
    connect,
    pairs,
    read_text,
    role_name,
    role_number,
)

commands = click.Group("grant", help="Who has which role where.")
_IDS = {
    "github_repository_id": ("github", "--github-repository-id"),
    "gitlab_project_id": ("gitlab", "--gitlab-project-id"),
    "workload_id": ("", "--workload-id"),
}
_NARROWING = ("ref", "environment", "workflow", "runner")


@command(commands, "create")
@ON
@click.option("--role", required=True, type=click.Choice(ROLES))
@click.option("--principal", default="", help="token:ID, certificate:NAME or a SPIFFE ID.")
@click.option("--github-repository-id", default="", help="A GitHub repository, by its number.")
@click.option("--gitlab-project-id", default="", help="A GitLab project, by its number.")
@click.option("--workload-id", default="", help="The immutable id of another workload.")
@click.option("--issuer", default="", help="Its issuer; github or gitlab if absent.")
@click.option("--from-token", type=PATH, help="A file with an identity token of it; - for stdin.")
@click.option("--ref", default="", help="Only for this ref, such as refs/heads/main.")
@click.option("--environment", default="", help="Only for this deployment environment.")
@click.option("--workflow", default="", help="Only for this workflow, as the token names it.")
@click.option("--runner", type=click.Choice(["hosted", "self-hosted"]), help="Only on these.")
@click.option("--condition", multiple=True, help="Any other: ATTRIBUTE=VALUE; repeatable.")
def create(
    out: Output,
    app_id: str,
    from_token: Path | None,
    condition: tuple[str, ...],
    **values: Any,
) -> None:
    """Give a person, a machine or a CI workload a role.

    A workload is named by an id that never changes. With --from-token, the id is looked up
    in one of its tokens, and the repository's name is pinned too: renaming it, or taking
    its name over, ends the grant.

    Example: privyseal grant create --app-id 042a1261 --role signer
    --github-repository-id 456789 --ref refs/heads/main
    """
    from privyseal.v1 import access_service_pb2 as pb

    named = {n: v for n in _NARROWING if (v := values[n])}
    ids = {n: v for n in _IDS if (v := values[n])}
    conditions = {**pairs(condition, "--condition"), **named}
    principal, issuer, role = values["principal"], values["issuer"], values["role"]
    with connect() as to:
        if from_token is not None:
            token = read_text(from_token, "identity token").strip()
            request = pb.InspectTokenRequest(resource=f"apps/{app_id}", id_token=token)
            found = to.call(to.access.InspectToken, request)
            if name := found.attributes.get("repository"):
                conditions = {"repository": name, **conditions}
            out.note(f"the token is of {found.principal}, {name or 'no repository'}")
            principal = found.principal
        made = to.call(
            to.access.CreateGrant,
            pb.CreateGrantRequest(
                principal=_principal(principal, issuer, ids, looked_up=from_token is not None),
                role=role_number(role),
                resource=f"apps/{app_id}",
                conditions=conditions,
            ),
        ).grant
    out.done(_row(made), f"created {made.name}: {_line(_row(made))}")


def _principal(principal: str, issuer: str, ids: dict[str, str], *, looked_up: bool) -> str:
    """Return the one principal that the options name."""
    if len(ids) + bool(principal) != 1:
        raise click.UsageError(
            "name one: --principal, --github-repository-id, --gitlab-project-id, --workload-id "
            "or --from-token"
        )
    if principal:
        if principal.startswith("workload:") and issuer and not looked_up:
            raise click.UsageError("--issuer goes with an id, not with --principal")
        return principal
    (kind, value) = next(iter(ids.items()))
    usual, option = _IDS[kind]
    if not (issuer or usual):
        raise click.UsageError(f"{option} needs --issuer")
    return f"workload:{issuer or usual}:{value}"


@command(commands, "revoke")
@click.argument("name")
def revoke(out: Output, name: str) -> None:
    """Take a grant back at once.

    Example: privyseal grant revoke grants/0a1b
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        to.call(to.access.RevokeGrant, pb.RevokeGrantRequest(name=name))
    out.done({"grant": name, "revoked": True}, f"revoked {name}")


@command(commands, "list")
@ON
@click.option("--principal", default="", help="Only those of this one, such as certificate:ada.")
def list_grants(out: Output, app_id: str, principal: str) -> None:
    """List the grants on an app and on all apps; without an app, every grant.

    Example: privyseal grant list --app-id 042a1261
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        request = pb.ListGrantsRequest(resource=f"apps/{app_id}")
        found = to.call(to.access.ListGrants, request).grants
    rows = [_row(grant) for grant in found if principal in {"", grant.principal}]
    out.done({"grants": rows}, *(f"{r['grant']}  {_line(r)}" for r in rows))


def _row(grant: Any) -> dict[str, Any]:
    row = {
        "grant": grant.name,
        "principal": grant.principal,
        "role": role_name(grant.role),
        "resource": grant.resource,
        "conditions": dict(grant.conditions),
    }
    if grant.HasField("expire_time"):
        row["expireTime"] = grant.expire_time.ToJsonString()
    if grant.break_glass:
        row["breakGlass"] = True
    return row


def _line(row: dict[str, Any]) -> str:
    conditions = " ".join(f"{k}={v}" for k, v in sorted(row["conditions"].items()))
    until = f"until {row['expireTime']}" if "expireTime" in row else ""
    text = f"{row['principal']:<28} {row['role']:<17} {row['resource']:<15} {conditions} {until}"
    return text.rstrip()
