"""Has a bundle signed: what `publish` and `bundle-artifact` share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from privyseal.cli.common import Output
from privyseal.cli.release_options import native_ranges

_PIECE = 512 * 1024


def sign_bundle(
    out: Output,
    to: Any,
    values: dict[str, Any],
    bundle: Any,
    *,
    version: str,
    channels: Sequence[str] = (),
) -> Any:
    """Have a bundle signed; return the SignReleaseResponse.

    Args:
        out: Says who signed.
        to: The connection.
        values: The command's options.
        bundle: What is signed.
        version: The release's.
        channels: Where it shall go; looked for before anything is signed.
    """
    from privyseal.cli.deploy import require_channels
    from privyseal.expo_export import read_export
    from privyseal.v1 import signing_service_pb2 as pb
    from privyseal.verify.schemes import codepush_package_sha256

    app = values["app_id"]
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
    out.reached = f"{version} is signed, and not registered; go on with --version {version}"
    if signed.archive_wanted:
        request.ClearField("request_id")
        more = to.send(to.signing.SignArchive, request, _archive(request, bundle.path), 600.0)
        signed.signatures.extend(more.signatures)
        signed.receipt = more.receipt
    out.note("signed by " + ", ".join(s.key_version for s in signed.signatures))
    _warn(out, request, signed)
    return signed


def _warn(out: Output, request: Any, signed: Any) -> None:
    """Say what devices will make of a release that nobody would want."""
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
