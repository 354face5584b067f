"""The verbs of `privyseal key` about the life of a version."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import (
    APP,
    KEY,
    PATH,
    Output,
    command,
    connect,
    embedded_text,
    read_text,
    require_writable,
    set_time,
    time_text,
    write_new,
)
from privyseal.cli.verify import read_log_key

commands = click.Group("key", help="Keys and their versions.")
REASON = click.option("--reason", required=True)
FORCE = click.option(
    "--force", is_flag=True, help="Though live builds depend on it; others must consent."
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def state_of(version: Any) -> str:
    """Return the state of a key version, in a word."""
    from privyseal.v1 import types_pb2

    name = types_pb2.KeyVersionState.Name(version.state)
    return str(name.removeprefix("KEY_VERSION_STATE_"))


def times_of(version: Any) -> dict[str, str]:
    """Return the times in a version's life that are set, as `createTime` and the like."""
    moments = ("create", "activate", "expire", "destroy", "compromise")
    return {
        f"{moment}Time": time_text(getattr(version, f"{moment}_time"))
        for moment in moments
        if version.HasField(f"{moment}_time")
    }


def _done(out: Output, version: Any) -> None:
    values = {"name": version.name, "state": state_of(version), **times_of(version)}
    times = {n: t for n, t in times_of(version).items() if n != "createTime"}
    when = "".join(f", {n.removesuffix('Time')} {t}" for n, t in times.items())
    out.done(values, f"{version.name} is {state_of(version)}{when}")


@command(commands, "create-standby")
@APP
@KEY
@click.option("--public", type=PATH, default=None, help="Where to write its public key.")
@click.option("--in-token", is_flag=True, help="Make it in the daemon's HSM.")
def create_standby(
    out: Output, app_id: str, key: str, public: Path | None, *, in_token: bool
) -> None:
    """Make a version that does not sign yet, to be shipped ahead of the next rotation.

    Example: privyseal key create-standby --app-id 042a1261 --public standby.pem
    """
    from privyseal.cli.configuration import Embedded, configuration
    from privyseal.errors import ClientError
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.v1 import types_pb2

    if public is not None and public.exists():
        raise ClientError(f"{public} exists; name another with --public")
    if public is not None:
        require_writable(public)
    with connect() as to:
        request = pb.CreateKeyVersionRequest(parent=f"apps/{app_id}/keys/{key}", in_token=in_token)
        made = to.call(to.keys.CreateKeyVersion, request).key_version
        found = to.call(to.keys.GetKey, pb.GetKeyRequest(name=f"apps/{app_id}/keys/{key}")).key
    scheme = types_pb2.Scheme.Name(found.scheme).removeprefix("SCHEME_").lower().replace("_", "-")
    text = embedded_text(scheme, made)
    if public is not None:
        write_new(public, text.encode())
    out.done(
        {"keyVersion": made.name, "publicKey": text},
        f"created {made.name}, which does not sign yet",
        *([f"wrote {public}"] if public else []),
        "Compile it in beside the present key where the plugin takes several. A build that trusts",
        "it alone gets nothing before a rotation has reached DISTRIBUTING (`privyseal rotation",
        "start`, then `advance`): do that before such a build ships.",
        *configuration(
            scheme,
            Embedded(app_id, text, str(public or "it"), standby=True),
            chained=bool(made.certificate_anchor_sha256),
        ),
    )


@command(commands, "suspend")
@click.argument("name")
@REASON
def suspend(out: Output, name: str, reason: str) -> None:
    """Stop a key version from signing until it is resumed.

    Example: privyseal key suspend apps/042a1261/keys/capawesome-v1/versions/1 --reason leak?
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        request = pb.SuspendKeyVersionRequest(name=name, reason=reason)
        _done(out, to.call(to.keys.SuspendKeyVersion, request).key_version)


@command(commands, "resume")
@click.argument("name")
@REASON
def resume(out: Output, name: str, reason: str) -> None:
    """Let a suspended key version sign again.

    Example: privyseal key resume apps/042a1261/keys/capawesome-v1/versions/1 --reason checked
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        request = pb.ResumeKeyVersionRequest(name=name, reason=reason)
        _done(out, to.call(to.keys.ResumeKeyVersion, request).key_version)


