"""What the commands of `privyseald` share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
from pydantic import ValidationError
from pydantic_settings import SettingsError

from privyseald.config import Settings, load


class _NamedPath(click.Path):
    """A path, which an empty text is not: it would be the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; is a variable unset?", param, ctx)
        return super().convert(value, param, ctx)


PATH = _NamedPath(path_type=Path)
DATA = click.option(
    "--data",
    type=PATH,
    default=Path("privyseal-data"),
    envvar="PRIVYSEALD_DATA",
    show_default=True,
    help="The data directory.",
)


def fail(message: str) -> NoReturn:
    """Say what is wrong in a line and exit with 1."""
    click.echo(f"privyseald: {message}", err=True)
    sys.exit(1)


def read_settings(data: Path) -> Settings:
    """Return the settings in a data directory; exit with 1 if they are wrong."""
    try:
        return load(data.resolve())
    except ValidationError as error:
        told = (
            ".".join(map(str, e["loc"])) + ": " + e["msg"].removeprefix("Value error, ")
            for e in error.errors()
        )
        fail(f"settings (privyseald.toml and PRIVYSEALD_* variables): {'; '.join(told)}")
    except SettingsError as error:
        fail(f"settings: {error}")
    except ValueError as error:
        fail(f"privyseald.toml is no TOML: {error}")
    except OSError as error:
        fail(f"privyseald.toml cannot be read: {error.strerror}")


def read_secret(file: Path | None, prompt: str, *, confirm: bool = False) -> str:
    """Return a secret of a person's: from a file, or typed without being shown.

    Args:
        file: The file; None to ask.
        prompt: What to ask.
        confirm: Ask twice, since a typo would lose what it shall open.

    Raises:
        OSError: If the file cannot be read, or there is no terminal to ask on.
    """
    if file is None and not _can_ask():
        raise OSError(
            f"{prompt.lower()} is asked for on a terminal, and there is none; name a file that has "
            "it (--help says how)"
        )
    if file is None:
        return str(click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=confirm))
    try:
        return file.read_text().rstrip("\r\n")
    except UnicodeDecodeError:
        raise OSError(f"{file} is no text") from None


def _can_ask() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin is not None and sys.stdin.isatty()
    return True


def show_now(lines: Iterable[str]) -> None:
    """Print lines, and return only when standard output took them.

    Raises:
        OSError: If it did not; what was not taken is dropped.
    """
    try:
        for line in lines:
            click.echo(line)
        sys.stdout.flush()
    except OSError:
        # The interpreter would try again at exit, and fail with a trace and a code of its own.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        raise
