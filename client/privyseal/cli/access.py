"""`privyseal access`: tokens and certificates."""

from __future__ import annotations

import click

from privyseal.cli.common import ON, ROLES, Output, command, connect, role_number, time_text

commands = click.Group("access", help="API tokens, and certificates that are denied.")


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
            roles=[role_number(r) for r in role],
            resource=f"apps/{app_id}",
        )
        made = to.call(to.access.CreateToken, request)
    name = made.token.name
    out.reached = f"nobody has the secret: revoke it with `privyseal access revoke-token {name}`"
    out.note(f"created {made.token.name}, until {time_text(made.token.expire_time)}; shown once:")
    out.done({"token": made.token.name, "secret": made.secret}, made.secret)


@command(commands, "list-tokens")
def list_tokens(out: Output) -> None:
    """List the API tokens, newest first; their secrets are kept nowhere.

    Example: privyseal access list-tokens
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        found = to.call(to.access.ListTokens, pb.ListTokensRequest()).tokens
    rows = [
        {
            "token": t.name,
            "name": t.display_name,
            "revoked": t.revoked,
            "expireTime": time_text(t.expire_time),
        }
        for t in found
    ]
    lines = (
        f"{r['token']:<24} {'revoked' if r['revoked'] else 'until ' + r['expireTime']}  {r['name']}"
        for r in rows
    )
    out.done({"tokens": rows}, *lines)


@command(commands, "revoke-token")
@click.argument("name")
def revoke_token(out: Output, name: str) -> None:
    """Revoke a token at once; its name is in `list-tokens`, and its id in the secret itself.

    Example: privyseal access revoke-token tokens/Xy12
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        to.call(to.access.RevokeToken, pb.RevokeTokenRequest(name=name))
    out.done({"token": name, "revoked": True}, f"revoked {name}")


@command(commands, "deny-certificate")
@click.argument("serial")
@click.option("--reason", required=True)
def deny_certificate(out: Output, serial: str, reason: str) -> None:
    """Deny a client certificate by its serial number, at once.

    Example: privyseal access deny-certificate 4f2a91 --reason "laptop lost"
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        request = pb.DenyCertificateRequest(serial=serial, reason=reason)
        denied = to.call(to.access.DenyCertificate, request).certificate
    out.done(
        {"serial": denied.serial, "denied": True},
        f"denied {denied.serial}; no list of certificates is kept, so see that the number is right",
    )


@command(commands, "list-denied-certificates")
def list_denied(out: Output) -> None:
    """List the client certificates that are denied.

    Example: privyseal access list-denied-certificates
    """
    from privyseal.v1 import access_service_pb2 as pb

    with connect() as to:
        found = to.call(to.access.ListDeniedCertificates, pb.ListDeniedCertificatesRequest())
    rows = [
        {
            "serial": c.serial,
            "reason": c.reason,
            "by": c.principal,
            "time": time_text(c.create_time),
        }
        for c in found.certificates
    ]
    out.done({"certificates": rows}, *(f"{r['serial']}  {r['time']}  {r['reason']}" for r in rows))
