"""`privyseald restore` and `privyseald accept-loss`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click
from privyseal.verify.errors import VerificationError

from privyseald import data_dir, recovery
from privyseald.cli import DATA, PATH, fail, read_secret, read_settings
from privyseald.keyholder.kek import KekError
from privyseald.recovery import RecoveryError


@click.command()
@click.argument("backup", type=PATH)
@DATA
@click.option("--log-key", type=PATH, required=True, help="The log's vkey.")
@click.option(
    "--share-file",
    "share_files",
    type=PATH,
    multiple=True,
    required=True,
    help="A share, as `privyseal backup open-share --out` writes it; repeatable.",
)
def restore(backup: Path, data: Path, log_key: Path, share_files: tuple[Path, ...]) -> None:
    """Make a data directory of a backup, and check all of it.

    Example: privyseald restore b.backup --data ./data --log-key log.vkey --share-file ada.share
    """
    try:
        shares = [read_secret(file, "") for file in share_files]
        verifier = recovery.read_verifier(data, log_key)
        found = recovery.restore(backup, data, shares, verifier)
    except (RecoveryError, VerificationError, KekError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot restore: {error.strerror or error}: {error.filename or backup}")
    click.echo(f"restored: {found['entries']} log entries, {found['keys']} software keys opened")
    made = datetime.fromtimestamp(found["made"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    click.echo(_AFTER.format(made=made, entries=found["entries"], data=data))


_AFTER = """\
The backup is of {made}. What was done since is undone: denied certificates, revoked tokens and
grants, compromised keys, withdrawn releases. Do it again before you sign.
More than {entries} entries may have been signed since. Nothing is signed before a checkpoint that
was kept elsewhere (`last_checkpoint`) agrees, or `privyseald accept-loss` was told how many.
Artifacts in the data directory are not in a backup, nor are the files of the admin's profile
(`privyseald issue-certificate`).
The key-encryption key is a file in {data}; seal it with `privyseald kek rewrap`."""


@click.command("accept-loss")
@DATA
@click.option(
    "--entries",
    type=click.IntRange(1, 1 << 53),
    required=True,
    help="How many entries were signed.",
)
def accept_loss(data: Path, entries: int) -> None:
    """Go on with an older database for good, though newer entries were signed; the log says so.

    Stop the daemon first.

    Only where no newer copy exists. The number is that of the last checkpoint, which the
    refusal names; after a restore without one, that of the newest receipt or checkpoint that
    anybody has, or the backup's own if nothing was signed since. Whoever holds a checkpoint of
    the lost entries (auditors, witnesses, receipts) will see that the log contradicts it: tell
    them. Releases that were signed after the backup are unknown to the daemon; their counters
    are given again.

    Example: privyseald accept-loss --entries 1234
    """
    settings = read_settings(data)
    try:
        verifier = recovery.read_verifier(data, None)
        # A daemon that runs would go on at once, before its log tells of the loss.
        data_dir.hold(data, alone=True)
        lost = recovery.accept_loss(settings, entries, verifier)
    except (RecoveryError, data_dir.InUseError) as error:
        fail(f"nothing was changed: {error}")
    except OSError as error:
        fail(f"nothing was changed: {error.strerror}")
    if not lost:
        click.echo("nothing was signed since the backup; start the daemon")
        return
    click.echo(f"the loss of {lost} entries of {entries} is accepted; start the daemon")
