"""Options of the verbs that make releases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from privyseal.cli.common import PATH, F

BUILD = click.option("--build-dir", type=PATH, required=True, help="The web build.")
PRIVATE = click.option(
    "--include-private", is_flag=True, help="Bundle .env, .git, private keys and the like, too."
)
COMMIT = (
    click.option("--commit-sha", default="", help="The commit, 7 to 64 hexadecimal digits."),
    click.option("--commit-ref", default="", help="The branch or tag."),
    click.option("--commit-message", default="", help="The commit's message."),
)
TYPE = click.option(
    "--artifact-type", type=click.Choice(["zip", "manifest"]), default="zip", show_default=True
)
RUNTIME = click.option(
    "--runtime-version",
    multiple=True,
    help="Of an Expo export, over its expoConfig.json; or android=… and ios=….",
)
VERSION = click.option("--version", "version", default="", help="The release's version.")
RANGES = tuple(
    click.option(f"--{platform}-{bound}", default="", help=f"{text} on {platform}.")
    for platform in ("android", "ios")
    for bound, text in (
        ("min", "Lowest native version"),
        ("max", "Highest native version"),
        ("eq", "The native version left out"),
    )
)


def KEPT(name: str) -> Callable[[F], F]:  # noqa: N802 - an option like the others
    """Refuse an option of Appflow's that takes a private key, and say where that is."""

    def refuse(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(
                f"{name} has no use here: private keys stay in the daemon; `privyseal key import` "
                "gives it one that you have"
            )

    return click.option(name, hidden=True, expose_value=False, callback=refuse)


def options(*decorators: Any) -> Callable[[F], F]:
    """Apply several options as one decorator."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def native_ranges(values: dict[str, str]) -> list[Any]:
    """Return the native ranges among a command's values."""
    from privyseal.v1 import types_pb2 as pb

    found = []
    for platform in ("android", "ios"):
        bounds = {b: values.get(f"{platform}_{b}", "") for b in ("min", "max", "eq")}
        if any(bounds.values()):
            number = pb.Platform.Value(f"PLATFORM_{platform.upper()}")
            found.append(pb.NativeRange(platform=number, **bounds))
    return found
