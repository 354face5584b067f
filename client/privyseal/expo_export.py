"""Reads what `npx expo export` wrote: which files each platform gets, and their order.

`metadata.json` names the code and the assets of each platform; `expoConfig.json`, if the build
wrote one (`npx expo config --type public --json`), becomes the manifest's `extra.expoClient`.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privyseal.errors import BuildError
from privyseal.v1 import types_pb2
from privyseal.verify.canonical import canonical
from privyseal.verify.expo import PLATFORMS, Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.messages import expo_to_message

METADATA, CONFIG = "metadata.json", "expoConfig.json"
_MAX_FILE = 4 << 20
# Its own table, not the machine's: the same build gives the same manifest anywhere.
_TYPES = mimetypes.MimeTypes(filenames=())
_MORE_TYPES = {".ttf": "font/ttf", ".otf": "font/otf", ".db": "application/octet-stream"}


def read_export(
    root: Path, digests: Mapping[str, bytes], runtime_version: str
) -> types_pb2.ExpoContent | None:
    """Return what is to be signed for Expo of a build; None if it is no export of Expo's.

    Args:
        root: The build.
        digests: SHA-256 of each file in its bundle, by name.
        runtime_version: Over the configuration's; empty to take that.

    Raises:
        BuildError: If the export is damaged, or nothing says the runtime version.
    """
    files = _object(root, METADATA, digests).get("fileMetadata")
    if not isinstance(files, dict) or not set(PLATFORMS) & set(files):
        if runtime_version:
            raise BuildError(
                f"build directory {root} is no export of Expo's, and --runtime-version is for "
                f"those: it has no {METADATA} with android or ios; run `npx expo export`"
            )
        return None
    config = _object(root, CONFIG, digests)
    version = runtime_version or _runtime_version(config)
    try:
        updates = tuple(
            _update(platform, version, files[platform], digests)
            for platform in PLATFORMS
            if platform in files
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{METADATA} lacks a member or has one of a wrong form") from error
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


def _runtime_version(config: Mapping[str, Any]) -> str:
    told = config.get("runtimeVersion")
    if isinstance(told, dict) and told.get("policy") == "appVersion":
        told = config.get("version")
    if not isinstance(told, str) or not told:
        raise BuildError(
            "this is an export of Expo's, and nothing says for which runtime version it is: "
            f"name it with --runtime-version, or have {CONFIG} in it"
        )
    return told


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
    dotted = f".{extension.lstrip('.')}" if extension else ""
    media = _MORE_TYPES.get(dotted.lower()) or _TYPES.guess_type(f"a{dotted}")[0]
    return ExpoAsset(path, media or "application/octet-stream", dotted, _digest(path, digests))


def _digest(path: str, digests: Mapping[str, bytes]) -> bytes:
    if path not in digests:
        raise BuildError(f"{METADATA} names {path!r}, which the build has not; export it anew")
    return digests[path]
