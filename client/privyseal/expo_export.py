"""Reads what `npx expo export` wrote: which files each platform gets, and their order.

`metadata.json` names the code and the assets of each platform; `expoConfig.json`, if the build
wrote one (`npx expo config --type public --json`), becomes the manifest's `extra.expoClient`.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privyseal.errors import BuildError
from privyseal.expo_runtime import runtime_version
from privyseal.v1 import types_pb2
from privyseal.verify.canonical import MAX_SAFE_INTEGER, canonical
from privyseal.verify.expo import PLATFORMS, Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.messages import expo_to_message

METADATA, CONFIG = "metadata.json", "expoConfig.json"
_MAX_FILE = 4 << 20
# Its own table, not the machine's: the same build gives the same manifest anywhere.
_TYPES = mimetypes.MimeTypes(filenames=())
_MORE_TYPES = {".ttf": "font/ttf", ".otf": "font/otf", ".db": "application/octet-stream"}


def read_export(
    root: Path, digests: Mapping[str, bytes], runtime_versions: Sequence[str]
) -> types_pb2.ExpoContent | None:
    """Return what is to be signed for Expo of a build; None if it is no export of Expo's.

    Args:
        root: The build.
        digests: SHA-256 of each file in its bundle, by name.
        runtime_versions: Over the configuration's: one for all, or PLATFORM=VERSION.

    Raises:
        BuildError: If the export is damaged, or nothing says the runtime version.
    """
    files = _object(root, METADATA, digests).get("fileMetadata")
    if not isinstance(files, dict) or not set(PLATFORMS) & set(files):
        if runtime_versions:
            raise BuildError(
                f"build directory {root} is no export of Expo's, and --runtime-version is for "
                f"those: it has no {METADATA} with android or ios; run `npx expo export`"
            )
        return None
    config = _object(root, CONFIG, digests)
    try:
        updates = tuple(
            _update(platform, _chosen(runtime_versions, config, platform), files[platform], digests)
            for platform in PLATFORMS
            if platform in files
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{METADATA} lacks a member or has one of a wrong form") from error
    if (where := _not_canonical(config, CONFIG)) is not None:
        raise BuildError(
            f"{where} cannot be signed: it is a fraction, too large a number, or has a name that "
            "is not ASCII; make it a text, or leave it out"
        )
    try:
        text = canonical(config) if config else b""
    except (ValueError, RecursionError) as error:
        raise BuildError(f"{CONFIG} cannot be signed: {error}") from None
    return expo_to_message(Expo(updates, text))


def _object(root: Path, name: str, digests: Mapping[str, bytes]) -> dict[str, Any]:
    if name not in digests:
        return {}
    try:
        with (root / name).open("rb") as file:
            value = json.loads(file.read(_MAX_FILE))
    except (OSError, ValueError, RecursionError):
        raise BuildError(f"{name} is no JSON, or cannot be read") from None
    return value if isinstance(value, dict) else {}


def _chosen(given: Sequence[str], config: Mapping[str, Any], platform: str) -> str:
    """Return a platform's runtime version. Raises BuildError if nothing says it."""
    named = dict(text.split("=", 1) for text in given if text.startswith(("android=", "ios=")))
    plain = [text for text in given if not text.startswith(("android=", "ios="))]
    told = named.get(platform) or (plain[-1] if plain else runtime_version(config, platform))
    if not told:
        raise BuildError(
            f"nothing says the runtime version of this export for {platform}: have {CONFIG} in it "
            "(npx expo config --type public --json), or name it with --runtime-version, for one "
            f"platform as {platform}=VERSION; of the fingerprint policy, npx expo-updates "
            f"runtimeversion:resolve --platform {platform} tells it"
        )
    return told


def _not_canonical(value: object, name: str) -> str | None:
    """Return the name of the first part of a value that has no canonical form, None if none."""
    if isinstance(value, dict):
        for key, member in value.items():
            if not key.isascii():
                return f"{name}.{key}"
            if (found := _not_canonical(member, f"{name}.{key}")) is not None:
                return found
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if (found := _not_canonical(item, f"{name}[{number}]")) is not None:
                return found
    elif isinstance(value, float) or (isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER):
        return name
    return None


def _update(
    platform: str, version: str, listed: Mapping[str, Any], digests: Mapping[str, bytes]
) -> ExpoUpdate:
    # Exports made on Windows have its separators.
    launch = listed["bundle"].replace("\\", "/")
    assets = tuple(
        _asset(a["path"].replace("\\", "/"), a["ext"], digests) for a in listed["assets"]
    )
    # A file that is used twice is there once.
    unique = tuple(dict.fromkeys(assets))
    return ExpoUpdate(platform, version, launch, _digest(launch, digests), unique)


def _asset(path: str, extension: str, digests: Mapping[str, bytes]) -> ExpoAsset:
    if not extension:
        raise BuildError(f"{METADATA} says no extension of {path!r}, and devices want one")
    dotted = f".{extension.lstrip('.')}"
    media = _MORE_TYPES.get(dotted.lower()) or _TYPES.guess_type(f"a{dotted}")[0]
    return ExpoAsset(path, media or "application/octet-stream", dotted, _digest(path, digests))


def _digest(path: str, digests: Mapping[str, bytes]) -> bytes:
    if path not in digests:
        raise BuildError(f"{METADATA} names {path!r}, which the build has not; export it anew")
    return digests[path]
