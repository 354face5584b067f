"""`privyseal live-update`: the verbs of Appflow's command line."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import click

from privyseal.cli.channels import commands
from privyseal.cli.common import (
    APP,
    PATH,
    SCHEMES,
    Output,
    command,
    connect,
    embedded_text,
    enum_name,
    id_of,
    require_writable,
    write_new,
)
from privyseal.cli.release_options import (
    BUILD,
    COMMIT,
    KEPT,
    PRIVATE,
    RANGES,
    RUNTIME,
    TYPE,
    VERSION,
    options,
)
from privyseal.cli.releases import look_at, release_json


@command(commands, "generate-signing-key")
@APP
@click.option("--public", type=PATH, default=Path("privyseal_public.pem"), show_default=True)
@click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default="capawesome-v1",
    show_default=True,
    help="Whose devices verify with it.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["rsa-2048", "rsa-3072", "rsa-4096"]),
    default=None,
    help="For RSA schemes; rsa-2048 if absent, which iOS takes.",
)
@KEPT("--private")
@click.option("--in-token", is_flag=True, help="Make it in the daemon's HSM.")
@click.option("--token-uri", default="", help="Take the key at this address in the HSM (RFC 7512).")
def generate_signing_key(
    out: Output, app_id: str, public: Path, scheme: str, algorithm: str | None, **place: Any
) -> None:
    """Create the app's signing key in the daemon and write its public key.

    Example: privyseal live-update generate-signing-key --app-id 042a1261
    """
    from privyseal.cli.configuration import Embedded, configuration
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.v1 import types_pb2

    if public.exists():
        raise _refuse(f"{public} exists; remove it or name another with --public")
    require_writable(public)
    with connect() as to:
        request = pb.CreateKeyRequest(
            parent=f"apps/{app_id}",
            scheme=types_pb2.Scheme.Value(enum_name("SCHEME", scheme)),
            **place,
        )
        if algorithm:
            request.algorithm = types_pb2.Algorithm.Value(enum_name("ALGORITHM", algorithm))
        key = to.call(to.keys.CreateKey, request).key
    first = key.versions[0]
    out.reached = f"{first.name} is made; `privyseal key show {first.name} --public` writes its key"
    text = embedded_text(scheme, first)
    write_new(public, text.encode())
    if scheme == "expo-v1":
        out.note("from now on only Expo exports can be published for this app")
    out.done(
        {"publicKey": str(public), "keyVersion": key.primary},
        f"created {key.primary}; the private key stays in the daemon",
        f"wrote {public}",
        *configuration(
            scheme,
            Embedded(app_id, text, str(public)),
            chained=bool(first.certificate_anchor_sha256),
        ),
    )


@command(commands, "generate-manifest")
@options(BUILD, PRIVATE)
@KEPT("--signing-key")
def generate_manifest(out: Output, build_dir: Path, *, include_private: bool) -> None:
    """Write pro-manifest.json into a build, as the native build needs it.

    Example: privyseal live-update generate-manifest --build-dir www
    """
    import tempfile

    from privyseal.bundling.bundle import write_bundle
    from privyseal.verify import MANIFEST

    with tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(build_dir, Path(scratch) / "bundle.zip", private=include_private)
    target = build_dir / MANIFEST
    write_new(target, bundle.manifest)
    out.done(
        {"manifestPath": str(target), "files": bundle.files},
        f"wrote {target}: {bundle.files:,} files",
    )


@command(commands, "bundle-artifact", aliases=("bundle",))
@options(BUILD, PRIVATE, VERSION, RUNTIME, COMMIT[0], *RANGES)
@KEPT("--signing-key")
@click.option("--app-id", default="", callback=id_of, help="Have it signed for this app.")
@click.option("--receipt", type=PATH, default=None, help="Where to write the receipt.")
@click.option("--output-path", type=PATH, default=Path("bundle.zip"), show_default=True)
@click.option("--source-maps", is_flag=True, help="Put *.js.map and *.css.map in.")
def bundle_artifact(out: Output, output_path: Path, *, source_maps: bool, **values: Any) -> None:
    """Zip a build with its manifest, and have it signed if --app-id says for which app.

    Same build, same bytes. What was signed can be uploaded anywhere, and is then registered
    with `register-artifact`.

    Example: privyseal live-update bundle-artifact --build-dir www --output-path bundle.zip
    """
    from privyseal.cli.signing import sign_bundle

    app, receipt = values["app_id"], values["receipt"]
    if not app and (receipt is not None or values["version"]):
        raise click.UsageError(
            "--receipt and --version are for a bundle that is signed; say for which app: --app-id"
        )
    if receipt is not None:
        require_writable(receipt)
    bundle = make_bundle(out, values, output_path, source_maps=source_maps)
    told = {
        "bundlePath": str(output_path),
        "sha256": bundle.sha256.hex(),
        "length": bundle.length,
        "manifestSha256": bundle.manifest_sha256.hex(),
        "files": bundle.files,
    }
    lines = [
        f"wrote {output_path}: {bundle.files:,} files, {bundle.length:,} bytes",
        f"sha256 {bundle.sha256.hex()}",
    ]
    if app:
        version = values["version"] or new_version()
        with connect() as to:
            signed = sign_bundle(out, to, values, bundle, version=version)
        if receipt is not None:
            write_new(receipt, signed.receipt)
            lines.append(f"wrote the receipt to {receipt}")
        told["version"] = version
        verb = f"privyseal live-update register-artifact --app-id {app} --version {version}"
        lines.append(f"signed as version {version}; upload it, then: {verb} --artifact-url ...")
    else:
        lines.append("it is not signed: --app-id has it signed, which `register-artifact` asks for")
    out.done(told, *lines)


def make_bundle(
    out: Output, values: dict[str, Any], target: Path, *, source_maps: bool = False
) -> Any:
    """Write a bundle of the build among a command's values; progress on a terminal."""
    from privyseal.bundling.bundle import write_bundle

    with out.progress("bundling") as progress:
        bundle = write_bundle(
            values["build_dir"],
            target,
            source_maps=source_maps,
            private=values["include_private"],
            progress=progress,
        )
    if bundle.left_out:
        out.note(f"left out {bundle.left_out:,} source maps (--source-maps puts them in)")
    if bundle.misread:
        out.note(
            f"{len(bundle.misread):,} names, such as {bundle.misread[0]!r}, have a # or a % and "
            "two hexadecimal digits: cordova-plugin-ionic asks for another address, and takes no "
            "update; other plugins do"
        )
    return bundle


