"""`privyseal verify`: offline."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from privyseal.cli.common import PATH, Output, command
from privyseal.errors import ClientError

if TYPE_CHECKING:
    from privyseal.verify.note import NoteVerifier
    from privyseal.verify.receipt import Receipt

commands = click.Group("verify")


def read(path: Path, what: str) -> bytes:
    """Read a file. Raises ClientError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read the {what} {path}: {error.strerror}") from None


def read_log_key(path: Path) -> NoteVerifier:
    """Read the log's verifier key. Raises ClientError, VerificationError."""
    from privyseal.verify.note import NoteVerifier

    return NoteVerifier.parse(read(path, "log key").decode("utf-8", "replace"))


def verified(bundle: Path, receipt: Path, public_key: Path, log_key: Path) -> Receipt:
    """Return a receipt that was verified, and that all it says of its bundle is so."""
    from privyseal.verify.bundle import verify_bundle
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.keys import load_public_key
    from privyseal.verify.receipt import verify_receipt

    log = read_log_key(log_key)
    key = load_public_key(read(public_key, "public key"))
    proven = verify_receipt(read(receipt, "receipt"), log=log, statement_key=key)
    try:
        with bundle.open("rb") as file:
            verify_bundle(file, proven.statement)
    except OSError as error:
        raise ClientError(f"cannot read the bundle {bundle}: {error.strerror}") from None
    except VerificationError as error:
        raise VerificationError(f"{bundle}: {error}") from None
    _verify_archive(bundle, proven)
    return proven


def _verify_archive(bundle: Path, proven: Receipt) -> None:
    """Verify the signatures that are over the bundle's bytes. Raises VerificationError."""
    from privyseal.verify import schemes
    from privyseal.verify.keys import load_public_key

    signed = [s for s in proven.signatures if s.scheme in schemes.ARCHIVES]
    if not signed:
        return
    with (
        bundle.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as data,
    ):
        for each in signed:
            key = load_public_key(each.public_key)
            schemes.verify_archive(each.scheme, key, each.signature, data)


@command(commands, "verify")
@click.argument("bundle", type=PATH)
@click.option("--receipt", type=PATH, required=True)
@click.option("--public-key", type=PATH, required=True, help="The app's statement key, PEM.")
@click.option("--log-key", type=PATH, required=True, help="The log's verifier key, a vkey file.")
def verify(out: Output, bundle: Path, receipt: Path, public_key: Path, log_key: Path) -> None:
    """Verify a bundle with its receipt; needs no network.

    Example: privyseal verify bundle.zip --receipt receipt.json --public-key statement.pem
    --log-key log.vkey
    """
    proven = verified(bundle, receipt, public_key, log_key)
    statement = proven.statement
    out.done(
        {
            "status": "verified",
            "app": statement.app,
            "version": statement.version,
            "counter": statement.counter,
            "logIndex": proven.index,
            "treeSize": proven.checkpoint.size,
        },
        f"verified: apps/{statement.app} version {statement.version}, release {statement.counter}",
        f"signed by {', '.join(s.key_version for s in proven.signatures)}",
        f"leaf {proven.index} of {proven.checkpoint.size} in {proven.checkpoint.origin}",
    )
