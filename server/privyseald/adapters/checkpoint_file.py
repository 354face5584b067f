"""The last checkpoint, kept outside the database: a file with the signed note."""

from __future__ import annotations

from pathlib import Path

import structlog
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import MAX_NOTE, Checkpoint, NoteVerifier, open_checkpoint


class CheckpointFile:
    """Keeps the newest checkpoint in a file; see the port.

    The file is replaced whole, without waiting for the disk: it is there to notice a restored
    backup, and a power cut can take no more than its last moments.

    Args:
        path: The file; best on another disk than the database.
        verifier: Verifies checkpoints of this log.
        restored: The mark of a data directory that was restored from a backup.
    """

    def __init__(self, path: Path, verifier: NoteVerifier, restored: Path | None = None) -> None:
        self._path = path
        self._scratch = path.with_name(path.name + ".new")
        self._restored = restored
        self._verifier = verifier
        self._log = structlog.get_logger("store")

    def read(self) -> Checkpoint | None:
        """Return the checkpoint; None, loudly, if the file is damaged. Raises OSError."""
        try:
            with self._path.open(encoding="utf-8") as file:
                return open_checkpoint(file.read(MAX_NOTE), self._verifier)
        except FileNotFoundError:
            return None
        except (VerificationError, UnicodeDecodeError):
            self._log.error("the last checkpoint is damaged; an old backup would not be noticed")
            return None

    def doubt(self) -> str:
        """Return that the directory was restored, and nobody has said what was signed since."""
        if self._restored is None or not self._restored.exists():
            return ""
        return (
            "the data directory was restored from a backup, and no checkpoint is kept outside it "
            "that would tell whether more was signed since; see `privyseald accept-loss`"
        )

    def write(self, note: str) -> None:
        """Keep a checkpoint in place of the one before. Raises OSError."""
        self._scratch.write_text(note, encoding="utf-8")
        self._scratch.replace(self._path)
