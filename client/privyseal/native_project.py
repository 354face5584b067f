"""Reads from a native project what its store binary will be: versions, plugin, embedded keys.

Looked at, in the places where Capacitor, Cordova and React Native have them:

- `capacitor.config.ts|js|json` and `app.json`: the plugin's public key.
- `android/app/build.gradle(.kts)`: versionName and versionCode; `strings.xml`: CodePush's key.
- `ios/App`, `ios/*`: Info.plist, and the Xcode project where it refers to that.
- `config.xml` (Cordova): versions of both platforms.

Nothing is run: a value that only code computes is not found, and is given as an option.
"""

from __future__ import annotations

import base64
import binascii
import json
import plistlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from privyseal.errors import ClientError

MAX_FILE = 4 << 20
_PLUGINS = {"LiveUpdate": "capawesome", "CapacitorUpdater": "capgo"}
_STRING = r"""(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"|`([^`$]*)`)"""


@dataclass(frozen=True)
class Found:
    """What a project says of one platform's binary; empty where it does not say it."""

    platform: str
    version_name: str = ""
    version_code: str = ""
    plugin: str = ""
    public_keys: tuple[str, ...] = field(default=())


def read_project(root: Path) -> list[Found]:
    """Return what a project says, for each platform that it has.

    Args:
        root: Its directory.

    Raises:
        ClientError: If it is no native project.
    """
    if not root.is_dir():
        raise ClientError(f"{root} is not a directory")
    plugin, keys = _capacitor(root)
    found = [_android(root), _ios(root), *_cordova(root), *_expo(root)]
    merged: dict[str, Found] = {}
    for each in (f for f in found if f is not None):
        before = merged.get(each.platform)
        merged[each.platform] = each if before is None else _merge(before, each)
    if not merged:
        raise ClientError(
            f"{root} has neither android nor ios, nor config.xml or app.json; name the "
            "versions with --platform, --version-name, --version-code, --plugin and --public-key"
        )
    return [
        replace(
            each,
            plugin=each.plugin or plugin,
            public_keys=tuple(dict.fromkeys((*each.public_keys, *keys))),
        )
        for each in merged.values()
    ]


def _merge(first: Found, second: Found) -> Found:
    return Found(
        first.platform,
        first.version_name or second.version_name,
        first.version_code or second.version_code,
        first.plugin or second.plugin,
        first.public_keys or second.public_keys,
    )


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE)
    except OSError:
        return ""


def _capacitor(root: Path) -> tuple[str, tuple[str, ...]]:
    """Return the plugin and the public keys in Capacitor's configuration."""
    values = _json(root / "capacitor.config.json")
    for name, plugin in _PLUGINS.items():
        settings = _get(values, "plugins", name)
        if isinstance(settings, dict):
            key = settings.get("publicKey")
            return plugin, (key,) if isinstance(key, str) and key else ()
    for file in ("capacitor.config.ts", "capacitor.config.js", "capacitor.config.mjs"):
        text = _without_comments(_text(root / file))
        for name, plugin in _PLUGINS.items():
            at = re.search(rf"""['"]?\b{name}\b['"]?\s*:\s*\{{""", text)
            if at is None:
                continue
            block = _block(text, at.end())
            key = re.search(rf"""['"]?\bpublicKey\b['"]?\s*:\s*{_STRING}\s*[,}}\n]""", block)
            if key is None and re.search(r"\bpublicKey\b", block):
                raise ClientError(
                    f"{file} computes its publicKey, which is not run here; name the key's file "
                    "with --public-key"
                )
            return plugin, (_unescape(_first(key)),) if key else ()
    return "", ()


def _block(text: str, start: int) -> str:
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start : at + 1]
    return text[start:]


def _without_comments(text: str) -> str:
    return re.sub(rf"{_STRING}|/\*.*?\*/|//[^\n]*", _keep_strings, text, flags=re.DOTALL)


def _keep_strings(match: re.Match[str]) -> str:
    return " " if match[0].startswith("/") else match[0]


def _first(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None)


def _unescape(text: str) -> str:
    plain = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda m: plain.get(m[1], m[1]), text)


def _android(root: Path) -> Found | None:
    folder = root / "android/app"
    if not folder.is_dir():
        return None
    text = _without_comments(_text(folder / "build.gradle") or _text(folder / "build.gradle.kts"))
    name = re.search(rf"\bversionName\s*(?:=\s*)?{_STRING}", text)
    code = re.search(r"\bversionCode\s*(?:=\s*)?([0-9]+)", text)
    strings = _text(folder / "src/main/res/values/strings.xml")
    key = re.search(r'<string[^>]*name="CodePushPublicKey"[^>]*>([^<]+)</string>', strings)
    return Found(
        "android",
        _first(name) if name else "",
        code[1] if code else "",
        "codepush" if key else "",
        (key[1],) if key else (),
    )