@command(commands, "deactivate")
@click.argument("name")
@REASON
@FORCE
def deactivate(out: Output, name: str, reason: str, *, force: bool) -> None:
    """Stop a key version from signing for good; of a primary, see `privyseal rotation`.

    The last version of a key can be given up: releases are signed for its scheme no more.

    Example: privyseal key deactivate apps/042a1261/keys/capawesome-v1/versions/1 --reason old
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        request = pb.DeactivateKeyVersionRequest(name=name, reason=reason, force=force)
        version = to.call(to.keys.DeactivateKeyVersion, request).key_version
        key = name.rpartition("/versions/")[0]
        if to.call(to.keys.GetKey, pb.GetKeyRequest(name=key)).key.primary == name:
            out.note(f"{key} is given up: from now on no release is signed with it")
        _done(out, version)


@command(commands, "compromise")
@click.argument("name")
@click.option("--evidence", required=True, help="What is known, for the log.")
@click.option("--since", default="", help="When it began, as 2026-11-24T10:00:00Z; now if absent.")
def compromise(out: Output, name: str, evidence: str, since: str) -> None:
    """Note for good that others may know a private key: it signs nothing from now on.

    Of a primary, `privyseal rotation start --emergency` does this and what comes after it.

    Example: privyseal key compromise apps/042a1261/keys/capawesome-v1/versions/2
    --evidence "found in a public repository" --since 2026-11-20T00:00:00Z
    """
    from privyseal.v1 import key_service_pb2 as pb

    request = pb.CompromiseKeyVersionRequest(name=name, evidence=evidence)
    set_time(request.compromise_time, since, "--since")
    with connect() as to:
        _done(out, to.call(to.keys.CompromiseKeyVersion, request).key_version)


@command(commands, "destroy")
@click.argument("name")
@REASON
@click.option("--after", default="7d", show_default=True, help="Until then it can be restored.")
@FORCE
def destroy(out: Output, name: str, reason: str, after: str, *, force: bool) -> None:
    """Schedule the destruction of a private key, also in a token. Another person must consent.

    Example: privyseal key destroy apps/042a1261/keys/capawesome-v1/versions/1 --reason leaked
    """
    from privyseal.v1 import key_service_pb2 as pb

    parts = re.fullmatch(r"([0-9]{1,8})([smhd])", after)
    if parts is None:
        raise click.UsageError("--after must be a number of s, m, h or d, such as 7d")
    request = pb.DestroyKeyVersionRequest(name=name, reason=reason, force=force)
    request.delay.FromSeconds(int(parts[1]) * _UNITS[parts[2]])
    with connect() as to:
        _done(out, to.call(to.keys.DestroyKeyVersion, request).key_version)


@command(commands, "restore")
@click.argument("name")
@REASON
def restore(out: Output, name: str, reason: str) -> None:
    """Undo the scheduled destruction of a key version.

    Example: privyseal key restore apps/042a1261/keys/capawesome-v1/versions/1 --reason mistake
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        request = pb.RestoreKeyVersionRequest(name=name, reason=reason)
        _done(out, to.call(to.keys.RestoreKeyVersion, request).key_version)


