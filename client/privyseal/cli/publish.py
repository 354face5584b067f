"""`privyseal publish`: bundle, sign, upload, register and, with --channel, deploy."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import APP, PATH, Output, command, connect
from privyseal.cli.live_update import (
    BUILD,
    COMMIT,
    RANGES,
    RUNTIME,
    TYPE,
    VERSION,
    make_bundle,
    native_ranges,
    new_version,
    options,
    register,
    release_json,
)

commands = click.Group("publish")
_PIECE = 512 * 1024


@command(commands, "publish")
@options(APP, BUILD, TYPE, VERSION, RUNTIME, *COMMIT, *RANGES)
@click.option("--storage", default="", help="A directory, file, s3, gs or az URL.")
@click.option("--public-url", default="", help="What devices put before the object's key.")
@click.option("--channel", multiple=True, help="Deploy to this channel; repeatable.")
@click.option("--receipt", type=PATH, default=None, help="Where to write the receipt.")
def publish(out: Output, channel: tuple[str, ...], receipt: Path | None, **values: Any) -> None:
    """Bundle, sign, upload, register and, with --channel, deploy a build.

    Example: privyseal publish --app-id 042a1261 --build-dir www --storage s3://updates
    --channel production
    """
    from privyseal.cli.deploy import deploy_release
    from privyseal.errors import ClientError

    # One connection for all of it: CI systems that give one token a job are served too.
    with connect() as to:
        release, data = publish_build(out, to, values, channel)
        if receipt is not None:
            receipt.write_bytes(data)
            out.note(f"wrote the receipt to {receipt}")
        if channel:
            try:
                deploy_release(to, release.name, channel)
            except ClientError as error:
                number = release.name.rsplit("/", 1)[-1]
                again = " ".join(f"--destination {name}" for name in channel)
                raise ClientError(
                    f"{release.name} is published, but not deployed: {error}; then: privyseal "
                    f"deploy web --app-id {values['app_id']} --build-id {number} {again}",
                    error.exit_code,
                ) from None
            out.note(f"deployed to {', '.join(channel)}")
    out.done(
        {"status": "ok", **release_json(release), "channels": list(channel)},
        f"published {release.name}, version {release.version}",
    )


def publish_build(
    out: Output, to: Any, values: dict[str, Any], channels: Sequence[str] = ()
) -> tuple[Any, bytes]:
    """Bundle, sign, upload and register; return the release and its receipt.

    Channels that it shall go to are looked for before anything is signed.
    """
    from privyseal.cli.deploy import require_channels
    from privyseal.connection import load_profile
    from privyseal.errors import ClientError
    from privyseal.expo_export import read_export
    from privyseal.storage import check, upload
    from privyseal.v1 import signing_service_pb2 as pb
    from privyseal.verify.schemes import codepush_package_sha256

    context = click.get_current_context().find_root().params
    profile = load_profile(context.get("profile") or "", context.get("server") or "")
    storage = values["storage"] or profile.storage
    if not storage:
        raise ClientError("no storage is set; use --storage or PRIVYSEAL_STORAGE")
    # The profile's address is that of the profile's storage.
    public_url = values["public_url"] or ("" if values["storage"] else profile.public_url)
    check(storage, public_url)
    app, version = values["app_id"], values["version"] or new_version()
    with tempfile.TemporaryDirectory(prefix="privyseal-") as scratch:
        bundle = make_bundle(out, values["build_dir"], Path(scratch) / "bundle.zip")
        out.note(f"bundled {bundle.files:,} files, {bundle.length:,} bytes, {bundle.sha256.hex()}")
        request = pb.SignReleaseRequest(
            parent=f"apps/{app}",
            version=version,
            bundle_sha256=bundle.sha256,
            bundle_length=bundle.length,
            manifest_sha256=bundle.manifest_sha256,
            native_ranges=native_ranges(values),
            source_commit=values["commit_sha"],
            bundle_blake2b=_blake2b(bundle.path),
            codepush_sha256=codepush_package_sha256(bundle.digests),
            expo=read_export(values["build_dir"], bundle.digests, values["runtime_version"]),
        )
        # The session of a CI job is for what it signs, so that comes first.
        to.identify_for(request)
        if channels:
            require_channels(to, app, channels)
        signed = to.call(to.signing.SignRelease, request)
        if signed.archive_wanted:
            request.ClearField("request_id")
            more = to.send(to.signing.SignArchive, request, _archive(request, bundle.path), 600.0)
            signed.signatures.extend(more.signatures)
            signed.receipt = more.receipt
        out.note("signed by " + ", ".join(s.key_version for s in signed.signatures))
        if len(signed.signatures) == 1:
            out.note(
                "no device plugin verifies that: make a key for yours with `privyseal live-update "
                "generate-signing-key`"
            )
        if request.HasField("expo") and b'"gateway":"http:' in signed.statement:
            out.note(
                "the update names http:// addresses, which release builds refuse: set public_url "
                "in privyseald.toml to the gateway's https:// address, and publish anew"
            )
        url = _upload(values, storage, public_url, bundle, upload)
        out.note(f"uploaded to {url}")
        if url.startswith("file:"):
            out.note("devices cannot fetch that themselves; --public-url says how they reach it")
        return register(to, app, version, url, values), signed.receipt


def _blake2b(path: Path) -> bytes:
    """Return the BLAKE2b-512 of a file, 64 bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _archive(request: Any, path: Path) -> Iterator[Any]:
    """Yield what SignArchive wants: the release, then the archive."""
    from privyseal.v1 import signing_service_pb2 as pb

    yield pb.SignArchiveRequest(release=request)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield pb.SignArchiveRequest(piece=piece)


def _upload(values: dict[str, Any], storage: str, base: str, bundle: Any, upload: Any) -> str:
    """Upload the zip, or each file and the manifest; return the artifact's URL."""
    from privyseal.bundling.tree import MANIFEST, scan

    # The digest in the name makes an object immutable: another content has another name.
    prefix = f"{values['app_id']}/{bundle.sha256.hex()}"
    if values["artifact_type"] == "zip":
        return str(upload(storage, f"{prefix}.zip", bundle.path, base))
    for file in scan(values["build_dir"]).files:
        upload(storage, f"{prefix}/{file.name}", file.path, base)
    return str(upload(storage, f"{prefix}/{MANIFEST}", bundle.manifest, base))
