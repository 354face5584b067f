"""Options and output that every command shares."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from privyseal.errors import ClientError
from privyseal.verify.errors import VerificationError

_REDRAW = 0.2
_PIPE_CLOSED = 128 + signal.SIGPIPE
_MAY_BE_EMPTY = frozenset({"commit_message", "commit_ref"})
F = TypeVar("F", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """A path, which an empty text is not: it would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


def refuse_empty(ctx: click.Context) -> None:
    """Refuse options that were given an empty text: most often a variable that is not set.

    Taken as absent, they would widen what they were to narrow.

    Raises:
        BadParameter: If there is one.
    """
    for param in ctx.command.params:
        name = str(param.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        value = ctx.params.get(name)
        if not given or name in _MAY_BE_EMPTY:
            continue
        if value == "" or (isinstance(value, tuple) and "" in value):
            raise click.BadParameter("is empty; is a variable unset?", ctx=ctx, param=param)


class StrictCommand(click.Command):
    """A command whose options are not empty."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse what is empty."""
        rest = super().parse_args(ctx, args)
        refuse_empty(ctx)
        return rest


PATH = _NamedPath(path_type=Path)


def id_of(_context: click.Context, _option: click.Parameter, value: str) -> str:
    """Take an app's name, apps/042a1261, for its id."""
    return value.removeprefix("apps/")


APP = click.option(
    "--app-id", required=True, envvar="PRIVYSEAL_APP_ID", callback=id_of, help="The app's id."
)
KEY = click.option("--key", "key", default="capawesome-v1", show_default=True, help="The key's id.")
ON = click.option("--app-id", default="-", callback=id_of, help="The app; all of them if absent.")
ROLES = [
    *("admin", "security-officer", "signer", "releaser", "auditor", "approver", "responder"),
]

SCHEMES = [
    *("capawesome-v1", "capgo-v2", "codepush-v1", "expo-v1", "expo-root-v1", "minisign"),
    *("sparkle-ed25519", "statement-ml-dsa-v1"),
]


class Output:
    """Prints for people, or JSON with --json."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.reached = ""
        """What was done already, and how to go on, where it is interrupted or fails."""

    def done(self, values: dict[str, Any], *lines: str) -> None:
        """Print the result of a command: an object, or lines."""
        # Also where Appflow's commands have no word of it, so that one rule reads them all.
        values = {"status": "ok", **values}
        told = [json.dumps(values)] if self.as_json else [printable(line) for line in lines]
        try:
            for line in told:
                click.echo(line)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:
            # Who read has enough; nobody is left to be told anything.
            _to_nowhere()
            sys.exit(_PIPE_CLOSED)
        except OSError as error:
            _to_nowhere()
            raise ClientError(f"cannot write to standard output: {error.strerror}") from None

    @contextlib.contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far something is: on a terminal, and if it takes longer than a second."""
        shown = sys.stderr.isatty() and not self.as_json
        begun = last = time.monotonic()
        drawn = False

        def tell(done: int, total: int) -> None:
            nonlocal last, drawn
            now = time.monotonic()
            if shown and now - begun > 1 and now - last > _REDRAW:
                last, drawn = now, True
                click.echo(f"\r{what}: {100 * done // max(1, total)} %", err=True, nl=False)

        try:
            yield tell
        finally:
            if drawn:
                # To the beginning of the line, and what is on it away.
                click.echo("\r\x1b[K", err=True, nl=False)

    def note(self, text: str) -> None:
        """Say something on the way; on standard error."""
        if not self.as_json:
            click.echo(printable(text), err=True)


def _to_nowhere() -> None:
    """Drop what standard output has not taken: at exit it would be tried again, with a trace."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# Control characters but for tabs and line ends, and marks that change the direction of text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text that does nothing to a terminal but fill it: others may have written it."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def command(
    group: click.Group, name: str, *, aliases: tuple[str, ...] = (), **settings: Any
) -> Callable[[F], F]:
    """Add a command with --json, whose errors become a line and an exit code."""

    def add(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, output: str, **values: Any) -> None:
            as_json = as_json or output == "json"
            out = Output(as_json=as_json)
            try:
                function(out, *args, **values)
            except VerificationError as error:
                _fail(str(error), 4, as_json=as_json)
            except ClientError as error:
                told = "; ".join(filter(None, (str(error), out.reached)))
                _fail(told, error.exit_code, as_json=as_json)
            except (click.ClickException, click.exceptions.Exit, click.Abort):
                raise
            except Exception as error:
                if os.environ.get("PRIVYSEAL_DEBUG"):
                    raise
                _fail(
                    f"a fault of privyseal's own ({type(error).__name__}); report it, with what "
                    "PRIVYSEAL_DEBUG=1 shows",
                    1,
                    as_json=as_json,
                )
            except KeyboardInterrupt:
                _fail("; ".join(filter(None, ("interrupted", out.reached))), 130, as_json=as_json)

        flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
        # Appflow's way to say the same.
        form = click.option(
            "--output", type=click.Choice(["text", "json"]), default="text", hidden=True
        )
        made = group.command(name, cls=StrictCommand, **settings)(flag(form(run)))
        for alias in aliases:
            same = copy.copy(made)
            same.hidden = True
            group.add_command(same, alias)
        return function

    return add


def _fail(message: str, code: int, *, as_json: bool) -> None:
    line = " ".join(message.split())
    if as_json:
        click.echo(json.dumps({"status": "error", "error": line}))
    click.echo(f"privyseal: {printable(line)}", err=True)
    sys.exit(code)


def connect() -> Any:
    """Return a connection with the profile of the command line."""
    from privyseal.connection import Connection, load_profile

    context = click.get_current_context()
    options = context.find_root().params
    profile = load_profile(options.get("profile") or "", options.get("server") or "")
    # On standard error, also with --json: who signs is never a secret to who signs.
    return Connection(profile, lambda text: click.echo(text, err=True))


def time_text(stamp: Any) -> str:
    """Return a timestamp for people and programs alike."""
    return str(stamp.ToJsonString())


def set_time(stamp: Any, text: str, option: str) -> None:
    """Set a Timestamp to what an option says; not at all if that is empty.

    Raises:
        UsageError: If it says no time.
    """
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        text += "T00:00:00Z"
    try:
        if text:
            stamp.FromJsonString(text)
    except ValueError:
        raise click.UsageError(
            f"{option} must be a time such as 2026-11-24T10:00:00Z, or a day such as 2026-11-24"
        ) from None


def role_number(name: str) -> Any:
    """Return the enum value of a role."""
    from privyseal.v1 import types_pb2

    return types_pb2.Role.Value("ROLE_" + name.upper().replace("-", "_"))


def role_name(number: Any) -> str:
    """Return the name of a role."""
    from privyseal.v1 import types_pb2

    return types_pb2.Role.Name(number).removeprefix("ROLE_").lower().replace("_", "-")


def enum_name(prefix: str, value: str) -> str:
    """Return the name that a value of an enum has in the protocol."""
    return f"{prefix}_{value.upper().replace('-', '_')}"


def embedded_text(scheme: str, version: Any) -> str:
    """Return what devices of a scheme embed of a key version: its public key, or certificate."""
    from ssl import DER_cert_to_PEM_cert

    from cryptography.x509 import load_der_x509_certificate

    from privyseal.verify.keys import load_public_key
    from privyseal.verify.schemes import public_key_text

    key = load_public_key(version.public_key.encode())
    if not version.certificate:
        return public_key_text(scheme, key)
    try:
        same = load_der_x509_certificate(version.certificate).public_key() == key
    except ValueError:
        same = False
    if not same:
        raise VerificationError(f"the certificate of {version.name} is of another key than its own")
    return DER_cert_to_PEM_cert(version.certificate)


def read_text(path: Path, what: str) -> str:
    """Return the text in a file of the user's, or on standard input for `-`."""
    try:
        if str(path) == "-" and sys.stdin is None:
            raise ClientError(f"cannot read the {what}: standard input is closed")
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise ClientError(f"cannot read the {what} {path}: {why}") from None


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """Return NAME=VALUE options as a mapping."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            raise click.UsageError(f"{option} must be NAME=VALUE, got {value}")
        found[name] = text
    return found


def require_writable(path: Path) -> None:
    """Check that a file can be written, before anything is done for it. Raises ClientError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # It stays as it is; one that was not there is there for a moment.
        was = path.exists()
        with path.open("ab"):
            pass
        if not was:
            path.unlink()
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from None


def write_new(path: Path, data: bytes) -> None:
    """Write a file of the user's, its folders too. Raises ClientError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from None
