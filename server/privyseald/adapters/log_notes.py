"""Notes that the log's key signs: checkpoints, the import key, backups."""

from __future__ import annotations

from privyseal.verify.backup import note_text
from privyseal.verify.importing import import_key_text
from privyseal.verify.note import Checkpoint, NoteVerifier, format_note

from privyseald.keyholder.log_keyholder import LogKeyholder


class LogNotes:
    """Has notes signed; each call blocks until the log's keyholder has answered.

    Args:
        keyholder: Has the log's key.
        verifier: The log's public key and name.
    """

    def __init__(self, keyholder: LogKeyholder, verifier: NoteVerifier) -> None:
        self._keyholder = keyholder
        self._verifier = verifier

    def checkpoint(self, checkpoint: Checkpoint) -> str:
        """Return the note of a checkpoint."""
        return self._note(checkpoint.text(), self._keyholder.sign_checkpoint(checkpoint))

    def import_key(self) -> str:
        """Return the note of the key that private keys are sealed for."""
        public_key, signature = self._keyholder.sign_import_key(self._verifier.name)
        return self._note(import_key_text(self._verifier.name, public_key), signature)

    def backup(self, digest: bytes) -> str:
        """Return the note over a backup's digest (SHA-256)."""
        signature = self._keyholder.sign_backup(self._verifier.name, digest)
        return self._note(note_text(self._verifier.name, digest), signature)

    def _note(self, text: str, signature: bytes) -> str:
        return format_note(text, self._verifier.name, self._verifier.public_key, signature)