@command(commands, "upload-artifact", aliases=("upload",))
@KEPT("--signing-key")
@options(APP, BUILD, PRIVATE, TYPE, VERSION, RUNTIME, *COMMIT, *RANGES)
@click.option("--storage", default="", help="A directory, file, s3, gs or az URL.")
@click.option("--public-url", default="", help="What devices put before the object's key.")
def upload_artifact(out: Output, **values: Any) -> None:
    """Bundle, sign, upload and register a build.

    Example: privyseal live-update upload-artifact --app-id 042a1261 --build-dir www
    --commit-sha $SHA --commit-ref main --storage s3://updates
    """
    from privyseal.cli.publish import publish_build

    with connect() as to:
        release, _ = publish_build(out, to, values)
    out.done(
        {**release_json(release)},
        f"registered {release.name}, version {release.version}",
    )


@command(commands, "register-artifact", aliases=("register",))
@options(APP, TYPE, *COMMIT)
@click.option("--signed", is_flag=True, hidden=True, expose_value=False, help="It always is.")
@click.option("--version", required=True, help="A version that was signed.")
@click.option("--artifact-url", required=True, help="Where devices find the artifact.")
@click.option("--no-look", is_flag=True, help="Do not see whether it is there.")
def register_artifact(
    out: Output, app_id: str, version: str, artifact_url: str, *, no_look: bool, **v: Any
) -> None:
    """Register an artifact that was signed (`bundle-artifact --app-id`) and uploaded before.

    Example: privyseal live-update register-artifact --app-id 042a1261 --version 1.4.2
    --artifact-url https://cdn.example/042a1261/bundle.zip
    """
    with connect() as to:
        release = register(to, app_id, version, artifact_url, v)
    length = release.bundle_length if v["artifact_type"] == "zip" else 0
    if not no_look and (told := look_at(artifact_url, length)):
        out.note(told)
    out.done(
        {**release_json(release)},
        f"registered {release.name}, version {release.version}",
    )


def register(to: Any, app: str, version: str, url: str, values: dict[str, Any]) -> Any:
    """Register an artifact and return the release."""
    from privyseal.v1 import release_service_pb2 as pb

    kind = "ARTIFACT_TYPE_" + values["artifact_type"].upper()
    request = pb.RegisterReleaseRequest(
        parent=f"apps/{app}",
        version=version,
        artifact_url=url,
        artifact_type=pb.ArtifactType.Value(kind),
        commit_sha=values["commit_sha"],
        commit_ref=values["commit_ref"],
        commit_message=values["commit_message"],
    )
    return to.call(to.releases.RegisterRelease, request).release


def new_version() -> str:
    """Return a version nobody chose: the date and chance."""
    from datetime import UTC, datetime

    return f"{datetime.now(UTC):%Y%m%d.%H%M%S}-{uuid.uuid4().hex[:6]}"


def _refuse(message: str) -> Exception:
    from privyseal.errors import ClientError

    return ClientError(message)
