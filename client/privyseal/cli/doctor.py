"""`privyseal doctor`."""

from __future__ import annotations

import sys
from typing import Any

import click

from privyseal.cli.common import Output, command, connect
from privyseal.errors import ClientError

commands = click.Group("doctor")


@command(commands, "doctor")
@click.option("--app-id", default="", envvar="PRIVYSEAL_APP_ID", help="For a job CI vouches for.")
def doctor(out: Output, app_id: str) -> None:
    """Check the profile, the connection, the credential and the storage.

    Example: privyseal doctor
    """
    from privyseal import identity
    from privyseal.connection import load_profile
    from privyseal.storage import problem
    from privyseal.v1 import access_service_pb2 as pb

    checks: list[dict[str, Any]] = []

    def check(name: str, text: str, *, ok: bool) -> None:
        checks.append({"check": name, "ok": ok, "detail": text})

    options = click.get_current_context().find_root().params
    profile = load_profile(options.get("profile") or "", options.get("server") or "")
    kind = "API token" if profile.token else "client certificate" if profile.certificate else ""
    if not kind:
        source = identity.find()
        kind = f"{source.name}, which vouches for this job" if source else ""
    check("server", profile.server, ok=True)
    check("credential", kind or identity.hint() or "none is set", ok=bool(kind))
    where = profile.storage
    told = where or "none is set; only `publish` needs one (--storage, PRIVYSEAL_STORAGE)"
    trouble = problem(where) if where else ""
    check("storage", f"{told}: {trouble}" if trouble else told, ok=not trouble)
    failure: ClientError | None = None
    try:
        with connect() as to:
            if profile.anonymous and app_id:
                to.identify(f"apps/{app_id}")
            who = to.call(to.access.WhoAmI, pb.WhoAmIRequest())
            signs = to.serves()
        check("connection", f"daemon {who.server_version}", ok=True)
        check(
            "signing",
            "the daemon can sign"
            if signs
            else "the daemon does not sign now: its keyholders are down, or its database is an old "
            "copy; its own log says which",
            ok=signs,
        )
        check("principal", who.principal, ok=True)
        check("grants", _grants(who.grants), ok=bool(who.grants))
    except ClientError as error:
        failure = error
        check("connection", str(error), ok=False)
    lines = (f"{'ok  ' if c['ok'] else 'MEND'}  {c['check']:<12} {c['detail']}" for c in checks)
    out.done({"checks": checks}, *lines)
    if failure is not None:
        sys.exit(failure.exit_code)
    if not all(c["ok"] for c in checks):
        sys.exit(1)


def _grants(grants: Any) -> str:
    """Return what somebody may do where, at most twenty of them."""
    from privyseal.cli.common import role_name

    told = [f"{role_name(g.role)} on {g.resource}" for g in grants]
    return ", ".join(told[:20]) + (f" and {len(told) - 20} more" if len(told) > 20 else "")
