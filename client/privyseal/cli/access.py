"""`privyseal access`: tokens and grants."""

from __future__ import annotations

from typing import Any

import click

from privyseal.cli.common import Output, command, connect, time_text

commands = click.Group("access", help="Tokens and grants.")
ROLES = ["admin", "security-officer", "signer", "releaser", "auditor"]
ON = click.option("--app-id", default="-", help="The app; all of them if absent.")


def _role(name: str) -> Any:
    from privyseal.v1 import types_pb2

    return types_pb2.Role.Value("ROLE_" + name.upper().replace("-", "_"))


@command(commands, "create-token")
@ON
@click.option("--name", required=True, help="For people.")
@click.option("--role", multiple=True, required=True, type=click.Choice(ROLES))
@click.option("--days", default=90, show_default=True, type=click.IntRange(1, 366))
def create_token(out: Output, app_id: str, name: str, role: tuple[str, ...], days: int) -> None:
    """Create an API token; its secret is shown once, on standard output.

    Example: privyseal access create-token --app-id 042a1261 --name ci --role signer
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        request = pb.CreateTokenRequest(
            display_name=name,
            ttl_seconds=days * 86400,
            roles=[_role(r) for r in role],
            resource=f"apps/{app_id}",
        )
        made = to.call(to.access.CreateToken, request)
    out.note(f"created {made.token.name}, until {time_text(made.token.expire_time)}; shown once:")
    out.done({"token": made.token.name, "secret": made.secret}, made.secret)


@command(commands, "revoke-token")
@click.argument("name")
def revoke_token(out: Output, name: str) -> None:
    """Revoke a token at once.

    Example: privyseal access revoke-token tokens/Xy12
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        to.call(to.access.RevokeToken, pb.RevokeTokenRequest(name=name))
    out.done({"token": name, "revoked": True}, f"revoked {name}")


@command(commands, "grant")
@ON
@click.option("--principal", required=True, help="token:ID or certificate:NAME.")
@click.option("--role", required=True, type=click.Choice(ROLES))
def grant(out: Output, app_id: str, principal: str, role: str) -> None:
    """Give a principal a role.

    Example: privyseal access grant --principal certificate:alice --role auditor
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        request = pb.CreateGrantRequest(
            principal=principal, role=_role(role), resource=f"apps/{app_id}"
        )
        made = to.call(to.access.CreateGrant, request).grant
    out.done({"grant": made.name}, f"created {made.name}")


@command(commands, "revoke-grant")
@click.argument("name")
def revoke_grant(out: Output, name: str) -> None:
    """Take a grant back at once.

    Example: privyseal access revoke-grant grants/0a1b
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        to.call(to.access.RevokeGrant, pb.RevokeGrantRequest(name=name))
    out.done({"grant": name, "revoked": True}, f"revoked {name}")


@command(commands, "list")
@ON
def list_grants(out: Output, app_id: str) -> None:
    """List the grants on an app.

    Example: privyseal access list --app-id 042a1261
    """
    from privyseal.v1 import access_service_pb2 as pb
    from privyseal.v1 import types_pb2

    with connect() as to:
        request = pb.ListGrantsRequest(resource=f"apps/{app_id}")
        found = to.call(to.access.ListGrants, request).grants
    rows = [
        {
            "grant": g.name,
            "principal": g.principal,
            "role": types_pb2.Role.Name(g.role)[5:].lower().replace("_", "-"),
            "resource": g.resource,
        }
        for g in found
    ]
    lines = (f"{r['grant']}  {r['principal']:<28} {r['role']:<18} {r['resource']}" for r in rows)
    out.done({"grants": rows}, *lines)
