"""`privyseal artifact`: what devices of other protocols want, from a bundle and its receipt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from privyseal.cli.common import PATH, F, Output, command
from privyseal.cli.verify import verified

commands = click.Group(
    "artifact", help="Make what Capgo, CodePush, Expo, minisign and Sparkle want."
)


def _inputs(function: F) -> F:
    """Add what every command here takes."""
    settings: list[Callable[[F], F]] = [
        click.option("--output-path", type=PATH, required=True),
        click.option("--log-key", type=PATH, required=True, help="The log's vkey file."),
        click.option("--public-key", type=PATH, required=True, help="The app's statement key."),
        click.option("--receipt", type=PATH, required=True),
        click.argument("bundle", type=PATH),
    ]
    for setting in settings:
        function = setting(function)
    return function


@command(commands, "capgo")
@_inputs
def capgo(out: Output, bundle: Path, output_path: Path, **given: Path) -> None:
    """Encrypt a bundle for Capgo; prints the checksum and the session key of the update.

    Example: privyseal artifact capgo bundle.zip --receipt receipt.json
    --public-key statement.pem --log-key log.vkey --output-path capgo.zip
    """
    from privyseal import devices

    proven = verified(bundle, **given)
    checksum, session_key = devices.capgo(bundle, proven, output_path)
    out.done(
        {"artifact": str(output_path), "checksum": checksum, "sessionKey": session_key},
        f"wrote {output_path}",
        f"checksum     {checksum}",
        f"session_key  {session_key}",
    )


@command(commands, "codepush")
@_inputs
def codepush(out: Output, bundle: Path, output_path: Path, **given: Path) -> None:
    """Make the zip that react-native-code-push verifies.

    Example: privyseal artifact codepush bundle.zip --receipt receipt.json
    --public-key statement.pem --log-key log.vkey --output-path codepush.zip
    """
    from privyseal import devices

    proven = verified(bundle, **given)
    devices.codepush(bundle, proven, output_path)
    package_hash = proven.statement.codepush_sha256.hex()
    out.done(
        {"artifact": str(output_path), "packageHash": package_hash},
        f"wrote {output_path}",
        f"package_hash  {package_hash}",
    )


@command(commands, "expo")
@click.option("--platform", type=click.Choice(["android", "ios"]), required=True)
@click.option("--key-id", default="main", show_default=True, help="As the app is configured.")
@_inputs
def expo(
    out: Output, bundle: Path, output_path: Path, platform: str, key_id: str, **given: Path
) -> None:
    """Write the manifest that Expo devices verify; prints the header that goes with it.

    Example: privyseal artifact expo bundle.zip --platform android --receipt receipt.json
    --public-key statement.pem --log-key log.vkey --output-path manifest.json
    """
    from privyseal import devices

    header = devices.expo(verified(bundle, **given), platform, key_id, output_path)
    out.done(
        {"manifest": str(output_path), "expoSignature": header},
        f"wrote {output_path}",
        f"expo-signature: {header}",
    )


@command(commands, "sparkle")
@_inputs
def sparkle(out: Output, bundle: Path, output_path: Path, **given: Path) -> None:
    """Write the attributes of an appcast's enclosure for a bundle, which Sparkle verifies.

    Example: privyseal artifact sparkle bundle.zip --receipt receipt.json
    --public-key statement.pem --log-key log.vkey --output-path enclosure.txt
    """
    from privyseal import devices

    text = devices.sparkle(verified(bundle, **given), output_path)
    out.done({"attributes": text}, f"wrote {output_path}", text)


@command(commands, "minisign")
@_inputs
@click.option("--tauri", is_flag=True, help="As Tauri's updater wants it: base64 of the file.")
def minisign(out: Output, bundle: Path, output_path: Path, *, tauri: bool, **given: Path) -> None:
    """Write the .minisig file of a bundle, which minisign verifies, or Tauri's updater.

    Tauri's configuration wants the public key as base64, too: `base64 -w0 minisign.pub`.

    Example: privyseal artifact minisign bundle.zip --receipt receipt.json
    --public-key statement.pem --log-key log.vkey --output-path bundle.zip.minisig
    """
    from privyseal import devices

    devices.minisign(verified(bundle, **given), output_path, tauri=tauri)
    out.done({"signature": str(output_path)}, f"wrote {output_path}")
