"""The growing side of the Merkle tree: appending and proving (RFC 6962 section 2.1).

A node (level, index) is the hash over the 2^level leaves from index * 2^level on; only
complete nodes are stored, and what hangs over the right edge is computed. Whoever appends
needs no more than the *frontier*: the complete nodes that make up the tree's root. It is
also all that the proofs of new leaves need from before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from privyseal.verify.merkle import EMPTY_ROOT, node_hash

Node = tuple[int, int]
Lookup = Callable[[Node], bytes]


def frontier(size: int) -> list[Node]:
    """Return the maximal complete nodes of a tree, left to right."""
    nodes, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            nodes.append((level, start >> level))
            start += 1 << level
    return nodes


class Growth:
    """Leaves being appended to a tree of which the frontier is known.

    Args:
        size: Leaves so far.
        known: Complete nodes so far, the frontier at least; not changed.
    """

    def __init__(self, size: int, known: dict[Node, bytes]) -> None:
        self.size = size
        self.added: dict[Node, bytes] = {}
        self._known = known

    def append(self, leaf: bytes) -> int:
        """Append a leaf hash and return its index."""
        index = self.size
        level, at, node = 0, index, leaf
        self.added[0, at] = node
        while at & 1:
            node = node_hash(self.node((level, at - 1)), node)
            level, at = level + 1, at >> 1
            self.added[level, at] = node
        self.size += 1
        return index

    def node(self, node: Node) -> bytes:
        """Return a complete node."""
        found = self.added.get(node)
        return self._known[node] if found is None else found

    def frontier(self) -> dict[Node, bytes]:
        """Return what the next growth needs to know."""
        return {node: self.node(node) for node in frontier(self.size)}


def _cover(start: int, end: int, lookup: Lookup) -> bytes:
    """Return the hash over leaves start to end, where start is aligned for it."""
    nodes, at = [], start
    while at < end:
        level = (end - at).bit_length() - 1
        if at:
            level = min(level, (at & -at).bit_length() - 1)
        nodes.append((level, at >> level))
        at += 1 << level
    result = lookup(nodes.pop())
    while nodes:
        result = node_hash(lookup(nodes.pop()), result)
    return result


def root(size: int, lookup: Lookup) -> bytes:
    """Return the root of the first `size` leaves."""
    return _cover(0, size, lookup) if size else EMPTY_ROOT


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(
    index: int, size: int, lookup: Lookup, covers: dict[tuple[int, int], bytes] | None = None
) -> list[bytes]:
    """Return the proof of a leaf, its sibling first (RFC 9162 section 2.1.3.1).

    Args:
        index: Of the leaf.
        size: Of the tree.
        lookup: Returns complete nodes.
        covers: Remembers hashes for other leaves of the same tree.
    """
    path: list[bytes] = []
    known = {} if covers is None else covers

    def cover(first: int, last: int) -> bytes:
        found = known.get((first, last))
        if found is None:
            found = known[first, last] = _cover(first, last, lookup)
        return found

    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(cover(middle, end))
            end = middle
        else:
            path.append(cover(start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(old: int, new: int, lookup: Lookup) -> list[bytes]:
    """Return the proof that a tree is a prefix (RFC 9162 section 2.1.4.1)."""
    if old in {0, new}:
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while start + (size := end - start) != old:
        middle = start + _split(size)
        if old <= middle:
            path.append(_cover(middle, end, lookup))
            end = middle
        else:
            path.append(_cover(start, middle, lookup))
            start, whole = middle, False
    if not whole:
        path.append(_cover(start, end, lookup))
    path.reverse()
    return path


def nodes_for(proof: Callable[[Lookup], Sequence[bytes] | bytes]) -> list[Node]:
    """Return the nodes that a computation looks up, by running it on placeholders."""
    wanted: list[Node] = []

    def note(node: Node) -> bytes:
        wanted.append(node)
        return b"\x00" * 32

    proof(note)
    return wanted
