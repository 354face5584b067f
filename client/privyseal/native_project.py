"""Reads from a native project what its store binary will be: versions, plugin, embedded keys.

Looked at, in the places where Capacitor, Cordova and React Native have them:

- `capacitor.config.ts|js|json`: the plugin's public key.
- `app.json` and `app.config.js|ts` (Expo): versions, and the certificate of updates.
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
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from privyseal.errors import ClientError
from privyseal.expo_runtime import runtime_version
from privyseal.script_literals import (
    MAX_SCRIPT,
    Computed,
    literal,
    object_with,
    properties,
    without_comments,
)

MAX_FILE = 4 << 20
_REMEDIES = {
    "version_name": "name it with --version-name",
    "version_code": "name it with --version-code",
    "public_keys": "name the key's file with --public-key",
}
_PLUGINS = {"LiveUpdate": "capawesome", "CapacitorUpdater": "capgo"}


@dataclass(frozen=True)
class Found:
    """What a project says of one platform's binary; empty where it does not say it.

    Attributes:
        platform: android or ios.
        version_name: As people see it.
        version_code: Android's version code, iOS's build number.
        plugin: The live-update plugin.
        public_keys: As the plugin embeds them.
        unread: Why a value is not read that the project has, by attribute; with the remedy.
    """

    platform: str
    version_name: str = ""
    version_code: str = ""
    plugin: str = ""
    public_keys: tuple[str, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)


def read_project(root: Path) -> list[Found]:
    """Return what a project says, for each platform that it has.

    Args:
        root: Its directory.

    Raises:
        ClientError: If it is no native project.
    """
    if not root.is_dir():
        raise ClientError(f"{root} is not a directory")
    plugin, keys, unread = _capacitor(root)
    found = [_android(root), _ios(root), *_cordova(root), *_expo(root)]
    merged: dict[str, Found] = {}
    for each in (f for f in found if f is not None):
        before = merged.get(each.platform)
        merged[each.platform] = each if before is None else _merge(before, each)
    if not merged:
        raise ClientError(
            f"{root} has neither android nor ios, nor config.xml, app.json or app.config.js; name "
            "the versions with --platform, --version-name, --version-code, --plugin and "
            "--public-key"
        )
    return [
        replace(
            each,
            plugin=each.plugin or plugin,
            public_keys=tuple(dict.fromkeys((*each.public_keys, *keys))),
            unread={**each.unread, **unread},
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
        {**second.unread, **first.unread},
    )


def _text(path: Path, most: int = MAX_FILE) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(most)
    except OSError:
        return ""


def _capacitor(root: Path) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Return the plugin and the public keys in Capacitor's configuration, and what is unread."""
    values = _json(root / "capacitor.config.json")
    for name, plugin in _PLUGINS.items():
        settings = _get(values, "plugins", name)
        if isinstance(settings, dict):
            key = settings.get("publicKey")
            return plugin, (key,) if isinstance(key, str) and key else (), {}
    for file in ("capacitor.config.ts", "capacitor.config.js", "capacitor.config.mjs"):
        text = without_comments(_text(root / file, MAX_SCRIPT))
        for name, plugin in _PLUGINS.items():
            at = re.search(rf"""['"]?\b{name}\b['"]?\s*:\s*\{{""", text)
            if at is None:
                continue
            unread: dict[str, str] = {}
            key = _said(file, properties(text, at.end()), "publicKey", "public_keys", unread)
            return plugin, (key,) if key else (), unread
    return "", (), {}


def _said(
    file: str, values: Mapping[str, str], name: str, attribute: str, unread: dict[str, str]
) -> str:
    """Return a property that a script says outright; note why it is unread if it does not."""
    if name not in values:
        return ""
    try:
        return literal(values[name])
    except Computed:
        unread[attribute] = (
            f"{file} computes its {name}, which is not run here; {_REMEDIES[attribute]}"
        )
        return ""


def _android(root: Path) -> Found | None:
    folder = root / "android/app"
    if not folder.is_dir():
        return None
    text = without_comments(_text(folder / "build.gradle") or _text(folder / "build.gradle.kts"))
    unread: dict[str, str] = {}
    name = _only(text, "versionName", r"""("[^"$\n]*"|'[^'\n]*')""", "version_name", unread)
    code = _only(text, "versionCode", "([0-9]+)", "version_code", unread)
    strings = _text(folder / "src/main/res/values/strings.xml")
    key = re.search(r'<string[^>]*name="CodePushPublicKey"[^>]*>([^<]+)</string>', strings)
    return Found(
        "android",
        name[1:-1],
        code,
        "codepush" if key else "",
        (key[1],) if key else (),
        unread,
    )


