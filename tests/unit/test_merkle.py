import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privyseal.verify import merkle as verify
from privyseal.verify.errors import VerificationError
from privyseald.model import merkle


def tree(size):
    leaves = [verify.leaf_hash(b"%d" % i) for i in range(size)]
    growth = merkle.Growth(0, {})
    for leaf in leaves:
        growth.append(leaf)
    return leaves, growth


def reference_root(leaves):
    """MTH as RFC 6962 section 2.1 writes it."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def test_rfc_6962_constants():
    assert verify.EMPTY_ROOT.hex().startswith("e3b0c442")
    assert verify.leaf_hash(b"").hex().startswith("6e340b9c")


@given(st.integers(1, 200), st.data())
def test_every_proof_verifies_and_a_changed_one_does_not(size, data):
    leaves, growth = tree(size)
    index = data.draw(st.integers(0, size - 1))
    root = merkle.root(size, growth.node)
    proof = merkle.inclusion_proof(index, size, growth.node)

    assert root == reference_root(leaves) == verify.root_of(leaves)
    verify.verify_inclusion(index=index, size=size, leaf=leaves[index], proof=proof, root=root)
    with pytest.raises(VerificationError):
        verify.verify_inclusion(
            index=index, size=size, leaf=verify.leaf_hash(b"other"), proof=proof, root=root
        )
    for position in range(len(proof)):
        changed = [*proof]
        changed[position] = bytes([changed[position][0] ^ 1]) + changed[position][1:]
        with pytest.raises(VerificationError):
            verify.verify_inclusion(
                index=index, size=size, leaf=leaves[index], proof=changed, root=root
            )


@given(st.integers(1, 150), st.data())
def test_consistency(size, data):
    old = data.draw(st.integers(0, size))
    _, growth = tree(size)
    proof = merkle.consistency_proof(old, size, growth.node)
    roots = [merkle.root(n, growth.node) for n in (old, size)]

    verify.verify_consistency(
        old_size=old, new_size=size, proof=proof, old_root=roots[0], new_root=roots[1]
    )
    with pytest.raises(VerificationError):
        verify.verify_consistency(
            old_size=old, new_size=size, proof=proof, old_root=b"x" * 32, new_root=roots[1]
        )


@given(st.integers(2, 150), st.data())
def test_a_consistency_proof_lacks_nothing_and_has_nothing_more(size, data):
    old = data.draw(st.integers(1, size - 1))
    _, growth = tree(size)
    proof = merkle.consistency_proof(old, size, growth.node)
    roots = [merkle.root(n, growth.node) for n in (old, size)]
    for other in ([], proof[:-1], proof[1:], [*proof, bytes(32)], [*proof, *[bytes(32)] * 64]):
        with pytest.raises(VerificationError):
            verify.verify_consistency(
                old_size=old, new_size=size, proof=other, old_root=roots[0], new_root=roots[1]
            )


def test_a_proof_is_of_bounded_length():
    for proof in ([bytes(32)] * 65, [bytes(31)], [bytes(33)]):
        with pytest.raises(VerificationError, match="at most 64 hashes of 32 bytes"):
            verify.verify_inclusion(index=0, size=2**70, leaf=bytes(32), proof=proof, root=b"")


@given(st.integers(0, 120), st.integers(1, 40))
def test_a_growth_needs_no_more_than_the_frontier(before, more):
    leaves, whole = tree(before + more)
    known = {node: whole.node(node) for node in merkle.frontier(before)}
    growth = merkle.Growth(before, known)
    for leaf in leaves[before:]:
        growth.append(leaf)

    root = merkle.root(growth.size, growth.node)
    assert root == verify.root_of(leaves)
    for index in range(before, growth.size):
        proof = merkle.inclusion_proof(index, growth.size, growth.node)
        verify.verify_inclusion(
            index=index, size=growth.size, leaf=leaves[index], proof=proof, root=root
        )
    assert base64.b64encode(root)
