"""`privyseald unseal` and `privyseald kek`: who or what can open the keystore."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from privyseald import wiring
from privyseald.cli import DATA, PATH, fail, read_secret, read_settings, show_now
from privyseald.config import Settings
from privyseald.data_dir import hand_over
from privyseald.keyholder import kek as keks
from privyseald.keyholder import unseal_socket
from privyseald.keyholder.kek import RAW, RECORD, KekError, KekRecord
from privyseald.keyholder.keystores import HsmDownError, HsmSettings

_SECONDS = 30.0
Ask = Callable[[str], str]


def offer(data: Path, request: dict[str, str]) -> dict[str, Any]:
    """Offer a passphrase or a share to a sealed daemon, and return how far it is.

    Raises:
        KekError: If no sealed daemon listens, or it does not answer.
    """
    try:
        with (
            unseal_socket.address(data) as at,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to,
        ):
            to.settimeout(_SECONDS)
            to.connect(at)
            to.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(to.makefile().readline(65_536))
    except (OSError, ValueError):
        raise KekError("no sealed daemon listens in this data directory") from None
    return dict(answer)


def open_now(settings: Settings, token: HsmSettings | None, ask: Ask) -> bytes:
    """Return the key-encryption key, as its provider has it.

    Args:
        settings: Where the data directory is.
        token: The token, if there is one.
        ask: Asks a person for a secret.

    Raises:
        KekError, HsmDownError: If it does not open.
    """
    record = keks.read_record(settings.data)
    if record is None:
        try:
            return keks.read_kek_file(settings.data / RAW)
        except OSError:
            raise KekError("there is no key-encryption key in this data directory") from None
    if record.provider == "passphrase":
        return keks.open_with_passphrase(record, ask("Present passphrase"))
    if record.provider == "shares":
        threshold = int(record.params["threshold"])
        shares = [ask(f"Share {n} of {threshold}") for n in range(1, threshold + 1)]
        return keks.join(record, [keks.share_words(share) for share in shares])
    if record.provider == "credential":
        return keks.open_credential(record)
    if record.provider == "aws-kms":
        # Here, so that who does not use it needs no library of AWS.
        from privyseald.keyholder.aws_kek import open_with_aws

        return open_with_aws(record)
    from privyseald.keyholder.token_kek import open_with_token

    return open_with_token(record, _needed(token, ask))


def _needed(token: HsmSettings | None, ask: Ask) -> HsmSettings:
    if token is None:
        raise KekError("there is no [hsm] in the settings")
    return replace(token, typed=ask("PIN")) if token.pin_prompt else token


def seal_anew(
    kek: bytes, provider: str, token: HsmSettings | None, aws_key_id: str, ask: Ask
) -> KekRecord | None:
    """Seal the key for another provider, and see that it opens again.

    None is a file that holds it as it is.

    Raises:
        KekError, HsmDownError: If the provider cannot be used.
    """
    if provider == "passphrase":
        passphrase = ask("New passphrase")
        record = keks.seal_with_passphrase(kek, passphrase)
        keks.open_with_passphrase(record, passphrase)
        return record
    if provider == "token":
        from privyseald.keyholder.token_kek import open_with_token, seal_with_token

        settings = _needed(token, ask)
        record = seal_with_token(kek, settings)
        open_with_token(record, settings)
        return record
    if provider == "aws-kms":
        from privyseald.keyholder.aws_kek import open_with_aws, seal_with_aws

        if not aws_key_id:
            raise KekError("--aws-key-id is missing")
        record = seal_with_aws(kek, aws_key_id)
        open_with_aws(record)
        return record
    if provider == "credential":
        record = KekRecord("credential", keks.check_of(kek), {"name": "kek"})
        record.checked(keks.open_credential(record))
        return record
    return None


def put_in_place(data: Path, kek: bytes, record: KekRecord | None) -> None:
    """Put a provider in place of the present one, durably, and erase the key where it was.

    At each moment one of the two files is whole, so that a crash leaves a key that opens.
    """
    for leftover in (RAW, RECORD):
        # Of a run that was cut off; one of them can hold the key as it is.
        (data / f"{leftover}.new").unlink(missing_ok=True)
    if record is None:
        _write(data / RAW, kek)
        (data / RECORD).unlink(missing_ok=True)
    else:
        _write(data / RECORD, record.text().encode())
        (data / RAW).unlink(missing_ok=True)
    _sync(data)


def _write(path: Path, content: bytes) -> None:
    scratch = path.with_name(path.name + ".new")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    hand_over(scratch)
    scratch.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@click.command()
@DATA
@click.option("--secret-file", type=PATH, help="The secret is in here.")
def unseal(data: Path, secret_file: Path | None) -> None:
    """Give a sealed daemon a share, a passphrase or a PIN; it is asked for and not shown.

    Each officer runs this with a share of their own; the daemon opens with enough of them.

    Example: privyseald unseal --data /var/lib/privyseald
    """
    try:
        wants = offer(data, {})["wants"]
        state = offer(data, {wants: read_secret(secret_file, wants.capitalize())})
    except (KekError, OSError) as error:
        fail(str(error))
    if state["error"]:
        fail(str(state["error"]))
    if state["state"] == "open":
        click.echo("open")
    elif state["wants"] == "share":
        click.echo(f"sealed; {state['have']} of {state['need']} shares given")
    else:
        click.echo(f"sealed; it needs a {state['wants']}")


@click.group()
def kek() -> None:
    """The key-encryption key: who or what can open it."""


@kek.command("show")
@DATA
def show(data: Path) -> None:
    """Say how the key-encryption key is sealed.

    Example: privyseald kek show --data /var/lib/privyseald
    """
    try:
        record = keks.read_record(data)
    except KekError as error:
        fail(str(error))
    plain = (data / RAW).exists()
    if record is None and not plain:
        fail(f"there is no key-encryption key in {data}; name the data directory with --data")
    if record is not None and plain:
        fail(
            f"the key is sealed ({record.provider}), and {data / RAW} has it as it is, too: what a "
            "rewrap that was cut off left; if the daemon opens without it, remove it"
        )
    if record is None:
        click.echo("file  (as it is; who reads the data directory has it)")
    elif record.provider == "shares":
        click.echo(f"shares  {record.params['threshold']} of {record.params['shares']}")
    else:
        click.echo(record.provider)


@kek.command("rewrap")
@DATA
@click.option(
    "--to",
    "provider",
    type=click.Choice(["file", "passphrase", "shares", "token", "credential", "aws-kms"]),
    required=True,
)
@click.option("--threshold", default=2, show_default=True, help="Shares that open it.")
@click.option("--shares", default=3, show_default=True, help="Shares in all.")
@click.option("--aws-key-id", default="", help="Id, ARN or alias of a symmetric KMS key.")
@click.option(
    "--secret-file",
    type=PATH,
    multiple=True,
    help="What opens it now: the passphrase, or a share each.",
)
@click.option(
    "--new-secret-file",
    type=PATH,
    help="What shall open it from now on: a passphrase, or a prompted PIN.",
)
def rewrap(  # noqa: PLR0917 - options
    data: Path,
    provider: str,
    threshold: int,
    shares: int,
    aws_key_id: str,
    secret_file: tuple[Path, ...],
    new_secret_file: Path | None,
) -> None:
    """Seal the key-encryption key for another provider; a running daemon runs on.

    What opens it now is asked for first. Shares are printed once, and kept nowhere: give each
    to one officer.

    Example: privyseald kek rewrap --to shares --threshold 2 --shares 3
    """
    settings = read_settings(data)
    token = wiring.token_settings(settings)
    files = iter(secret_file)
    record: KekRecord | None
    try:
        key = open_now(settings, token, lambda prompt: read_secret(next(files, None), prompt))
        if provider == "shares":
            record, words = keks.split(key, threshold, shares)
            keks.join(record, words[-threshold:])
            # Before anything is replaced: shares that nobody has seen open nothing.
            show_now([f"share {n} of {shares}: {share}" for n, share in enumerate(words, 1)])
        else:
            record = seal_anew(
                *(key, provider, token, aws_key_id),
                lambda prompt: read_secret(new_secret_file, prompt, confirm=True),
            )
        put_in_place(settings.data, key, record)
    except (KekError, HsmDownError, OSError) as error:
        fail(f"nothing was changed: {error}")
    click.echo(f"the key-encryption key is sealed with: {provider}")
