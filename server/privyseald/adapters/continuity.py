"""Whether the database still is the one whose log was signed last.

A database that was restored from a backup has an older log, or another one. Signing on from
it would contradict checkpoints that others hold, so nothing is signed with it: the last
checkpoint is kept outside the database, and compared before every transaction.
"""

from __future__ import annotations

from privyseal.verify.note import Checkpoint

from privyseald.model import merkle
from privyseald.model.errors import FailedPrecondition, Unavailable
from privyseald.model.records import LogHead
from privyseald.ports import LastCheckpoint, Log

_REMEDY = "restore the newest one, or see `privyseald accept-loss`"


class Continuity:
    """Notices a log that does not extend the last checkpoint; used by one thread.

    Args:
        kept: The last checkpoint, outside the database.
    """

    def __init__(self, kept: LastCheckpoint) -> None:
        self._kept = kept
        self._last: Checkpoint | None = None
        self._unkept = ""
        self.broken = ""
        """Why nothing is signed; empty if all is well."""

    def check(self, log: Log, head: LogHead) -> None:
        """Compare the log with the last checkpoint.

        Raises:
            FailedPrecondition: If it does not extend it.
            OSError: If that checkpoint cannot be read.
        """
        last = self._last or self._kept.read()
        if last is None:
            self.broken = self._kept.doubt()
            if self.broken:
                raise FailedPrecondition(self.broken, reason="LOG_ROLLED_BACK")
        if last is not None and (last.size, last.root) != (head.size, head.root):
            self.broken = _break(log, head, last)
            if self.broken:
                raise FailedPrecondition(self.broken, reason="LOG_ROLLED_BACK")
        self.broken = ""
        if self._last is None or head.size > self._last.size:
            self._last = Checkpoint(last.origin if last else "", head.size, head.root)

    def frontier(self, log: Log, head: LogHead) -> dict[merkle.Node, bytes]:
        """Return the nodes that new leaves are hung on, if they make the root that was signed.

        Whatever was signed over others would contradict the checkpoint before it.

        Raises:
            FailedPrecondition: If they do not.
        """
        wanted = merkle.frontier(head.size)
        nodes = log.nodes(wanted)
        complete = nodes.keys() >= set(wanted)
        if not complete or merkle.root(head.size, nodes.__getitem__) != head.root:
            self.broken = (
                f"the database is damaged: the nodes of its log do not make the root that was "
                f"signed over {head.size} entries; {_REMEDY}"
            )
            raise FailedPrecondition(self.broken, reason="LOG_DAMAGED")
        return nodes

    def committed(self, checkpoint: Checkpoint, note: str) -> None:
        """Remember a checkpoint that is in the database now."""
        self._last = checkpoint
        self._unkept = note

    def keep(self, again: str = "") -> None:
        """Keep the newest checkpoint, before anybody is answered.

        Args:
            again: One that is kept already, to see whether it can be.

        Raises:
            Unavailable: If it cannot be kept. What was committed stays, and a retry finds it.
        """
        note = self._unkept or again
        if not note:
            return
        try:
            self._kept.write(note)
        except OSError:
            raise Unavailable(
                "the log's checkpoint cannot be kept outside the database now; try again",
                reason="CHECKPOINT_NOT_KEPT",
            ) from None
        self._unkept = ""


def _break(log: Log, head: LogHead, last: Checkpoint) -> str:
    """Return how a log contradicts a checkpoint, empty if it extends it."""
    if last.size > head.size:
        return (
            f"the database is an old copy: its log has {head.size} entries, and {last.size} were "
            f"signed; {_REMEDY}"
        )
    wanted = merkle.nodes_for(lambda look: merkle.root(last.size, look))
    nodes = log.nodes(wanted)
    if not nodes.keys() >= set(wanted) or merkle.root(last.size, nodes.__getitem__) != last.root:
        return (
            f"the database has another log: it does not extend the {last.size} entries that were "
            f"signed; {_REMEDY}"
        )
    return ""
