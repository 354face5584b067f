"""`privyseal publish`: bundle, sign, upload, register and, with --channel, deploy."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import APP, PATH, Output, command, connect, require_writable, write_new
from privyseal.cli.live_update import make_bundle, new_version, register
from privyseal.cli.release_options import (
    BUILD,
    COMMIT,
    PRIVATE,
    RANGES,
    RUNTIME,
    TYPE,
    VERSION,
    options,
)
from privyseal.cli.releases import release_json

commands = click.Group("publish")


@command(commands, "publish")
@options(APP, BUILD, PRIVATE, TYPE, VERSION, RUNTIME, *COMMIT, *RANGES)
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

    if receipt is not None:
        require_writable(receipt)
    # One connection for all of it: CI systems that give one token a job are served too.
    with connect() as to:
        release, data = publish_build(out, to, values, channel)
        if receipt is not None:
            write_new(receipt, data)
            out.note(f"wrote the receipt to {receipt}")
        if channel:
            try:
                deploy_release(to, release.name, channel)
            except ClientError as error:
                out.reached = ""  # as the error says
                number = release.name.rsplit("/", 1)[-1]
                again = " ".join(f"--destination {name}" for name in channel)
                raise ClientError(
                    f"{release.name} is published, but not deployed: {error}; then: privyseal "
                    f"deploy web --app-id {values['app_id']} --build-id {number} {again}",
                    error.exit_code,
                ) from None
            out.note(f"deployed to {', '.join(channel)}")
    out.done(
        {**release_json(release), "channels": list(channel)},
        f"published {release.name}, version {release.version}",
    )


def publish_build(
    out: Output, to: Any, values: dict[str, Any], channels: Sequence[str] = ()
) -> tuple[Any, bytes]:
    """Bundle, sign, upload and register; return the release and its receipt.

    Channels that it shall go to are looked for before anything is signed.
    """
    from privyseal.cli.signing import sign_bundle
    from privyseal.connection import load_profile
    from privyseal.errors import ClientError
    from privyseal.storage import check

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
        bundle = make_bundle(out, values, Path(scratch) / "bundle.zip")
        out.note(f"bundled {bundle.files:,} files, {bundle.length:,} bytes, {bundle.sha256.hex()}")
        signed = sign_bundle(out, to, values, bundle, version=version, channels=channels)
        url = _upload(out, values, (storage, public_url), bundle)
        out.note(f"uploaded to {url}")
        if url.startswith("file:"):
            out.note("devices cannot fetch that themselves; --public-url says how they reach it")
        try:
            release = register(to, app, version, url, values)
        except ClientError as error:
            if error.reason == "RELEASE_EXISTS":
                out.reached = "publish under a new --version, or with the same storage and type"
            raise
        out.reached = f"{release.name} is registered, and not deployed by this"
        return release, signed.receipt


def _upload(out: Output, values: dict[str, Any], to: tuple[str, str], bundle: Any) -> str:
    """Upload the zip, or each file and the manifest; return the artifact's URL."""
    from privyseal.storage import object_url, upload, upload_all
    from privyseal.verify import MANIFEST

    storage, base = to
    # The digest in the name makes an object immutable: another content has another name.
    prefix = f"{values['app_id']}/{bundle.sha256.hex()}"
    if values["artifact_type"] == "zip":
        with out.progress("uploading") as progress:
            return str(upload(storage, f"{prefix}.zip", bundle.path, base, progress))

    part = bundle.path.with_name("part")

    def files() -> Iterator[tuple[str, Path]]:
        # Out of the bundle: the build may have been changed since it was signed.
        with zipfile.ZipFile(bundle.path) as archive, out.progress("uploading") as progress:
            names = archive.namelist()
            for done, name in enumerate(names):
                with archive.open(name) as packed, part.open("wb") as file:
                    shutil.copyfileobj(packed, file)
                yield f"{prefix}/{name}", part
                progress(done + 1, len(names))

    upload_all(storage, files())
    return object_url(storage, f"{prefix}/{MANIFEST}", base)
