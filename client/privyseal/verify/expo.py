"""Expo Updates, protocol version 1: what an update holds, and the manifest that is signed.

The manifest's bytes follow from the statement alone, so that whoever has the receipt can build
them: the keyholder that signs, the gateway that serves, and whoever verifies.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from privyseal.verify.canonical import Json, canonical, parse_object
from privyseal.verify.errors import VerificationError

if TYPE_CHECKING:
    from privyseal.verify.statement import Statement

PLATFORMS = ("android", "ios")
MAX_EXPO = 256 * 1024
"""Bytes of an update's content in a statement, canonical JSON."""
_LAUNCH = ("application/javascript", ".bundle")


@dataclass(frozen=True)
class ExpoAsset:
    """A file that an update needs beside its code.

    Attributes:
        path: Its name in the bundle.
        content_type: Such as image/png.
        extension: With its dot.
        sha256: Of its content, 32 bytes.
    """

    path: str
    content_type: str
    extension: str
    sha256: bytes

    @property
    def key(self) -> str:
        """What devices name it by, together with the extension: an MD5 in Expo's exports.

        It is the last part of the path without the extension: code refers to the files of DOM
        components by their whole names, under which devices then have them.
        """
        return self.path.rpartition("/")[2].removesuffix(self.extension)


@dataclass(frozen=True)
class ExpoUpdate:
    """What one platform gets.

    Attributes:
        platform: android or ios.
        runtime_version: Only binaries of exactly this runtime version take it.
        launch_path: The JavaScript bundle's name.
        launch_sha256: Of its content, 32 bytes.
        assets: The other files, in their order.
    """

    platform: str
    runtime_version: str
    launch_path: str
    launch_sha256: bytes
    assets: tuple[ExpoAsset, ...]


@dataclass(frozen=True)
class Expo:
    """What is signed for Expo of a release.

    Attributes:
        updates: One per platform at most, ordered by platform.
        config: The app's Expo configuration, canonical JSON; empty if there is none.
        gateway: Where devices find the files, a URL without a slash at its end; the daemon
            fills it in.
    """

    updates: tuple[ExpoUpdate, ...]
    config: bytes = b""
    gateway: str = ""

    def update(self, platform: str) -> ExpoUpdate | None:
        """Return what a platform gets, if anything."""
        return next((u for u in self.updates if u.platform == platform), None)

    def to_json(self) -> dict[str, Json]:
        """Return the member of the statement."""
        updates: list[Json] = [
            {
                "platform": u.platform,
                "runtimeVersion": u.runtime_version,
                "launch": {"path": u.launch_path, "sha256": u.launch_sha256.hex()},
                "assets": [
                    {
                        "path": a.path,
                        "type": a.content_type,
                        "extension": a.extension,
                        "sha256": a.sha256.hex(),
                    }
                    for a in u.assets
                ],
            }
            for u in self.updates
        ]
        value: dict[str, Json] = {"gateway": self.gateway, "updates": updates}
        if self.config:
            value["config"] = self.parsed_config
        return value

    @cached_property
    def parsed_config(self) -> dict[str, Any]:
        """The configuration, parsed. Raises VerificationError if it is no object."""
        return parse_object(self.config, "Expo configuration")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Expo:
        """Return the content of a statement's member.

        Raises:
            KeyError, TypeError, ValueError: If a member is missing or of a wrong form.
        """
        return cls(
            updates=tuple(
                ExpoUpdate(
                    platform=u["platform"],
                    runtime_version=u["runtimeVersion"],
                    launch_path=u["launch"]["path"],
                    launch_sha256=bytes.fromhex(u["launch"]["sha256"]),
                    assets=tuple(
                        ExpoAsset(a["path"], a["type"], a["extension"], bytes.fromhex(a["sha256"]))
                        for a in u["assets"]
                    ),
                )
                for u in value["updates"]
            ),
            config=canonical(value["config"]) if "config" in value else b"",
            gateway=value["gateway"],
        )

    @cached_property
    def content_sha256(self) -> bytes:
        """The digest of what the caller asked for, 32 bytes: all but the gateway."""
        return hashlib.sha256(canonical({**self.to_json(), "gateway": ""})).digest()


def manifest(statement: Statement, platform: str) -> bytes:
    """Return the manifest of a release for a platform: the bytes that are signed and served.

    Expo takes the update with the later `createdAt`: that is when the daemon signed it, so that
    a caller can choose neither that nor the id. Of what is signed in one second, the release
    counter makes the later one later: it is the milliseconds.

    Args:
        statement: The release.
        platform: android or ios.

    Raises:
        VerificationError: If the release has no update for it.
    """
    expo = statement.expo
    update = expo.update(platform) if expo is not None else None
    if expo is None or update is None:
        raise VerificationError(f"the release has no Expo update for {platform}")
    base = f"{expo.gateway}/apps/{statement.app}/snapshots/{statement.snapshot}"
    created = datetime.fromtimestamp(statement.signed_at, UTC)
    extra: dict[str, Json] = {}
    if expo.config:
        extra["expoClient"] = expo.parsed_config
        told = expo.parsed_config.get("extra")
        # Where libraries look for the project's id.
        if isinstance(told, dict) and isinstance(told.get("eas"), dict):
            extra["eas"] = told["eas"]
    launch = _asset(ExpoAsset(update.launch_path, *_LAUNCH, update.launch_sha256), base)
    # By its content, not its name: devices keep a file whose key they know, unread, and
    # exports can give another content the same name.
    launch["key"] = update.launch_sha256.hex()[:32]
    return canonical(
        {
            "id": update_id(statement, platform),
            "createdAt": f"{created:%Y-%m-%dT%H:%M:%S}.{statement.counter % 1000:03}Z",
            "runtimeVersion": update.runtime_version,
            "launchAsset": launch,
            "assets": [_asset(asset, base) for asset in update.assets],
            "metadata": {},
            "extra": extra,
        }
    )


def update_id(statement: Statement, platform: str) -> str:
    """Return the update's id: a UUID (version 8, RFC 9562) of app, release and platform."""
    name = f"privyseal expo-v1 update\n{statement.app}\n{statement.counter}\n{platform}\n"
    digest = bytearray(hashlib.sha256(name.encode() + statement.bundle_sha256).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def signatures(statement: Statement, signature: bytes) -> dict[str, bytes]:
    """Return each platform's signature out of a receipt's, in which they follow each other.

    Raises:
        VerificationError: If there is not one for each.
    """
    updates = statement.expo.updates if statement.expo is not None else ()
    size, rest = divmod(len(signature), len(updates) or 1)
    if rest or not updates:
        raise VerificationError("the statement has no Expo update, or it lacks a signature")
    return {
        update.platform: signature[at * size : (at + 1) * size] for at, update in enumerate(updates)
    }


def signature_header(signature: bytes, key_id: str) -> str:
    """Return the value of `expo-signature`, a dictionary of strings (RFC 8941)."""
    text = base64.b64encode(signature).decode()
    return f'sig="{text}", keyid="{key_id}", alg="rsa-v1_5-sha256"'


def _asset(asset: ExpoAsset, base: str) -> dict[str, Json]:
    digest = base64.urlsafe_b64encode(asset.sha256).rstrip(b"=").decode()
    return {
        "key": asset.key,
        "contentType": asset.content_type,
        "url": f"{base}/{quote(asset.path)}",
        "hash": digest,
        "fileExtension": asset.extension,
    }