def _ios(root: Path) -> Found | None:
    plist = next(
        (
            path
            for path in (*sorted(root.glob("ios/App/App/Info.plist")), *_app_plists(root))
            if path.is_file()
        ),
        None,
    )
    if plist is None:
        return None
    try:
        with plist.open("rb") as file:
            values = plistlib.loads(file.read(MAX_FILE))
    except (OSError, ValueError, plistlib.InvalidFileException):
        values = {}
    project = next(iter(sorted(root.glob("ios/**/project.pbxproj"))), None)
    text = _text(project) if project else ""
    key = str(values.get("CodePushPublicKey", ""))
    return Found(
        "ios",
        _plist_value(values, "CFBundleShortVersionString", text),
        _plist_value(values, "CFBundleVersion", text),
        "codepush" if key else "",
        (key,) if key else (),
    )


def _app_plists(root: Path) -> list[Path]:
    skipped = ("Pods", "Tests")
    found = sorted(root.glob("ios/*/Info.plist"))
    return [p for p in found if not any(word in p.parts[-2] for word in skipped)]


def _plist_value(values: Any, name: str, project: str) -> str:
    value = str(values.get(name, "")) if isinstance(values, dict) else ""
    variable = re.fullmatch(r"\$[({](\w+)[)}]", value)
    if variable is None:
        return value
    told = set(re.findall(rf"\b{variable[1]}\s*=\s*\"?([^;\"]+)\"?\s*;", project))
    if len(told) > 1:
        raise ClientError(
            f"the Xcode project has several {variable[1]}; name the right one with "
            "--version-name or --version-code"
        )
    return told.pop().strip() if told else ""


def _cordova(root: Path) -> list[Found]:
    text = re.sub(r"<!--.*?-->", "", _text(root / "config.xml"), flags=re.DOTALL)
    widget = re.search(r"<widget\b([^>]*)>", text)
    if widget is None:
        return []

    def attribute(name: str) -> str:
        at = re.search(rf"""(?<![-\w]){name}\s*=\s*["']([^"']*)["']""", widget[1])
        return at[1] if at else ""

    version = attribute("version")
    # The plugin verifies nothing, and embeds no key.
    plugin = "ionic" if "cordova-plugin-ionic" in text + _text(root / "package.json") else ""
    codes = {"android": "android-versionCode", "ios": "ios-CFBundleVersion"}
    return [
        Found(platform, version, attribute(name), plugin)
        for platform, name in codes.items()
        if f'platform name="{platform}"' in text or (root / "platforms" / platform).is_dir()
    ]


def _expo(root: Path) -> list[Found]:
    values = _get(_json(root / "app.json"), "expo")
    if not isinstance(values, dict):
        return []
    version = str(values.get("version", ""))
    android, ios = (_get(values, name) or {} for name in ("android", "ios"))
    certificate = _get(values, "updates", "codeSigningCertificate")
    keys = (_text(root / str(certificate)),) if certificate else ()
    plugin = "expo" if certificate else ""
    return [
        Found("android", version, str(android.get("versionCode", "")), plugin, keys),
        Found("ios", version, str(ios.get("buildNumber", "")), plugin, keys),
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "null")
    except (ValueError, RecursionError):
        raise ClientError(f"{path} is no JSON") from None


def _get(values: Any, *names: str) -> Any:
    for name in names:
        values = values.get(name) if isinstance(values, dict) else None
    return values


def key_sha256(text: str) -> bytes:
    """Return the digest of a public key as plugins embed it: PEM in any of their forms.

    SubjectPublicKeyInfo and PKCS #1, with or without line breaks, and X.509 certificates.

    Raises:
        ClientError: If it is none.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    from privyseal.verify.errors import VerificationError
    from privyseal.verify.keys import load_public_key, public_key_sha256

    match = re.search(r"-----BEGIN ([A-Z ]+)-----(.*?)-----END \1-----", text, re.DOTALL)
    body = match[2] if match else text
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
        kind = match[1] if match else "PUBLIC KEY"
        if kind == "CERTIFICATE":
            key: Any = x509.load_der_x509_certificate(der).public_key()
        else:
            key = serialization.load_der_public_key(der)
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        der = key.public_bytes(serialization.Encoding.DER, spki)
        return public_key_sha256(load_public_key(der))
    except (binascii.Error, ValueError, TypeError, VerificationError):
        shown = text.strip()[:40].replace("\n", " ")
        raise ClientError(f"the project embeds what is no public key: {shown}…") from None
