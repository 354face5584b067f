"""The command tree; each group is imported when one of its verbs is asked for."""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import click

from privyseal._version import __version__

GROUPS = {
    "access": "API tokens, and certificates that are denied.",
    "app": "Apps.",
    "approval": "Ask for the consent of others, and give it.",
    "backup": "Make, check and open backups.",
    "artifact": "Make what Capgo, CodePush, Expo, minisign and Sparkle want.",
    "ceremony": "Make keys from one reviewed file.",
    "deploy": "Point channels at releases.",
    "doctor": "Check the set-up and say what to mend.",
    "grant": "Who has which role where.",
    "key": "Keys and their versions.",
    "live-update": "Bundle, upload and register live updates.",
    "log": "The transparency log.",
    "native": "Store binaries, and the keys that they trust.",
    "policy": "The team's policies: apply, test, explain.",
    "publish": "Bundle, sign, upload, register and deploy in one command.",
    "rotation": "Rotate keys without stranding a device.",
    "verify": "Verify a bundle with its receipt, offline.",
}


_JSON = "privyseal.json"
"""In a context's `meta`: whether the result is asked for as JSON."""


def _values_of(option: str, args: list[str]) -> Iterator[str]:
    """Yield what an option is given, in either form."""
    for arg, following in itertools.pairwise([*args, ""]):
        if arg == option:
            yield following
        elif arg.startswith(option + "="):
            yield arg.partition("=")[2]


@contextlib.contextmanager
def _told_in_json(ctx: click.Context) -> Iterator[None]:
    """Tell programs of a command line that is wrong as of any other failure."""
    try:
        yield
    except click.ClickException as error:
        if ctx.meta[_JSON]:
            import json

            line = " ".join(error.format_message().split())
            click.echo(json.dumps({"status": "error", "error": line}))
        raise


class LazyGroup(click.Group):
    """A group that knows its verbs' names, and imports them when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return sorted(GROUPS)

    def get_command(
        self,
        ctx: click.Context,
        cmd_name: str,
    ) -> click.Command | None:
        """Return a verb."""
        if cmd_name not in GROUPS:
            return None
        module = importlib.import_module("privyseal.cli." + cmd_name.replace("-", "_"))
        found: click.Command = module.commands.commands.get(cmd_name, module.commands)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and refuse what is empty."""
        from privyseal.cli.common import refuse_empty

        ctx.meta[_JSON] = "--json" in args or "json" in _values_of("--output", args)
        with _told_in_json(ctx):
            rest = super().parse_args(ctx, args)
            refuse_empty(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; of Ctrl-C, also at a prompt, click itself would exit with 1."""
        try:
            with _told_in_json(ctx):
                return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("privyseal: interrupted", err=True)
            ctx.exit(130)

    def format_commands(
        self,
        ctx: click.Context,
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(GROUPS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="privyseal")
@click.option("--server", help="HOST:PORT of the daemon; over the profile's.")
@click.option("--profile", help="A profile file; else PRIVYSEAL_PROFILE or the user's own.")
def cli(**_: Any) -> None:
    """Sign web bundles with keys that CI cannot read.

    Example: privyseal publish --app-id 042a1261 --build-dir www --channel production
    """


def run() -> None:
    """Run the command line."""
    cli(prog_name="privyseal")
