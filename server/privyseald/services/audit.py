"""Reads the log."""

from __future__ import annotations

from privyseald.model import fields, merkle
from privyseald.model.errors import OutOfRange
from privyseald.model.policy import Action, Caller
from privyseald.model.records import LogHead
from privyseald.ports import Store, View
from privyseald.services.access import Access

Proof = tuple[int, list[bytes]]


class Audit:
    """Checkpoints, proofs and entries."""

    def __init__(self, store: Store, access: Access) -> None:
        self._store = store
        self._access = access

    async def head(self) -> LogHead:
        """Return the newest checkpoint."""
        found: LogHead = await self._store.read(lambda view: view.log.head())
        return found

    async def inclusion(self, index: int, size: int) -> Proof:
        """Return the size of the tree and the proof. Raises OutOfRange."""

        def query(view: View) -> Proof:
            tree = _tree(view, size)
            if index >= tree:
                raise OutOfRange(f"the tree has {tree} leaves", reason="BEYOND_LOG", field="index")
            wanted = merkle.nodes_for(lambda look: merkle.inclusion_proof(index, tree, look))
            nodes = view.log.nodes(wanted)
            return tree, merkle.inclusion_proof(index, tree, nodes.__getitem__)

        found: Proof = await self._store.read(query)
        return found

    async def consistency(self, old: int, new: int) -> Proof:
        """Return the size of the newer tree and the proof. Raises OutOfRange."""

        def query(view: View) -> Proof:
            tree = _tree(view, new)
            if old > tree:
                raise OutOfRange(
                    f"the newer tree has {tree} leaves", reason="BEYOND_LOG", field="old_size"
                )
            wanted = merkle.nodes_for(lambda look: merkle.consistency_proof(old, tree, look))
            nodes = view.log.nodes(wanted)
            return tree, merkle.consistency_proof(old, tree, nodes.__getitem__)

        found: Proof = await self._store.read(query)
        return found

    async def entries(
        self, caller: Caller, start: int, limit: int
    ) -> tuple[list[tuple[int, bytes, int]], int]:
        """Return leaves from `start` on, and the log's size; at most a megabyte of them."""
        await self._access.authorise(caller, Action.LOG_READ, fields.ALL_APPS)

        def query(view: View) -> tuple[list[tuple[int, bytes, int]], int]:
            size = view.log.head().size
            return view.log.leaves(min(start, size), limit), size

        leaves, size = await self._store.read(query)
        room = 1 << 20
        kept: list[tuple[int, bytes, int]] = []
        for leaf in leaves:
            room -= len(leaf[1]) + 32
            if room < 0 and kept:
                break
            kept.append(leaf)
        return kept, size


def _tree(view: View, size: int) -> int:
    have = view.log.head().size
    if size > have:
        raise OutOfRange(f"the log has {have} leaves", reason="BEYOND_LOG", field="tree_size")
    return size or have
