"""Makes backups: a consistent copy of the database and what else the data directory needs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import structlog
from privyseal.verify.backup import MAGIC, BodyWriter, Header, Recipient
from sqlalchemy.exc import SQLAlchemyError

from privyseald.adapters.repositories import Db, SqlLog
from privyseald.adapters.sql_engine import make_engine
from privyseald.keyholder.backup import SealedKek
from privyseald.model.errors import FailedPrecondition, Unavailable
from privyseald.ports import Archive, Clock

DATABASE = "privyseal.db"
FILES = ("log.key", "log.spki", "log.vkey", "privyseald.toml")
"""What a backup has beside the database and the folder tls, where it is there."""
_PIECE = 256 * 1024
SealKek = Callable[[str], SealedKek]
"""Seals the key-encryption key for the quorum, which the custodian knows, too."""
SignNote = Callable[[bytes], str]
"""Returns the note of the log's key over a digest."""


@dataclass(frozen=True)
class Quorum:
    """Who can open a backup: public keys (X25519), and how many of them it takes."""

    recipients: list[bytes]
    threshold: int


class BackupArchiver:
    """Makes backups; see the port.

    Args:
        data: The data directory.
        url: SQLAlchemy URL of the database; backups are of SQLite.
        origin: The log's name.
        quorum: Who can open them; None if nobody is set.
        seal: Seals the key-encryption key.
        sign: Signs a digest with the log's key.
        clock: Tells the time.
    """

    def __init__(
        self,
        data: Path,
        url: str,
        origin: str,
        quorum: Quorum | None,
        *,
        seal: SealKek,
        sign: SignNote,
        clock: Clock,
    ) -> None:
        self._data = data
        self._url = url
        self._origin = origin
        self._quorum = quorum
        self._seal = seal
        self._sign = sign
        self._clock = clock
        self._one = asyncio.Lock()

    async def make(self) -> Archive:
        """Make a backup, one at a time; see the port."""
        if self._quorum is None:
            raise FailedPrecondition(
                "nobody could open a backup: the daemon's settings have no [backup] recipients",
                reason="NO_BACKUP_RECIPIENTS",
            )
        async with self._one:
            try:
                return await asyncio.to_thread(self._make, self._quorum)
            except (OSError, SQLAlchemyError) as error:
                structlog.get_logger("backup").error("backup failed", error=type(error).__name__)
                raise Unavailable("the backup cannot be written now", reason="STORE_DOWN") from None

    def _make(self, quorum: Quorum) -> Archive:
        backup = secrets.token_hex(16)
        snapshot = self._data / f"backup-{backup}.db"
        target = self._data / f"backup-{backup}"
        try:
            note = self._snapshot(snapshot)
            sealed = self._seal(backup)
            header = Header(
                id=backup,
                origin=self._origin,
                created_at=self._clock(),
                checkpoint=note,
                threshold=quorum.threshold,
                recipients=tuple(map(Recipient, quorum.recipients, sealed.shares)),
                sealed_kek=sealed.kek,
                kek_check=sealed.check,
            )
            with target.open("xb") as file:
                file.write(MAGIC + header.line())
                self._write_body(BodyWriter(file, header.body_key(sealed.body)), snapshot)
            with target.open("rb+") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.seek(0, io.SEEK_END)
                file.write(self._sign(digest).encode())
            return FileArchive(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        finally:
            for leftover in self._data.glob(snapshot.name + "*"):
                leftover.unlink(missing_ok=True)

    def _snapshot(self, target: Path) -> str:
        """Copy the database as of one moment, and return the checkpoint of the copy."""
        engine = make_engine(self._url)
        try:
            # Not through the engine's transactions, in which SQLite does not copy.
            with closing(engine.raw_connection()) as connection:
                connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            engine.dispose()
        copy = make_engine(f"sqlite:///{target}")
        try:
            with copy.begin() as connection:
                return SqlLog(Db(connection)).head().note
        finally:
            copy.dispose()

    def _write_body(self, body: BodyWriter, snapshot: Path) -> None:
        to = cast("IO[bytes]", body)  # tarfile only writes
        # What a link leads to: whoever restores it has no other place.
        with tarfile.open(fileobj=to, mode="w|", dereference=True) as tar:
            tar.add(snapshot, DATABASE)
            for name in FILES:
                if (self._data / name).exists():
                    tar.add(self._data / name, name)
            for path in sorted((self._data / "tls").iterdir()):
                if path.is_file():
                    tar.add(path, f"tls/{path.name}")
        body.finish()


class FileArchive:
    """A backup in a file of the data directory, until it is discarded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").digest()
        self.size = path.stat().st_size

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the file, a piece at a time."""
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE):
                yield piece

    def discard(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
