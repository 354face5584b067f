"""`privyseal doctor`."""

from __future__ import annotations

import sys
from typing import Any

import click

from privyseal.cli.common import Output, command, connect
from privyseal.errors import ClientError

commands = click.Group("doctor")


@command(commands, "doctor")
def doctor(out: Output) -> None:
    """Check the profile, the connection, the credential and the storage.

    Example: privyseal doctor
    """
    from privyseal.connection import load_profile
    from privyseal.v1 import access_service_pb2 as pb

    checks: list[dict[str, Any]] = []

    def check(name: str, text: str, *, ok: bool) -> None:
        checks.append({"check": name, "ok": ok, "detail": text})

    options = click.get_current_context().find_root().params
    profile = load_profile(options.get("profile") or "", options.get("server") or "")
    kind = "API token" if profile.token else "client certificate" if profile.certificate else ""
    check("server", profile.server, ok=True)
    check("credential", kind or "none is set", ok=bool(kind))
    check("storage", profile.storage or "none is set (--storage)", ok=bool(profile.storage))
    failure: ClientError | None = None
    try:
        with connect() as to:
            who = to.call(to.access.WhoAmI, pb.WhoAmIRequest())
        check("connection", f"daemon {who.server_version}", ok=True)
        check("principal", who.principal, ok=True)
        check("grants", f"{len(who.grants)} grants", ok=bool(who.grants))
    except ClientError as error:
        failure = error
        check("connection", str(error), ok=False)
    lines = (f"{'ok  ' if c['ok'] else 'MEND'}  {c['check']:<12} {c['detail']}" for c in checks)
    out.done({"checks": checks}, *lines)
    if failure is not None:
        sys.exit(failure.exit_code)
