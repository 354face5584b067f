"""A data directory from a backup, and going on after a loss."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from privyseal.verify.backup import Header, read_body, read_header, verify
from privyseal.verify.errors import VerificationError
from privyseal.verify.merkle import leaf_hash, root_of
from privyseal.verify.note import NoteVerifier, open_checkpoint
from sqlalchemy.exc import SQLAlchemyError

from privyseald.adapters.backup_archive import DATABASE, FILES
from privyseald.adapters.checkpoint_file import CheckpointFile
from privyseald.adapters.pki import write_private
from privyseald.adapters.repositories import Db, SqlLog
from privyseald.adapters.sql_engine import make_engine
from privyseald.adapters.sql_transaction import SqlView
from privyseald.config import LOSS, RESTORED, Settings
from privyseald.data_dir import hand_over
from privyseald.keyholder.backup import open_with_shares
from privyseald.keyholder.kek import RAW
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore

_PAGE = 1000


class RecoveryError(Exception):
    """Something stands in the way; the message says what, in words."""


def restore(backup: Path, data: Path, shares: list[str], verifier: NoteVerifier) -> dict[str, int]:
    """Make a data directory of a backup, all of it checked.

    Args:
        backup: The file.
        data: The directory; must not exist.
        shares: Of enough recipients, as `privyseal backup open-share` gives them.
        verifier: The log's public key.

    Returns:
        How many entries the log has, how many software keys opened, and when the backup was
        made, in seconds since 1970.

    Raises:
        RecoveryError: If the directory exists, or the backup's content is not whole.
        VerificationError: If the backup was changed. KekError: If the shares do not open it.
    """
    with backup.open("rb") as file:
        verify(file, verifier)
        file.seek(0)
        header = read_header(file)
        kek, key = open_with_shares(header, shares)
        try:
            data.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise RecoveryError(f"{data} exists; name a directory that does not") from None
        try:
            # First, so that no directory is without it, however this ends: it signs nothing
            # before somebody has said what was signed since the backup, or a checkpoint that
            # was kept elsewhere does.
            write_private(data / RESTORED, header.checkpoint.encode())
            _unpack(_Pieces(read_body(file, key)), data)
            write_private(data / RAW, kek)
            return _check(data, header, kek, verifier) | {"made": header.created_at}
        except BaseException:
            shutil.rmtree(data)
            raise


class _Pieces:
    """Pieces of a file as something to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = b""

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and (piece := next(self._pieces, b"")):
            self._buffer += piece
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def rest(self) -> None:
        """Read to the end, which is where the last chunk is checked."""
        while next(self._pieces, b""):
            pass


def _unpack(pieces: _Pieces, data: Path) -> None:
    (data / "tls").mkdir(mode=0o700)
    source: IO[bytes] = pieces  # type: ignore[assignment] # tarfile only reads
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            known = member.name in {DATABASE, *FILES} or (
                len(path.parts) == 2 and path.parts[0] == "tls" and path.parts[1] != ".."
            )
            content = tar.extractfile(member) if member.isreg() and known else None
            if content is None:
                raise RecoveryError("the backup has something in it that no backup has")
            handle = os.open(data / member.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as to:
                shutil.copyfileobj(content, to)
                to.flush()
                os.fsync(to.fileno())
    pieces.rest()


def _check(data: Path, header: Header, kek: bytes, verifier: NoteVerifier) -> dict[str, int]:
    """Check the log's whole tree, and that every software key opens."""
    engine = make_engine(f"sqlite:///{data / DATABASE}")
    try:
        with engine.begin() as connection:
            view = SqlView(Db(connection))
            head = open_checkpoint(view.log.head().note, verifier)
            hashes: list[bytes] = []
            while page := view.log.leaves(len(hashes), _PAGE):
                hashes += [leaf_hash(leaf) for _, leaf, _ in page]
            if root_of(hashes) != head.root or header.checkpoint != view.log.head().note:
                raise RecoveryError("the backup's log is not the one that its checkpoint signs")
            return {"entries": head.size, "keys": _open_keys(view, SoftwareKeystore(kek))}
    except SQLAlchemyError:
        raise RecoveryError("the backup's database cannot be read") from None
    finally:
        engine.dispose()


def _open_keys(view: SqlView, keystore: SoftwareKeystore) -> int:
    opened, after = 0, ""
    while apps := view.apps.list(after, _PAGE):
        after = apps[-1].id
        for version in (v for a in apps for k in view.keys.list(a.id) for v in k.versions):
            if not version.blob or version.wrapped.in_token:
                continue
            try:
                # It has the public key that the database names, or it does not open.
                keystore.open(version.wrapped)
            except KeyUnusableError as error:
                raise RecoveryError(f"{version.name} cannot be opened: {error}") from None
            opened += 1
    return opened


def accept_loss(settings: Settings, entries: int, verifier: NoteVerifier) -> int:
    """Give up log entries that were signed and are in no copy of the database any more.

    Args:
        settings: Of a daemon that does not run.
        entries: How many entries were signed: as the last checkpoint says, or where none is
            kept of a restored directory, as the newest receipt or checkpoint anywhere says.
        verifier: The log's public key.

    Returns:
        How many entries are lost.

    Raises:
        RecoveryError: If nothing is lost, or another number of entries was signed.
        OSError: If the files cannot be written.
    """
    path = settings.file(settings.last_checkpoint)
    last = CheckpointFile(path, verifier).read()
    mark = settings.data / RESTORED
    if last is None and not mark.exists():
        raise RecoveryError("no last checkpoint is kept, so that nothing is known to be lost")
    if last is not None and last.size != entries:
        raise RecoveryError(f"{last.size} entries were signed; name that number")
    engine = make_engine(settings.database_url)
    try:
        with engine.begin() as connection:
            head = SqlLog(Db(connection)).head()
    except SQLAlchemyError:
        raise RecoveryError("the database cannot be read") from None
    finally:
        engine.dispose()
    if last is None and entries < head.size:
        raise RecoveryError(f"the backup alone has {head.size} entries; name all that were signed")
    if last is not None and (head.size, head.root) == (last.size, last.root):
        raise RecoveryError("nothing is lost: the database has the last checkpoint")
    if last is not None or entries > head.size:
        root = last.root.hex() if last is not None else ""
        lost = {"lostEntries": entries, "lostRoot": root, "entries": head.size}
        (settings.data / LOSS).write_text(json.dumps(lost))
        hand_over(settings.data / LOSS)
    if last is not None:
        path.rename(path.with_name(f"{path.name}.lost-{last.size}"))
    mark.unlink(missing_ok=True)
    return max(0, entries - head.size)


def read_verifier(data: Path, file: Path | None) -> NoteVerifier:
    """Return the log's public key, from a file or a data directory.

    Raises:
        RecoveryError: If it cannot be read.
    """
    try:
        return NoteVerifier.parse((file or data / "log.vkey").read_text())
    except (OSError, UnicodeDecodeError, VerificationError):
        where = "name it with --log-key" if file else f"is {data} a data directory? (--data)"
        raise RecoveryError(f"the log's public key cannot be read; {where}") from None
