"""What a caller may have signed for Expo's devices."""

from __future__ import annotations

import re

from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import MAX_EXPO, PLATFORMS, Expo, ExpoAsset, ExpoUpdate

from privyseald.model.errors import InvalidArgument
from privyseald.model.fields import digest, text

MAX_ASSETS = 5000
MAX_CONFIG = 64 * 1024
_KEY = re.compile(r"[A-Za-z0-9._-]{1,200}")
_CONTENT_TYPE = re.compile(r"[a-z]+/[A-Za-z0-9.+-]{1,100}")
_EXTENSION = re.compile(r"\.[A-Za-z0-9._-]{1,31}")


def check(expo: Expo) -> Expo:
    """Return valid content, ordered by platform, its configuration in canonical form.

    Raises:
        InvalidArgument: Naming what is wrong.
    """
    platforms = [update.platform for update in expo.updates]
    if not platforms or len(set(platforms)) != len(platforms) or not set(platforms) <= {*PLATFORMS}:
        raise InvalidArgument("expo", "must name android, ios or both, each at most once")
    if len(expo.config) > MAX_CONFIG:
        raise InvalidArgument("expo.config", f"must be at most {MAX_CONFIG:,} bytes")
    for update in expo.updates:
        _check_update(update)
    try:
        made = Expo(
            updates=tuple(sorted(expo.updates, key=lambda u: u.platform)), config=expo.config
        )
        value = made.to_json()
        # As deep as it is in the statement: what can be encoded here can be there.
        size = len(canonical({"predicate": {"expo": value}}))
    except (VerificationError, ValueError, RecursionError) as error:
        raise InvalidArgument(
            "expo.config", f"must be a JSON object without fractions, with ASCII names: {error}"
        ) from None
    if size > MAX_EXPO:
        raise InvalidArgument("expo", f"must take at most {MAX_EXPO:,} bytes, got {size:,}")
    return Expo(made.updates, canonical(value["config"]) if made.config else b"")


def _check_update(update: ExpoUpdate) -> None:
    text(update.runtime_version, "expo.runtime_version", 100, least=1)
    digest(update.launch_sha256, "expo.launch_sha256")
    if len(update.assets) > MAX_ASSETS:
        raise InvalidArgument("expo.assets", f"must be at most {MAX_ASSETS:,}")
    seen: set[str] = set()
    launch = ExpoAsset(update.launch_path, "", "", b"")
    for asset in (launch, *update.assets):
        path, key = asset.path, asset.key
        text(path, "expo.path", 1024, least=1)
        parts = path.split("/")
        if not _KEY.fullmatch(key) or any(part in {"", ".", ".."} for part in parts):
            raise InvalidArgument(
                "expo.path", "must be a name in the zip, its last part of A-Z a-z 0-9 . _ -"
            )
        if key in seen:
            raise InvalidArgument("expo.path", f"has {key} twice; devices keep one file of a name")
        seen.add(key)
    for asset in update.assets:
        digest(asset.sha256, "expo.sha256")
        if not _CONTENT_TYPE.fullmatch(asset.content_type):
            raise InvalidArgument("expo.content_type", "must be a media type such as image/png")
        if not _EXTENSION.fullmatch(asset.extension):
            raise InvalidArgument("expo.extension", "must be such as .png; devices want one")
