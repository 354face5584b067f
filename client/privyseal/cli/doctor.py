"""`privyseal doctor`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import Output, command, connect, id_of
from privyseal.errors import ClientError

commands = click.Group("doctor")
_SOON = 14
"""Days before a certificate's end from which it wants to be replaced."""


class _Checks:
    """What was looked at, and what came of it."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def add(self, name: str, text: str, *, ok: bool) -> None:
        self.made.append({"check": name, "ok": ok, "detail": text})

    @property
    def lines(self) -> list[str]:
        return [
            f"{'ok  ' if c['ok'] else 'MEND'}  {c['check']:<12} {c['detail']}" for c in self.made
        ]


@command(commands, "doctor")
@click.option(
    "--app-id",
    default="",
    envvar="PRIVYSEAL_APP_ID",
    callback=id_of,
    help="For a job CI vouches for.",
)
def doctor(out: Output, app_id: str) -> None:
    """Check the profile, the connection, the credential and the storage.

    Example: privyseal doctor
    """
    from privyseal.connection import load_profile

    checks = _Checks()
    options = click.get_current_context().find_root().params
    profile = load_profile(options.get("profile") or "", options.get("server") or "")
    checks.add("server", profile.server, ok=True)
    _credential(checks, profile)
    _storage(checks, profile)
    failure = _connection(checks, profile, app_id)
    status = "ok" if all(c["ok"] for c in checks.made) else "error"
    out.done({"status": status, "checks": checks.made}, *checks.lines)
    if failure is not None:
        sys.exit(failure.exit_code)
    if status != "ok":
        sys.exit(1)


def _credential(checks: _Checks, profile: Any) -> None:
    from privyseal import identity

    kind = "API token" if profile.token else "client certificate" if profile.certificate else ""
    if not kind:
        source = identity.find()
        kind = f"{source.name}, which vouches for this job" if source else ""
    checks.add("credential", kind or identity.hint() or "none is set", ok=bool(kind))
    if profile.certificate and not profile.token:
        text, ok = _until(profile.certificate)
        checks.add("certificate", text, ok=ok)


def _storage(checks: _Checks, profile: Any) -> None:
    from privyseal.storage import check, look

    where = profile.storage
    if not where:
        text = "none is set; only `publish` needs one (--storage, PRIVYSEAL_STORAGE)"
        checks.add("storage", text, ok=True)
        return
    try:
        check(where, profile.public_url)
    except ClientError as error:
        checks.add("storage", str(error), ok=False)
        return
    trouble = look(where)
    checks.add("storage", f"{where}: {trouble}" if trouble else where, ok=not trouble)


def _connection(checks: _Checks, profile: Any, app_id: str) -> ClientError | None:
    """Look at the daemon, and at what it says of who calls; return what kept it from that."""
    from privyseal import identity
    from privyseal.v1 import access_service_pb2 as pb

    if profile.anonymous and not app_id and identity.find():
        # Such a token counts for one app: without it, nobody is calling.
        failure = ClientError("say for which app this job signs: --app-id")
        checks.add("connection", str(failure), ok=False)
        return failure
    try:
        with connect() as to:
            if profile.anonymous and app_id:
                to.identify(f"apps/{app_id}")
            who = to.call(to.access.WhoAmI, pb.WhoAmIRequest())
            signs = to.serves()
    except ClientError as error:
        checks.add("connection", str(error), ok=False)
        return error
    checks.add("connection", f"daemon {who.server_version}", ok=True)
    _server_certificate(checks, profile.server)
    checks.add(
        "signing",
        "the daemon can sign"
        if signs
        else "the daemon does not sign now: its keyholders are down, its database is an old copy "
        "or cannot be written, or its clock is behind; its own log says which",
        ok=signs,
    )
    checks.add("principal", who.principal, ok=True)
    checks.add("grants", _grants(who.grants), ok=bool(who.grants))
    return None


def _server_certificate(checks: _Checks, server: str) -> None:
    """Look until when the daemon's certificate counts; that it is the daemon's, gRPC has seen."""
    import ssl

    host, _, port = server.rpartition(":")
    try:
        pem = ssl.get_server_certificate((host.strip("[]"), int(port)), timeout=5)
        told, ok = _ends(pem.encode(), "renew it there with `privyseald renew-server-certificate`")
    except (OSError, ValueError):
        return
    if not ok:
        checks.add("server", f"its certificate {told}", ok=False)


def _until(certificate: Path) -> tuple[str, bool]:
    """Return until when a client certificate counts, and whether that is some time yet."""
    try:
        return _ends(
            certificate.read_bytes(), "have another issued with `privyseald issue-certificate`"
        )
    except (OSError, ValueError):
        return f"{certificate} cannot be read", False


def _ends(pem: bytes, remedy: str) -> tuple[str, bool]:
    from cryptography import x509

    found = x509.load_pem_x509_certificate(pem)
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    told = f"counts until {ends:%Y-%m-%d %H:%M} UTC"
    # One that lives for hours is replaced by who gave it.
    if ends - datetime.now(UTC) >= min(timedelta(days=_SOON), (ends - begins) / 6):
        return told, True
    return f"{told}; {remedy}", False


def _grants(grants: Any) -> str:
    """Return what somebody may do where, at most twenty of them."""
    from privyseal.cli.common import role_name

    told = [f"{role_name(g.role)} on {g.resource}" for g in grants]
    return ", ".join(told[:20]) + (f" and {len(told) - 20} more" if len(told) > 20 else "")
