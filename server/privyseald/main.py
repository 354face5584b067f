"""The command line of `privyseald`: the daemon, its set-up, and what keeps it in order."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import structlog
import uvloop
from privyseal import __version__
from sqlalchemy.exc import SQLAlchemyError

from privyseald import bootstrap, data_dir, kek_cli, recovery_cli, setup, wiring
from privyseald.adapters import pki
from privyseald.adapters.policies_trial import STACK
from privyseald.cli import DATA, PATH, fail, read_secret, read_settings
from privyseald.config import Settings, unknown_variables
from privyseald.keyholder.keystores import HsmDownError
from privyseald.model.errors import DomainError, explain


def configure_logging(level: int = logging.WARNING) -> None:
    """Log JSON lines to standard error; no tracebacks, which could show what is in memory.

    Args:
        level: The least that is worth a line.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Holds keys, signs releases, serves devices.

    Example: privyseald init --data ./data && privyseald serve --data ./data
    """
    configure_logging()


@main.command()
@DATA
@click.option("--host", multiple=True, help="A name or address of this server; repeatable.")
def init(data: Path, host: tuple[str, ...]) -> None:
    """Make a data directory: CA, certificates, keys, log, first admin.

    The admin's certificate counts for 90 days, the server's for 825; `issue-certificate` and
    `renew-server-certificate` make the next.
    """
    settings = read_settings(data)
    _require(pki.require_host, host)
    try:
        uvloop.run(setup.initialise(settings, list(host)))
    except FileExistsError:
        fail(
            f"{data} holds a data directory already, or what an interrupted `init` left; "
            "nothing was changed"
        )
    except (OSError, DomainError) as error:
        fail(f"cannot initialise: {error}")
    click.echo(f"data directory   {data}")
    click.echo(f"log key          {data / 'log.vkey'}  (give it to who verifies receipts)")
    click.echo(f"admin's profile  {data / 'admin' / 'profile.toml'}  (keep it safe)")
    click.echo(f"next             privyseald serve --data {data}")


@main.command()
@DATA
def serve(data: Path) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C."""
    configure_logging(logging.INFO)
    settings = read_settings(data)
    if not (data / "log.vkey").exists():
        fail(
            f"{data} is not a whole data directory; make one with `privyseald init --data {data}`"
            ", after what an interrupted one left is removed"
        )
    _require_log(settings)
    try:
        data_dir.hold(data, alone=False)
    except (data_dir.InUseError, OSError) as error:
        fail(f"cannot serve: {error}")
    for name in unknown_variables(os.environ):
        structlog.get_logger("privyseald").warning("no setting has this name", variable=name)
    with contextlib.suppress(OSError):
        # What wakes does not take the core from what runs: a tenth to a sixth more signatures
        # where callers are many. Custodian and keyholders inherit it.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Whatever the shell's limit is: policies were tried with an eighth of this.
    threading.stack_size(STACK)
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < STACK:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_STACK, (STACK, hard))
    sys.setswitchinterval(0.002)  # the store's thread must not hold up the loop for long
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        # The usual 1,024 are soon taken by connections, and then no file is opened either.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    try:
        uvloop.run(bootstrap.serve(settings))
    except (OSError, DomainError) as error:
        fail(f"cannot serve: {error}")
    except SQLAlchemyError as error:
        fail(f"cannot serve: the database cannot be used ({explain(error)})")
    except ValueError as error:
        fail(f"cannot serve: a file of {data} is damaged ({explain(error)})")


def _require_log(settings: Settings) -> None:
    """Exit with 1 if the settings name another log than the directory's, which no key would fit."""
    name = (settings.data / "log.vkey").read_text("utf-8", "replace").partition("+")[0]
    if name != settings.log_origin:
        fail(
            f"log_origin is {settings.log_origin}, and the log of {settings.data} is {name}: its "
            "name never changes; set it back"
        )


@main.command("token-login")
@DATA
def token_login(data: Path) -> None:
    """Try the token's PIN once, after a refusal was set right.

    Tokens lock after a few wrong PINs, so that the daemon stops after one. When this has
    succeeded, a running daemon goes on by itself.
    """
    settings = read_settings(data)
    try:
        wiring.login_to_token(settings, lambda prompt: read_secret(None, prompt))
    except (HsmDownError, OSError, ValueError) as error:
        fail(f"cannot log in: {error}")
    click.echo("the token took the PIN")


def _require(check: Callable[[str], None], values: Iterable[str]) -> None:
    try:
        for value in values:
            check(value)
    except ValueError as error:
        fail(str(error))


@main.command("renew-server-certificate")
@DATA
@click.option("--host", multiple=True, help="A name or address of this server; repeatable.")
def renew_server_certificate(data: Path, host: tuple[str, ...]) -> None:
    """Issue the server's certificate anew, for 825 days; a running daemon takes it up by itself.

    Its names stay as they are unless --host names others.

    Example: privyseald renew-server-certificate --data ./data --host sign.example.com
    """
    settings = read_settings(data)
    _require(pki.require_host, host)
    try:
        names = setup.renew_server(settings, list(host))
    except (OSError, ValueError) as error:
        fail(f"cannot renew: {error}")
    click.echo(f"the server's certificate is for {', '.join(names)}")


@main.command("issue-certificate")
@DATA
@click.argument("name")
@click.option("--out", type=PATH, required=True, help="A new folder.")
def issue_certificate(data: Path, name: str, out: Path) -> None:
    """Issue a client certificate for a person or a machine, with a profile that uses it.

    It counts for 90 days, and can do nothing before an admin grants it a role, as
    `certificate:NAME`. Issued again under the same name, it may do the same.
    """
    settings = read_settings(data)
    _require(pki.require_client, (name,))
    if not (data / "log.vkey").exists():
        fail(f"{data} is not a data directory; name it with --data")
    if not os.access(data / "tls/ca.key", os.R_OK):
        fail(f"cannot issue: {data / 'tls/ca.key'} cannot be read")
    try:
        out.mkdir(mode=0o700)
        setup.issue_client(settings, name, out)
    except OSError as error:
        fail(f"cannot issue: {error.strerror}: {out}")
    click.echo(f"profile    {out / 'profile.toml'}")
    click.echo(f"principal  certificate:{name}")


main.add_command(recovery_cli.restore)
main.add_command(recovery_cli.accept_loss)
main.add_command(kek_cli.unseal)
main.add_command(kek_cli.kek)

if __name__ == "__main__":
    main()
