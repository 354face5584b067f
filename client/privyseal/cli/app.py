"""`privyseal app`."""

from __future__ import annotations

from pathlib import Path

import click

from privyseal.cli.common import PATH, Output, command, connect, id_of, require_writable, write_new
from privyseal.errors import ClientError

commands = click.Group("app", help="Apps.")


@command(commands, "create")
@click.option("--app-id", default="", callback=id_of, help="The id; made up if absent.")
@click.option("--name", default="", help="A name for people.")
@click.option("--statement-key", type=PATH, default=None, help="Where to write its public key.")
@click.option("--in-token", is_flag=True, help="Make the statement key in the daemon's HSM.")
def create(
    out: Output, app_id: str, name: str, statement_key: Path | None, *, in_token: bool
) -> None:
    """Create an app and its statement key.

    Example: privyseal app create --app-id 042a1261 --statement-key statement.pem
    """
    from privyseal.v1 import app_service_pb2 as pb

    if statement_key is not None and statement_key.exists():
        raise ClientError(f"{statement_key} exists; name another with --statement-key")
    if statement_key is not None:
        require_writable(statement_key)
    with connect() as to:
        request = pb.CreateAppRequest(app_id=app_id, display_name=name, in_token=in_token)
        made = to.call(to.apps.CreateApp, request)
    if statement_key is not None:
        out.reached = f"{made.app.name} is there; `privyseal key show --public` writes its key"
        write_new(statement_key, made.statement_public_key.encode())
    app = made.app.name.removeprefix("apps/")
    out.done(
        {"appId": app, "statementPublicKey": made.statement_public_key},
        f"created {made.app.name}",
        *([f"wrote {statement_key}: receipts are verified with it"] if statement_key else []),
    )


@command(commands, "list")
def list_apps(out: Output) -> None:
    """List the apps you may read.

    Example: privyseal app list
    """
    from privyseal.v1 import app_service_pb2 as pb

    rows, token = [], ""
    with connect() as to:
        while True:
            request = pb.ListAppsRequest(page_size=1000, page_token=token)
            page = to.call(to.apps.ListApps, request)
            rows += [{"appId": a.name[5:], "name": a.display_name} for a in page.apps]
            token = page.next_page_token
            if not token:
                break
    out.done({"apps": rows}, *(f"{r['appId']:<24} {r['name']}" for r in rows))
