"""Options and output that every command shares."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from privyseal.errors import ClientError
from privyseal.verify.errors import VerificationError

F = TypeVar("F", bound=Callable[..., Any])
APP = click.option("--app-id", required=True, envvar="PRIVYSEAL_APP_ID", help="The app's id.")
PATH = click.Path(path_type=Path)


class Output:
    """Prints for people, or JSON with --json."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def done(self, values: dict[str, Any], *lines: str) -> None:
        """Print the result of a command: an object, or lines."""
        if self.as_json:
            click.echo(json.dumps(values))
        for line in () if self.as_json else lines:
            click.echo(line)

    def note(self, text: str) -> None:
        """Say something on the way; on standard error."""
        if not self.as_json:
            click.echo(text, err=True)


def command(group: click.Group, name: str, **settings: Any) -> Callable[[F], F]:
    """Add a command with --json, whose errors become a line and an exit code."""

    def add(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, **values: Any) -> None:
            try:
                function(Output(as_json=as_json), *args, **values)
            except VerificationError as error:
                _fail(str(error), 4, as_json=as_json)
            except ClientError as error:
                _fail(str(error), error.exit_code, as_json=as_json)
            except KeyboardInterrupt:
                _fail("interrupted; nothing half-done was left", 130, as_json=as_json)

        flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
        group.command(name, **settings)(flag(run))
        return function

    return add


def _fail(message: str, code: int, *, as_json: bool) -> None:
    line = " ".join(message.split())
    if as_json:
        click.echo(json.dumps({"status": "error", "error": line}))
    click.echo(f"privyseal: {line}", err=True)
    sys.exit(code)


def connect() -> Any:
    """Return a connection with the profile of the command line."""
    from privyseal.connection import Connection, load_profile

    options = click.get_current_context().find_root().params
    return Connection(load_profile(options.get("profile") or "", options.get("server") or ""))


def time_text(stamp: Any) -> str:
    """Return a timestamp for people and programs alike."""
    return str(stamp.ToJsonString())
