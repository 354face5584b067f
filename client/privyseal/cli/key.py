"""`privyseal key`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import (
    APP,
    PATH,
    SCHEMES,
    Output,
    command,
    connect,
    embedded_text,
    enum_name,
    read_text,
    time_text,
    write_new,
)
from privyseal.cli.key_life import commands, state_of, times_of
from privyseal.cli.verify import read_log_key


@command(commands, "list")
@APP
def list_keys(out: Output, app_id: str) -> None:
    """List an app's keys with their versions.

    Example: privyseal key list --app-id 042a1261
    """
    from privyseal.v1 import key_service_pb2 as pb

    with connect() as to:
        found = to.call(to.keys.ListKeys, pb.ListKeysRequest(parent=f"apps/{app_id}")).keys
    rows = [
        {
            "name": v.name,
            "state": state_of(v),
            "primary": v.name == k.primary,
            "publicKeySha256": v.public_key_sha256.hex(),
            "publicKey": v.public_key,
        }
        for k in found
        for v in k.versions
    ]
    lines = (f"{r['name']:<52} {r['state']}{'  primary' if r['primary'] else ''}" for r in rows)
    out.done({"keyVersions": rows}, *lines)


def _algorithm(version: Any) -> str:
    from privyseal.v1 import types_pb2

    name = types_pb2.Algorithm.Name(version.algorithm)
    return str(name.removeprefix("ALGORITHM_").lower().replace("_", "-"))


@command(commands, "show")
@click.argument("name")
@click.option(
    "--public",
    type=PATH,
    default=None,
    help="Write the public key, or certificate, as devices want it.",
)
def show(out: Output, name: str, public: Path | None) -> None:
    """Show a key version: its state, its public key, and where its private key is.

    Example: privyseal key show apps/042a1261/keys/capawesome-v1/versions/1
    """
    from ssl import DER_cert_to_PEM_cert

    from privyseal.errors import ClientError
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.v1 import types_pb2

    if public is not None and public.exists():
        raise ClientError(f"{public} exists; name another with --public")
    key_name = name.partition("/versions/")[0]
    with connect() as to:
        key = to.call(to.keys.GetKey, pb.GetKeyRequest(name=key_name)).key
    found = next((v for v in key.versions if v.name == name), None)
    if found is None:
        raise ClientError(f"there is no {name}; name it as `privyseal key list` does")
    if public is not None:
        scheme = types_pb2.Scheme.Name(key.scheme).removeprefix("SCHEME_").lower()
        text = embedded_text(scheme.replace("_", "-"), found)
        write_new(public, text.encode())
        out.note(f"wrote {public}")
    protection = dict(found.protection) or {"backend": "software"}
    values = {
        "name": found.name,
        "state": state_of(found),
        "primary": found.name == key.primary,
        "algorithm": _algorithm(found),
        "publicKeySha256": found.public_key_sha256.hex(),
        "publicKey": found.public_key,
        "protection": protection,
        **times_of(found),
    }
    lines = [
        f"{label:<18} {values[label]}"
        for label in ("name", "state", "algorithm", "publicKeySha256")
    ]
    lines += [f"{label:<18} {text}" for label, text in times_of(found).items()]
    lines += [f"{label:<18} {text}" for label, text in sorted(protection.items())]
    if found.certificate:
        anchor = found.certificate_anchor_sha256.hex()
        values |= {
            "certificate": DER_cert_to_PEM_cert(found.certificate),
            "certificateEnds": time_text(found.certificate_end_time),
            "certificateAnchorSha256": anchor,
        }
        lines.append(f"{'certificate':<18} until {values['certificateEnds']}")
        lines.append(f"{'issued by':<18} {'the root ' + anchor if anchor else 'itself'}")
    out.done(values, *lines, found.public_key.rstrip())


@command(commands, "import")
@APP
@click.option("--private-key", type=PATH, required=True, help="A PEM file; - for standard input.")
@click.option("--scheme", type=click.Choice(SCHEMES), default="capawesome-v1", show_default=True)
@click.option("--passphrase-file", type=PATH, default=None, help="If it is encrypted; else asked.")
@click.option("--log-key", type=PATH, required=True, help="The log's vkey file.")
@click.option("--in-token", is_flag=True, help="Put it into the daemon's HSM.")
def import_key(
    out: Output,
    *,
    app_id: str,
    private_key: Path,
    passphrase_file: Path | None,
    log_key: Path,
    **where: Any,
) -> None:
    """Hand an existing private key to the daemon; installs in the field keep trusting it.

    It is sealed here for the keyholder, and no request, log or disk holds it in clear. The
    log's key vouches for the keyholder. Others must consent: the refusal says how to ask them.

    Example: privyseal key import --app-id 042a1261 --private-key ionic_cloud_private.pem
    --log-key log.vkey
    """
    from privyseal import private_key as reader
    from privyseal.v1 import key_service_pb2 as pb
    from privyseal.v1 import types_pb2
    from privyseal.verify.importing import ImportTarget, open_import_key, seal

    def passphrase() -> str:
        if passphrase_file is not None:
            return read_text(passphrase_file, "passphrase").rstrip("\r\n")
        return str(click.prompt("Passphrase", hide_input=True, err=True))

    key = reader.load(read_text(private_key, "private key").encode(), passphrase)
    scheme = where["scheme"]
    verifier = read_log_key(log_key)
    with connect() as to:
        note = to.call(to.keys.GetImportKey, pb.GetImportKeyRequest()).note
        target = ImportTarget(app_id, scheme, scheme, key.algorithm, key.public_key_sha256)
        sealed = seal(key.pkcs8, target, open_import_key(note, verifier))
        request = pb.ImportKeyRequest(
            parent=f"apps/{app_id}",
            scheme=types_pb2.Scheme.Value(enum_name("SCHEME", scheme)),
            algorithm=types_pb2.Algorithm.Value(enum_name("ALGORITHM", key.algorithm)),
            public_key_sha256=key.public_key_sha256,
            sealed_private_key=sealed,
            in_token=where["in_token"],
        )
        made = to.call(to.keys.ImportKey, request).key
    out.done(
        {
            "keyVersion": made.primary,
            "publicKeySha256": key.public_key_sha256.hex(),
        },
        f"imported {made.primary}",
        f"public key sha256 {key.public_key_sha256.hex()}",
        "now remove the private key from where it was: CI's secrets, files, backups",
    )