@command(commands, "set-cryptoperiod")
@APP
@KEY
@click.option("--days", type=click.IntRange(0, 3650), required=True, help="0 for ever.")
def set_cryptoperiod(out: Output, app_id: str, key: str, days: int) -> None:
    """Set for how long a key's versions may sign; the log warns before the end.

    Example: privyseal key set-cryptoperiod --app-id 042a1261 --days 730
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        request = pb.SetCryptoperiodRequest(name=f"apps/{app_id}/keys/{key}", days=days)
        made = to.call(to.keys.SetCryptoperiod, request).key
    rows = {v.name: times_of(v).get("expireTime", "") for v in made.versions}
    lines = (f"{name} may sign until {end or 'further notice'}" for name, end in rows.items())
    out.done({"key": made.name, "days": days, "expireTimes": rows}, *lines)


@command(commands, "successors")
@APP
@KEY
@click.option("--out", "target", type=PATH, default=None, help="Where to write them.")
@click.option("--log-key", type=PATH, default=None, help="The log's vkey file: adds its proofs.")
def successors(
    out: Output, app_id: str, key: str, target: Path | None, log_key: Path | None
) -> None:
    """Export a key's successor records: at each promotion the old version signed for the new.

    With --log-key each comes with the proof that the log tells of it; that takes the right to
    read the log.

    Example: privyseal key successors --app-id 042a1261 --log-key log.vkey --out chain.json
    """
    import json

    from privyseal.cli.log import proved_promotions
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.verify.successor import read_record

    with connect() as to:
        request = pb.ListSuccessorsRequest(parent=f"apps/{app_id}/keys/{key}")
        records = list(to.call(to.keys.ListSuccessors, request).records)
        logged = proved_promotions(to, records, log_key) if log_key is not None else {}
    chain = [
        {**json.loads(record), **({"log": logged[record].json()} if logged else {})}
        for record in records
    ]
    if target is not None:
        write_new(target, (json.dumps(chain, indent=1) + "\n").encode())
    lines = []
    for record in records:
        said, signed = read_record(record)
        how = "signed" if signed else "not signed, the old version was compromised"
        lines.append(f"version {said.old} -> version {said.new}  {how}")
    out.done({"successors": chain}, *(lines or ["no version was promoted yet"]))


@command(commands, "verify-successors")
@click.argument("chain", type=PATH)
@click.option("--public-key", type=PATH, required=True, help="The key that is trusted, PEM.")
@click.option("--log-key", type=PATH, default=None, help="The log's vkey file.")
def verify_successors(out: Output, chain: Path, public_key: Path, log_key: Path | None) -> None:
    """Walk from a trusted public key to the newest one, offline.

    With --log-key it is also proved that the log tells of each step; without, whoever may sign
    releases could have had a record made. Whether a version was compromised by then, and whether
    a newer one exists, only the log itself tells: `privyseal log list --act key.compromise --act
    key.promote`.

    Example: privyseal key verify-successors chain.json --public-key privyseal_public.pem
    --log-key log.vkey
    """
    import json

    from privyseal.errors import ClientError
    from privyseal.native_project import key_sha256
    from privyseal.verify.canonical import canonical
    from privyseal.verify.errors import VerificationError
    from privyseal.verify.keys import load_public_key, spki_pem
    from privyseal.verify.successor import Logged, follow, read_record, verify_logged

    try:
        entries = json.loads(read_text(chain, "chain"))
        proofs = [entry.pop("log", None) for entry in entries]
        records = [canonical(record) for record in entries]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ClientError(f"{chain} is no file of `privyseal key successors`") from None
    text = read_text(public_key, "public key")
    key_sha256(text)
    steps = follow(records, load_public_key(text.encode()))
    newest = spki_pem(steps[-1].new_public_key) if steps else text
    if log_key is not None:
        verifier = read_log_key(log_key)
        taken = {step.new for step in steps}
        for record, proof in zip(records, proofs, strict=True):
            if read_record(record)[0].new not in taken:
                continue
            if proof is None:
                raise VerificationError(
                    "the chain has no proofs from the log; export it with --log-key"
                )
            verify_logged(record, Logged.parse(proof), verifier)
    elif steps:
        out.note(
            "not compared with the log (--log-key): signers of releases can have a record like "
            "these made"
        )
    rows = [{"from": s.old, "to": s.new, "time": s.at} for s in steps]
    out.done(
        {"status": "verified", "steps": rows, "newestPublicKey": newest},
        *(f"verified: version {s.old} signed for version {s.new}" for s in steps),
        newest.rstrip(),
    )
