"""Merkle tree hashing and proof verification, RFC 6962 section 2.1 and RFC 9162 section 2.1.

Old size 0 is consistent with every tree and its proof is empty, as C2SP tlog-witness has
it (other implementations refuse the question).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from privyseal.verify.errors import VerificationError

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
MAX_PROOF = 64
"""More hashes than this can be in no proof of a tree below 2^64 leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def verify_inclusion(
    *, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Verify that a leaf hash stands at an index of a tree (RFC 9162 section 2.1.3.2).

    Args:
        index: Zero-based position.
        size: Leaves in the tree.
        leaf: The leaf's hash, 32 bytes.
        proof: Sibling hashes, lowest first.
        root: The tree's root, 32 bytes.

    Raises:
        VerificationError: If the proof does not show it.
    """
    if not 0 <= index < size:
        raise VerificationError(f"leaf index {index} is outside a tree of {size} leaves")
    _check_proof(proof)
    fn, sn, node = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise VerificationError("inclusion proof is too long")
        if fn & 1 or fn == sn:
            node = node_hash(sibling, node)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            node = node_hash(node, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn or node != root:
        raise VerificationError("inclusion proof does not lead to the checkpoint's root")


def verify_consistency(  # noqa: C901 - the steps of the RFC, in its order
    *, old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Verify that a tree is a prefix of another (RFC 9162 section 2.1.4.2).

    Raises:
        VerificationError: If the proof does not show it.
    """
    _check_proof(proof)
    if not 0 <= old_size <= new_size:
        raise VerificationError(f"a tree of {old_size} leaves cannot precede one of {new_size}")
    if old_size in {0, new_size}:
        expected = EMPTY_ROOT if old_size == 0 else new_root
        if proof or old_root != expected:
            raise VerificationError("the two trees are not consistent")
        return
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise VerificationError("consistency proof is empty")
    fn, sn = old_size - 1, new_size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    old = new = path[0]
    for node in path[1:]:
        if sn == 0:
            raise VerificationError("consistency proof is too long")
        if fn & 1 or fn == sn:
            old, new = node_hash(node, old), node_hash(node, new)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            new = node_hash(new, node)
        fn, sn = fn >> 1, sn >> 1
    if sn or old != old_root or new != new_root:
        raise VerificationError("the two trees are not consistent")


def root_of(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over all leaf hashes, in order; linear time, logarithmic memory."""
    stack: list[tuple[int, bytes]] = []
    for leaf in leaf_hashes:
        level, node = 0, leaf
        while stack and stack[-1][0] == level:
            node = node_hash(stack.pop()[1], node)
            level += 1
        stack.append((level, node))
    if not stack:
        return EMPTY_ROOT
    root = stack.pop()[1]
    while stack:
        root = node_hash(stack.pop()[1], root)
    return root


def _check_proof(proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF or any(len(node) != HASH_SIZE for node in proof):
        raise VerificationError("a proof is at most 64 hashes of 32 bytes")
