"""`privyseal log`: checkpoints, and the whole tree verified."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import PATH, Output, command, connect, id_of, write_new
from privyseal.cli.verify import read, read_log_key

commands = click.Group("log", help="The transparency log.")
_PROOFS, _PAGE = 16, 1000
LOG_KEY = click.option("--log-key", type=PATH, required=True, help="The log's vkey file.")


@command(commands, "checkpoint")
@LOG_KEY
@click.option("--out", "target", type=PATH, default=None, help="Where to keep it.")
def checkpoint(out: Output, log_key: Path, target: Path | None) -> None:
    """Fetch and verify the newest checkpoint.

    Example: privyseal log checkpoint --log-key log.vkey --out checkpoint.txt
    """
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.note import open_checkpoint

    verifier = read_log_key(log_key)
    with connect() as to:
        note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
    found = open_checkpoint(note, verifier)
    if target is not None:
        write_new(target, note.encode())
    out.done({"size": found.size, "root": found.root.hex(), "checkpoint": note}, note.rstrip())


@command(commands, "verify")
@LOG_KEY
@click.option("--against", type=PATH, default=None, help="A checkpoint kept from earlier.")
def verify(out: Output, log_key: Path, against: Path | None) -> None:
    """Fetch every leaf, check the tree, an earlier checkpoint, and the daemon's own state.

    Example: privyseal log verify --log-key log.vkey --against checkpoint.txt
    """
    from privyseal.cli.log_state import facts_of
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.merkle import leaf_hash
    from privyseal.verify.receipt import verify_receipt

    verifier = read_log_key(log_key)
    receipts: dict[str, tuple[str, int, str]] = {}

    def keep(release: Any, receipt: bytes) -> None:
        if not receipt:
            raise VerificationError(f"nothing was signed that {release.name} could be")
        statement = verify_receipt(receipt, log=verifier).statement
        receipts[release.name] = (statement.app, statement.counter, release.bundle_sha256.hex())

    with connect() as to:
        leaves, _ = _verified(to, [], verifier)
        before = len(leaves)
        facts, with_grants = facts_of(to, keep)
        leaves, head = _verified(to, leaves, verifier)
        hashes = [leaf_hash(leaf) for leaf in leaves]
        if against is not None:
            _require_extension(hashes, read(against, "checkpoint"), verifier)
        _prove(to, hashes, head.root)
    replay, touched = _replayed(leaves)
    for name, (app, counter, digest) in receipts.items():
        act = replay.signed.get((app, counter))
        if act is None or act["bundleSha256"] != digest:
            raise VerificationError(f"the log tells of another bundle for {name}")
    if not with_grants:
        replay.forget_grants()
    _compare(facts, replay.facts, set(touched[before:]))
    versions = sum("/versions/" in name for name in facts)
    out.done(
        {
            "status": "verified",
            "size": head.size,
            "root": head.root.hex(),
            "facts": len(facts),
            "keyVersions": versions,
            "releases": len(receipts),
            "grantsCompared": with_grants,
        },
        f"verified {head.size:,} leaves of {head.origin}",
        f"the daemon's {len(facts):,} apps, keys, versions ({versions:,}), releases "
        f"({len(receipts):,}), channels and grants are what the log tells",
        *([] if with_grants else ["grants were not compared: only an admin can list them"]),
    )


def _replayed(leaves: list[bytes]) -> tuple[Any, list[str]]:
    """Return the state that leaves tell of, and what each is about. Raises VerificationError."""
    from privyseal.log_replay import Replay
    from privyseal.verify.canonical import parse_object
    from privyseal.verify.errors import VerificationError

    replay, touched = Replay(), []
    for index, leaf in enumerate(leaves):
        try:
            touched.append(replay.apply(parse_object(leaf, "log leaf")))
        except (KeyError, TypeError, ValueError):
            raise VerificationError(f"leaf {index} of the log tells what cannot be") from None
    return replay, touched


def _require_extension(hashes: list[bytes], kept: bytes, verifier: Any) -> None:
    """Check that leaves extend a checkpoint that was kept. Raises VerificationError."""
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.merkle import root_of
    from privyseal.verify.note import open_checkpoint

    earlier = open_checkpoint(kept.decode("utf-8", "replace"), verifier)
    if earlier.size > len(hashes) or root_of(hashes[: earlier.size]) != earlier.root:
        raise VerificationError(
            f"the log is not an extension of the checkpoint of size {earlier.size}"
        )


def _verified(to: Any, known: list[bytes], verifier: Any) -> tuple[list[bytes], Any]:
    """Return the log's leaves and its newest checkpoint, which they make."""
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.merkle import leaf_hash, root_of
    from privyseal.verify.note import open_checkpoint

    note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
    head = open_checkpoint(note, verifier)
    leaves = [*known, *_leaves(to, len(known), head.size)][: head.size]
    if root_of([leaf_hash(leaf) for leaf in leaves]) != head.root:
        raise VerificationError("the leaves do not make the root that the checkpoint signs")
    return leaves, head


