"""Adds signatures to a release that was signed: a leaf of its own, and a receipt with all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from privyseal.verify.receipt import (
    SchemeSignature,
    build_receipt,
    receipt_parts,
    signature_act,
)
from privyseal.verify.statement import Statement

from privyseald.model.records import SignedRecord, signers_text
from privyseald.ports import Sealed, Transaction


def add_signatures(
    tx: Transaction, principal: str, record: SignedRecord, added: tuple[SchemeSignature, ...]
) -> Callable[[Sealed], bytes]:
    """Add signatures in a transaction; return what makes the receipt, once the group is sealed.

    Args:
        tx: The transaction.
        principal: On whose account; the log names it.
        record: What was signed, as it is in the transaction.
        added: By key versions that have not signed it.
    """
    payload, old = receipt_parts(record.receipt)
    signatures = (*old, *added)
    index = tx.record(
        {
            "principal": principal,
            "renewed": True,
            **signature_act(payload, Statement.parse(payload), signatures),
        }
    )
    names = signers_text(s.key_version for s in signatures)
    tx.releases.sign_again(replace(record, signers=names))

    def finish(sealed: Sealed) -> bytes:
        receipt = build_receipt(
            payload=payload,
            signatures=signatures,
            leaf=sealed.leaf(index),
            index=index,
            proof=sealed.proof(index),
            checkpoint=sealed.checkpoint,
        )
        tx.releases.set_receipt(record.app, record.version, receipt)
        return receipt

    return finish