def _only(text: str, name: str, value: str, attribute: str, unread: dict[str, str]) -> str:
    """Return the one value of a Gradle property; note why it is unread if there are several."""
    told = set(re.findall(rf"\b{name}\s*(?:=\s*)?{value}", text))
    if len(told) > 1:
        unread[attribute] = f"the Gradle file has several {name}; {_REMEDIES[attribute]}"
        return ""
    return str(told.pop()) if told else ""


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
    if not isinstance(values, dict):
        values = {}
    project = next(iter(sorted(root.glob("ios/**/project.pbxproj"))), None)
    text = _text(project) if project else ""
    key = str(values.get("CodePushPublicKey", ""))
    unread: dict[str, str] = {}
    return Found(
        "ios",
        _plist_value(values, "CFBundleShortVersionString", text, "version_name", unread),
        _plist_value(values, "CFBundleVersion", text, "version_code", unread),
        "codepush" if key else "",
        (key,) if key else (),
        unread,
    )


def _app_plists(root: Path) -> list[Path]:
    skipped = ("Pods", "Tests")
    found = sorted(root.glob("ios/*/Info.plist"))
    return [p for p in found if not any(word in p.parts[-2] for word in skipped)]


def _plist_value(
    values: Mapping[str, Any], name: str, project: str, attribute: str, unread: dict[str, str]
) -> str:
    value = str(values.get(name, ""))
    variable = re.fullmatch(r"\$[({](\w+)[)}]", value)
    if variable is None:
        return value
    told = set(re.findall(rf"\b{variable[1]}\s*=\s*\"?([^;\"]+)\"?\s*;", project))
    if len(told) > 1:
        unread[attribute] = f"the Xcode project has several {variable[1]}; {_REMEDIES[attribute]}"
        return ""
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
    """Return what `app.json` says, and over it `app.config.ts|js`, which starts from that."""
    values = _get(_json(root / "app.json"), "expo")
    file = next((f for f in ("app.config.ts", "app.config.js") if (root / f).is_file()), "")
    if not file and not isinstance(values, dict):
        return []
    project = _Expo(values, file, without_comments(_text(root / file, MAX_SCRIPT)) if file else "")
    found = []
    for platform, code in (("android", "versionCode"), ("ios", "buildNumber")):
        unread: dict[str, str] = {}
        number = project.say("version_code", unread, platform, code)
        certificate = project.say("public_keys", unread, "updates", "codeSigningCertificate")
        key = _text(root / certificate) if certificate else ""
        if certificate and not key:
            unread["public_keys"] = (
                f"the project's certificate {certificate} cannot be read; "
                + _REMEDIES["public_keys"]
            )
        plugin = "expo" if certificate else ""
        version = project.runtime_version(platform, unread) if certificate else ""
        if not version and "version_name" not in unread:
            version = project.say("version_name", unread, "version")
        found.append(Found(platform, version, number, plugin, (key,) if key else (), unread))
    return found


class _Expo:
    """Expo's configuration: static values, and what a script says over them.

    Args:
        values: Of `app.json`.
        file: The script's name; "" if there is none.
        script: The script, without comments.
    """

    def __init__(self, values: object, file: str, script: str) -> None:
        self._values = values
        self._file = file
        self._script = script
        # "version" alone is no sign: a script can hold other objects that have one.
        kinds = ({"slug"}, {"expo"}, {"android", "ios", "updates"})
        made = next((o for kind in kinds if (o := object_with(script, kind)) is not None), None)
        inner = (made or {}).get("expo", "")
        self._made = properties(inner, 1) if inner.startswith("{") else made

    def say(self, attribute: str, unread: dict[str, str], *names: str) -> str:
        """Return a value by its path; "" if none is said, or why it is unread is noted."""
        if self._file:
            over = self._over(attribute, unread, *names)
            if over or attribute in unread:
                return over
        value = _get(self._values, *names)
        return "" if value is None else str(value)

    def runtime_version(self, platform: str, unread: dict[str, str]) -> str:
        """Return what devices with code signing say of themselves; it stands for the version."""
        if self._file and re.search(r"\bruntimeVersion\b", self._script):
            written = self._over("version_name", unread, "runtimeVersion")
            if not written:
                unread["version_name"] = (
                    f"{self._file} computes its runtimeVersion, which is not run here; "
                    + _REMEDIES["version_name"]
                )
            return written
        values = self._values if isinstance(self._values, dict) else {}
        own = values.get(platform)
        told = (own if isinstance(own, dict) else {}).get("runtimeVersion")
        if not (told or values.get("runtimeVersion")):
            return ""
        version = runtime_version(values, platform)
        if not version:
            unread["version_name"] = (
                "the project's runtime version is not written in app.json; "
                + _REMEDIES["version_name"]
            )
        return version

    def _over(self, attribute: str, unread: dict[str, str], *names: str) -> str:
        *outer, name = names
        # What is assigned later is not in the object.
        assigned = re.search(rf"\.{name}\s*=(?![=>])", self._script)
        inside = None if assigned else self._made
        for each in outer:
            source = (inside or {}).get(each, "{}")
            known = inside is not None and source.startswith("{")
            inside = properties(source, 1) if known else None
        if inside is None:
            inside = {name: ""} if re.search(rf"\b{name}\b", self._script) else {}
        return _said(self._file, inside, name, attribute, unread)


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
