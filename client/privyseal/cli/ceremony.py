"""`privyseal ceremony`: makes keys from one reviewed file, and leaves a transcript."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from privyseal.cli.common import (
    PATH,
    Output,
    command,
    connect,
    embedded_text,
    enum_name,
    time_text,
    write_new,
)
from privyseal.errors import ClientError

if TYPE_CHECKING:
    from privyseal.ceremony import Plan, PlannedKey

commands = click.Group("ceremony", help="Make keys from one reviewed file.")


@command(commands, "ceremony")
@click.argument("file", type=PATH)
@click.option("--sha256", default="", help="Of the reviewed file; asked for if absent.")
@click.option("--transcript", type=PATH, default=None, help="Where to write it.")
@click.option("--dry-run", is_flag=True, help="Say what would be made, and the file's digest.")
def ceremony(
    out: Output, file: Path, sha256: str, transcript: Path | None, *, dry_run: bool
) -> None:
    """Make keys from a file that several people have reviewed.

    Each reviewer runs it with --dry-run and notes the file's SHA-256. With everybody present,
    one of them runs it, and gives the digest that all have noted. What was made is written
    down in a transcript, whose digest goes to the log with the names of who took part.
    Run again with the same file, it makes nothing twice.

    Example: privyseal ceremony keys.toml --transcript transcript.txt
    """
    from privyseal.ceremony import read_plan

    plan = read_plan(file)
    for planned in plan.keys:
        _request(plan, planned)
    digest = plan.sha256.hex()
    lines = [
        plan.title,
        f"file          SHA-256 {digest}",
        f"app           {plan.app}",
        *(f"participant   {name}" for name in plan.participants),
        *(f"makes         {key.line()}" for key in plan.keys),
    ]
    if dry_run:
        made = [key.line() for key in plan.keys]
        out.done({"sha256": digest, "title": plan.title, "makes": made}, *lines)
        return
    if transcript is None:
        raise ClientError("say where the transcript goes, with --transcript")
    given = sha256
    if not given:
        for line in lines:
            out.note(line)
        given = click.prompt("SHA-256 of the file that you have reviewed", err=True)
    if given.strip().lower() != digest:
        raise ClientError(
            f"{file} is not what was reviewed: its SHA-256 is {digest}; nothing was made"
        )
    for path in (transcript, *_files(plan)):
        if path.exists():
            raise ClientError(f"{path} exists; a ceremony replaces no file, move it away")
    _perform(out, plan, lines, transcript)


def _files(plan: Plan) -> Iterator[Path]:
    for key in plan.keys:
        yield key.public
        if key.standby_public is not None:
            yield key.standby_public


def _perform(out: Output, plan: Plan, lines: list[str], transcript: Path) -> None:
    from privyseal.v1 import key_service_pb2 as pb

    texts: dict[Path, str] = {}
    versions: list[Any] = []
    with connect() as to:
        for planned in plan.keys:
            for version, path, scheme in _make(to, plan, planned):
                texts[path] = embedded_text(scheme, version)
                versions.append(version)
                lines += _told(version, path)
        text = "\n".join(lines) + "\n"
        request = pb.RecordCeremonyRequest(
            parent=f"apps/{plan.app}",
            title=plan.title,
            participants=plan.participants,
            file_sha256=plan.sha256,
            transcript_sha256=hashlib.sha256(text.encode()).digest(),
            key_versions=[version.name for version in versions],
            request_id=plan.request_id("record"),
        )
        index = to.call(to.keys.RecordCeremony, request).log_index
    for path, public in texts.items():
        write_new(path, public.encode())
    write_new(transcript, text.encode())
    out.done(
        {
            "keyVersions": [version.name for version in versions],
            "transcript": str(transcript),
            "transcriptSha256": request.transcript_sha256.hex(),
            "logIndex": index,
        },
        text,
        f"wrote {transcript}, SHA-256 {request.transcript_sha256.hex()}",
        f"the log has it at {index}: `privyseal log list` shows it to everybody who may read it",
    )


def _request(plan: Plan, planned: PlannedKey) -> Any:
    """Return the request that makes a key. Raises ClientError for what the daemon has not."""
    from privyseal.v1 import app_service_pb2 as app_pb
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.v1 import types_pb2

    if not planned.scheme:
        return app_pb.CreateAppRequest(
            app_id=plan.app,
            display_name=planned.display_name,
            in_token=planned.in_token,
            request_id=plan.request_id("app"),
        )
    request = pb.CreateKeyRequest(
        parent=f"apps/{plan.app}",
        scheme=_number(types_pb2.Scheme, "SCHEME", planned.scheme, "scheme"),
        in_token=planned.in_token,
        request_id=plan.request_id(planned.scheme),
    )
    if planned.algorithm:
        request.algorithm = _number(
            types_pb2.Algorithm, "ALGORITHM", planned.algorithm, "algorithm"
        )
    return request


def _make(to: Any, plan: Plan, planned: PlannedKey) -> Iterator[tuple[Any, Path, str]]:
    """Make a key as planned; yield each version, its file, and its scheme."""
    from privyseal.v1 import key_service_pb2 as pb

    request = _request(plan, planned)
    if not planned.scheme:
        to.call(to.apps.CreateApp, request)
        name = f"apps/{plan.app}/keys/statement-v1"
        key = to.call(to.keys.GetKey, pb.GetKeyRequest(name=name)).key
    else:
        key = to.call(to.keys.CreateKey, request).key
    yield key.versions[0], planned.public, planned.scheme
    if planned.standby_public is not None:
        standby = pb.CreateKeyVersionRequest(
            parent=key.name,
            in_token=planned.in_token,
            request_id=plan.request_id(f"{planned.scheme} standby"),
        )
        made = to.call(to.keys.CreateKeyVersion, standby).key_version
        yield made, planned.standby_public, planned.scheme
    if planned.cryptoperiod_days:
        period = pb.SetCryptoperiodRequest(
            name=key.name,
            days=planned.cryptoperiod_days,
            request_id=plan.request_id(f"{planned.scheme} cryptoperiod"),
        )
        to.call(to.keys.SetCryptoperiod, period)


def _number(enum: Any, prefix: str, value: str, field: str) -> Any:
    try:
        return enum.Value(enum_name(prefix, value))
    except ValueError:
        raise ClientError(f"{field} {value} in the file is none that there is") from None


def _told(version: Any, path: Path) -> list[str]:
    from privyseal.v1 import types_pb2

    protection = dict(version.protection) or {"backend": "software"}
    algorithm = types_pb2.Algorithm.Name(version.algorithm).removeprefix("ALGORITHM_").lower()
    return [
        "",
        version.name,
        f"  made        {time_text(version.create_time)}",
        f"  algorithm   {algorithm.replace('_', '-')}",
        f"  public key  SHA-256 {version.public_key_sha256.hex()}, in {path}",
        *(f"  {label:<11} {text}" for label, text in sorted(protection.items())),
        *(f"  {line}" for line in version.public_key.strip().splitlines()),
    ]
