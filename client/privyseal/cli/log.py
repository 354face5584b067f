"""`privyseal log`: checkpoints, and the whole tree verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import PATH, Output, command, connect
from privyseal.cli.verify import read

commands = click.Group("log", help="The transparency log.")
_NEW_KEYS = {"key.create", "key.import", "key.create-version"}
LOG_KEY = click.option("--log-key", type=PATH, required=True, help="The log's vkey file.")


@command(commands, "checkpoint")
@LOG_KEY
@click.option("--out", "target", type=PATH, default=None, help="Where to keep it.")
def checkpoint(out: Output, log_key: Path, target: Path | None) -> None:
    """Fetch and verify the newest checkpoint.

    Example: privyseal log checkpoint --log-key log.vkey --out checkpoint.txt
    """
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.note import NoteVerifier, open_checkpoint

    verifier = NoteVerifier.parse(read(log_key, "log key").decode("utf-8", "replace"))
    with connect() as to:
        note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
    found = open_checkpoint(note, verifier)
    if target is not None:
        target.write_text(note)
    out.done({"size": found.size, "root": found.root.hex(), "checkpoint": note}, note.rstrip())


@command(commands, "verify")
@LOG_KEY
@click.option("--against", type=PATH, default=None, help="A checkpoint kept from earlier.")
def verify(out: Output, log_key: Path, against: Path | None) -> None:
    """Fetch every leaf, check the tree, an earlier checkpoint, and the daemon's own state.

    Example: privyseal log verify --log-key log.vkey --against checkpoint.txt
    """
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.canonical import parse_object
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.merkle import leaf_hash, root_of
    from privyseal.verify.note import NoteVerifier, open_checkpoint

    verifier = NoteVerifier.parse(read(log_key, "log key").decode("utf-8", "replace"))
    with connect() as to:
        note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
        head = open_checkpoint(note, verifier)
        leaves = _leaves(to, head.size)
        hashes = [leaf_hash(leaf) for leaf in leaves]
        if root_of(hashes) != head.root:
            raise VerificationError("the leaves do not make the root that the checkpoint signs")
        if against is not None:
            text = read(against, "checkpoint").decode("utf-8", "replace")
            earlier = open_checkpoint(text, verifier)
            if earlier.size > head.size or root_of(hashes[: earlier.size]) != earlier.root:
                raise VerificationError(
                    f"the log is not an extension of the checkpoint of size {earlier.size}"
                )
        acts = [parse_object(leaf, "log leaf") for leaf in leaves]
        checked = _compare(to, acts, verifier)
    out.done(
        {"status": "verified", "size": head.size, "root": head.root.hex(), **checked},
        f"verified {head.size:,} leaves of {head.origin}",
        f"the daemon's {checked['keyVersions']:,} key versions and {checked['releases']:,} "
        "releases are what the log tells",
    )


@command(commands, "list")
@click.option("--act", multiple=True, help="Only these acts, such as refusal; repeatable.")
@click.option("--app-id", default="", help="Only what is about this app.")
@click.option("--principal", default="", help="Only what this one did, such as token:8s2…")
@click.option("--last", default=50, show_default=True, help="The newest so many; 0 for all.")
def list_entries(out: Output, act: tuple[str, ...], app_id: str, principal: str, last: int) -> None:
    """List what was done, and what was refused, newest last.

    Example: privyseal log list --act refusal --app-id 042a1261
    """
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.canonical import parse_object

    with connect() as to:
        note = to.call(to.log.GetCheckpoint, pb.GetCheckpointRequest()).checkpoint
        leaves = _leaves(to, int(note.split("\n")[1]))
    rows: list[dict[str, Any]] = [
        {"index": index, "leaf": leaf}
        for index, leaf in enumerate(parse_object(leaf, "log leaf") for leaf in leaves)
        if (not act or leaf["act"] in act)
        and (not app_id or _is_about(leaf, app_id))
        and (not principal or leaf["principal"] == principal)
    ]
    if not rows:
        out.note(f"none of the log's {len(leaves):,} entries is such a one")
    elif 0 < last < len(rows):
        out.note(f"the last {last} of {len(rows):,}; --last 0 shows all")
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


def _leaves(to: Any, size: int) -> list[bytes]:
    from privyseal.v1 import log_service_pb2 as pb
    from privyseal.verify.errors import VerificationError

    leaves: list[bytes] = []
    while len(leaves) < size:
        request = pb.ListEntriesRequest(start=len(leaves), page_size=1000)
        page = to.call(to.log.ListEntries, request).entries
        if not page or [e.index for e in page] != list(range(len(leaves), len(leaves) + len(page))):
            raise VerificationError(f"the daemon does not show leaf {len(leaves)}")
        leaves += [entry.leaf for entry in page]
    return leaves[:size]


def _compare(to: Any, acts: list[dict[str, Any]], verifier: Any) -> dict[str, int]:
    """Compare the daemon's apps, keys and releases with what the log tells of them."""
    from privyseal.v1 import app_service_pb2 as app_pb
    from privyseal.v1 import key_service_pb2 as key_pb
    from privyseal.v1 import release_service_pb2 as pb
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.receipt import verify_receipt

    told_keys = {a["keyVersion"]: a["publicKeySha256"] for a in acts if a["act"] in _NEW_KEYS}
    told_signed = {(a["app"], a["counter"]): a for a in acts if a["act"] == "release.sign"}
    told_releases = {a["release"] for a in acts if a["act"] == "release.register"}
    have_keys: dict[str, str] = {}
    have_releases: set[str] = set()
    for app in to.call(to.apps.ListApps, app_pb.ListAppsRequest(page_size=1000)).apps:
        for key in to.call(to.keys.ListKeys, key_pb.ListKeysRequest(parent=app.name)).keys:
            have_keys |= {v.name: v.public_key_sha256.hex() for v in key.versions}
        token = ""
        while True:
            request = pb.ListReleasesRequest(parent=app.name, page_size=1000, page_token=token)
            page = to.call(to.releases.ListReleases, request)
            for release in page.releases:
                answer = to.call(to.releases.GetRelease, pb.GetReleaseRequest(name=release.name))
                statement = verify_receipt(answer.receipt, log=verifier).statement
                act = told_signed.get((statement.app, statement.counter))
                if act is None or act["bundleSha256"] != release.bundle_sha256.hex():
                    raise VerificationError(f"the log tells of another bundle for {release.name}")
                have_releases.add(release.name)
            token = page.next_page_token
            if not token:
                break
    # What came after the checkpoint is in the state already, and in the next checkpoint.
    if missing := set(told_keys.items()) - set(have_keys.items()):
        raise VerificationError(f"the log tells of keys that the daemon lacks: {min(missing)[0]}")
    if missing_releases := told_releases - have_releases:
        raise VerificationError(f"the daemon lacks {min(missing_releases)}, which the log has")
    if unexplained := set(have_keys) - set(told_keys):
        raise VerificationError(f"the log does not tell of {min(unexplained)}")
    return {"keyVersions": len(told_keys), "releases": len(told_releases)}
