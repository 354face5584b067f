"""`privyseal backup`: made by the daemon, opened by a quorum of its recipients."""

from __future__ import annotations

from pathlib import Path

import click

from privyseal.cli.common import PATH, Output, command, connect
from privyseal.cli.verify import read, read_log_key

commands = click.Group("backup", help="Make, check and open backups.")
_SECONDS = 3600.0


@command(commands, "new-recipient")
@click.option("--private", type=PATH, required=True, help="Where the private key goes; keep it.")
def new_recipient(out: Output, private: Path) -> None:
    """Make the key pair of one who shall be able to open backups with others.

    Prints the line for `recipients` under [backup] in the daemon's settings.

    Example: privyseal backup new-recipient --private ada-backup.pem
    """
    import os

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    from privyseal.errors import ClientError
    from privyseal.verify.backup import new_recipient as text_of

    key = x25519.X25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ClientError(f"cannot write {private}: {error.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
    recipient = text_of(key.public_key().public_bytes_raw())
    out.done({"recipient": recipient, "privateKey": str(private)}, recipient)


@command(commands, "create")
@click.option("--out", "target", type=PATH, required=True, help="Where the backup goes.")
def create(out: Output, target: Path) -> None:
    """Have the daemon make a backup of keys, state and log, and fetch it.

    It takes the consent of others: `privyseal approval request --action backup.export`.

    Example: privyseal backup create --out privyseal-2026-11-24.backup
    """
    from privyseal.errors import ClientError
    from privyseal.v1 import backup_service_pb2 as pb

    if target.exists():
        raise ClientError(f"{target} exists; name another with --out")
    scratch = target.with_name(target.name + ".part")
    size = 0
    try:
        with connect() as to, scratch.open("xb") as file:
            for piece in to.receive(to.backups.CreateBackup, pb.CreateBackupRequest(), _SECONDS):
                size += file.write(piece.data)
        scratch.replace(target)
    except FileExistsError:
        raise ClientError(f"{scratch} exists; is another backup being fetched?") from None
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise ClientError(f"cannot write {target}: {error.strerror}") from None
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    out.done({"backup": str(target), "size": size}, f"wrote {target}, {size:,} bytes")


@command(commands, "verify")
@click.argument("backup", type=PATH)
@click.option("--log-key", type=PATH, required=True, help="The log's vkey file.")
def verify(out: Output, backup: Path, log_key: Path) -> None:
    """Check, without opening it, that a backup is whole and what the daemon wrote.

    Example: privyseal backup verify privyseal-2026-11-24.backup --log-key log.vkey
    """
    from datetime import UTC, datetime

    from privyseal.errors import ClientError
    from privyseal.verify.backup import verify as check
    from privyseal.verify.note import open_checkpoint

    verifier = read_log_key(log_key)
    try:
        with backup.open("rb") as file:
            header = check(file, verifier)
    except OSError as error:
        raise ClientError(f"cannot read {backup}: {error.strerror}") from None
    size = open_checkpoint(header.checkpoint, verifier).size
    made = datetime.fromtimestamp(header.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "status": "verified",
        "createdAt": made,
        "logSize": size,
        "threshold": header.threshold,
        "recipients": len(header.recipients),
    }
    out.done(
        values,
        f"verified: made {made}, {size:,} log entries, opens with {header.threshold} of "
        f"{len(header.recipients)} recipients",
    )


@command(commands, "open-share")
@click.argument("backup", type=PATH)
@click.option("--private", type=PATH, required=True, help="Your private key.")
@click.option("--out", "target", type=PATH, default=None, help="A file for it, rather than here.")
def open_share(out: Output, backup: Path, private: Path, target: Path | None) -> None:
    """Open your share of a backup, for who restores it; nothing else of it opens with that.

    Example: privyseal backup open-share privyseal-2026-11-24.backup --private ada-backup.pem
    """
    import os

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import x25519

    from privyseal.errors import ClientError
    from privyseal.verify.backup import read_header

    try:
        key = serialization.load_pem_private_key(read(private, "private key"), None)
    except (ValueError, TypeError):
        raise ClientError(f"{private} is no private key in PEM") from None
    if not isinstance(key, x25519.X25519PrivateKey):
        raise ClientError(f"{private} was not made by `privyseal backup new-recipient`")
    try:
        with backup.open("rb") as file:
            share = read_header(file).open_share(key)
        if target is None:
            out.done({"share": share}, share)
            return
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as to:
            to.write(share + "\n")
    except OSError as error:
        raise ClientError(f"cannot read {backup} or write {target}: {error.strerror}") from None
    out.done({"shareFile": str(target)}, f"wrote {target}")