@command(commands, "list")
@click.option("--act", multiple=True, help="Only these acts, such as refusal; repeatable.")
@click.option("--app-id", default="", callback=id_of, help="Only what is about this app.")
@click.option("--principal", default="", help="Only what this one did, such as token:8s2…")
@click.option("--last", default=50, show_default=True, help="The newest so many; 0 for all.")
def list_entries(out: Output, act: tuple[str, ...], app_id: str, principal: str, last: int) -> None:
    """List what was done, and what was refused, newest last.

    As the daemon tells it; `privyseal log verify` is what checks the log.

    Example: privyseal log list --act refusal --app-id 042a1261
    """
    from privyseal.verify.canonical import parse_object

    pages: list[list[dict[str, Any]]] = []
    with connect() as to:
        size = start = _size(to)
        while start > 0 and not 0 < last <= sum(map(len, pages)):
            start, end = max(0, start - _PAGE), start
            page = [
                {"index": index, "leaf": leaf}
                for index, leaf in enumerate(
                    (parse_object(leaf, "log leaf") for leaf in _leaves(to, start, end)), start
                )
                if (not act or leaf["act"] in act)
                and (not app_id or _is_about(leaf, app_id))
                and (not principal or leaf["principal"] == principal)
            ]
            pages.append(page)
    rows = [row for page in reversed(pages) for row in page]
    if not rows:
        out.note(f"none of the log's {size:,} entries is such a one")
    elif start > 0 or 0 < last < len(rows):
        out.note(f"the last {last}; --last 0 shows all")
    rows = rows[-last:]
    out.done({"entries": rows}, *(_entry_line(r["index"], r["leaf"]) for r in rows))


def _is_about(leaf: dict[str, Any], app: str) -> bool:
    name = f"apps/{app}"
    texts = (value for value in leaf.values() if isinstance(value, str))
    return leaf.get("app") == app or any((t + "/").startswith(name + "/") for t in texts)


def _entry_line(index: int, leaf: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(leaf["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    rest = {k: v for k, v in leaf.items() if k not in {"act", "principal", "time", "signatures"}}
    told = " ".join(f"{k}={v}" for k, v in sorted(rest.items()) if isinstance(v, str | int))
    return f"{index:>6}  {when}  {leaf['act']:<18} {leaf['principal']:<24} {told}"


def _size(to: Any) -> int:
    """Return how many leaves the log has, as the daemon says."""
    from privyseal.v1 import log_service_pb2 as pb

    return int(to.call(to.log.ListEntries, pb.ListEntriesRequest(page_size=1)).log_size)


def _leaves(to: Any, start: int, end: int) -> list[bytes]:
    """Return the leaves from one index up to another. Raises VerificationError."""
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.errors import VerificationError

    leaves: list[bytes] = []
    while (at := start + len(leaves)) < end:
        request = pb.ListEntriesRequest(start=at, page_size=min(_PAGE, end - at))
        page = to.call(to.log.ListEntries, request).entries
        if not page or [e.index for e in page] != list(range(at, at + len(page))):
            raise VerificationError(f"the daemon does not show leaf {at}")
        leaves += [entry.leaf for entry in page]
    return leaves[: end - start]


def _compare(facts: dict[str, str], told: dict[str, str], changed: set[str]) -> None:
    """Compare the daemon's state with what the log tells. Raises VerificationError.

    Args:
        facts: The daemon's.
        told: The log's.
        changed: What was changed while the daemon was asked; that may be either way.
    """
    from privyseal.verify.errors import VerificationError

    for name in sorted((facts.keys() | told.keys()) - changed):
        if name not in facts:
            raise VerificationError(f"the daemon lacks {name}, which the log tells of")
        if name not in told:
            raise VerificationError(f"the log does not tell of {name}, which the daemon has")
        if facts[name] != told[name]:
            raise VerificationError(
                f"of {name} the daemon says: {facts[name]}; the log tells: {told[name]}"
            )


def _prove(to: Any, hashes: list[bytes], root: bytes) -> None:
    """Have the daemon prove leaves here and there: its tree is what others are given proofs of."""
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.merkle import verify_inclusion

    size = len(hashes)
    for index in sorted({n * (size - 1) // _PROOFS for n in range(_PROOFS + 1)}) if size else ():
        request = pb.GetInclusionProofRequest(index=index, tree_size=size)
        proof = list(to.call(to.log.GetInclusionProof, request).hashes)
        verify_inclusion(index=index, size=size, leaf=hashes[index], proof=proof, root=root)


def proved_promotions(to: Any, records: Sequence[bytes], log_key: Path) -> dict[bytes, Any]:
    """Return where the log tells of the promotions with some successor records, by record.

    Raises:
        VerificationError: If it does not tell of one of them.
    """
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.canonical import parse_object
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.note import open_checkpoint
    from privyseal.verify.successor import PROMOTE_ACT, Logged, verify_logged

    verifier = read_log_key(log_key)
    note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
    size = open_checkpoint(note, verifier).size
    wanted, found = {record.decode(): record for record in records}, {}
    for index, leaf in enumerate(_leaves(to, 0, size)):
        act = parse_object(leaf, "log leaf")
        if act["act"] != PROMOTE_ACT or act["successor"] not in wanted:
            continue
        request = pb.GetInclusionProofRequest(index=index, tree_size=size)
        proof = tuple(to.call(to.log.GetInclusionProof, request).hashes)
        record = wanted.pop(act["successor"])
        found[record] = Logged(leaf, index, proof, note)
        verify_logged(record, found[record], verifier)
    if wanted:
        raise VerificationError("the log does not tell of a successor record that the daemon has")
    return found
