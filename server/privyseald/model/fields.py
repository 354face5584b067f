"""What the fields of requests may hold; every check names its field and the remedy."""

from __future__ import annotations

import re
import unicodedata

from privyseal.verify.statement import NativeRange

from privyseald.model.errors import InvalidArgument
from privyseald.model.native import NATIVE_VERSION, numbers

# Unicode's categories of controls, formats, surrogates, and line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_RUNTIME = re.compile(r"[A-Za-z0-9.:()_+-]{1,64}")
_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}")
_PRINCIPAL = re.compile(
    r"(token|certificate):[A-Za-z0-9][A-Za-z0-9._@-]{0,99}"
    r"|workload:[a-z0-9][a-z0-9-]{0,30}:[A-Za-z0-9][A-Za-z0-9._@/{}:-]*"
    r"|spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+"
)
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
MAX_PRINCIPAL = 128
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URL = re.compile(r"(https?|file)://[^\s\x00-\x20\x7f]+")
MAX_BUNDLE = 2**32 - 2
MAX_ARCHIVE = 512 << 20
"""Bytes of an archive that is signed as it is: a keyholder has it in memory, twice."""
ALL_APPS = "-"


def _match(pattern: re.Pattern[str], field: str, value: str, remedy: str) -> str:
    if not pattern.fullmatch(value):
        raise InvalidArgument(field, remedy)
    return value


def app_id(value: str, field: str = "app_id") -> str:
    """Return a valid app id."""
    return _match(
        _APP,
        field,
        value,
        "must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
    )


def key_id(value: str) -> str:
    """Return a valid key id."""
    return _match(_KEY, "key_id", value, "must be 1 to 63 lower-case letters, digits or '-'")


def channel_id(value: str, field: str = "channel_id") -> str:
    """Return a valid channel id."""
    return _match(_CHANNEL, field, value, "must be 1 to 100 letters, digits, '.', '_' or '-'")


def build_id(value: str) -> str:
    """Return a valid id of a native build."""
    why = "must be 1 to 100 letters, digits, '.', '_' or '-'"
    return _match(_CHANNEL, "native_build_id", value, why)


def native_version(value: str, field: str) -> str:
    """Return a version name of a store binary."""
    if len(value) > 32:
        raise InvalidArgument(field, "must be at most 32 characters")
    return _match(NATIVE_VERSION, field, value, "must be a version such as 1.2.3")


def runtime_version(value: str, field: str) -> str:
    """Return a runtime version of Expo's, by which devices name their binary."""
    why = "must be a runtime version: 1 to 64 letters, digits and . : ( ) _ + -"
    return _match(_RUNTIME, field, value, why)


def version(value: str) -> str:
    """Return a valid release version."""
    return _match(
        _VERSION, "version", value, "must be 1 to 100 letters, digits, '.', '_', '+' or '-'"
    )


def parts(name: str, field: str, *collections: str) -> tuple[str, ...]:
    """Split a resource name such as apps/a/keys/k into its ids.

    Raises:
        InvalidArgument: If it is not of the form that the collections make.
    """
    pieces = name.split("/")
    form = "/".join(f"{c}/{{{_one_of(c)}}}" for c in collections)
    if pieces[::2] != list(collections) or len(pieces) != 2 * len(collections):
        raise InvalidArgument(field, f"must be of the form {form}")
    ids = tuple(pieces[1::2])
    if collections[0] == "apps":
        app_id(ids[0], field)
    if any(not _CHANNEL.fullmatch(i) for i in ids[1:]):
        raise InvalidArgument(field, f"must be of the form {form}")
    return ids


def _one_of(collection: str) -> str:
    return re.sub("ies$", "y", collection).removesuffix("s")


def app_name(name: str, field: str) -> str:
    """Return the id in apps/{app}."""
    app = name[5:]
    if name.startswith("apps/") and _APP.fullmatch(app):
        return app
    return parts(name, field, "apps")[0]


def number(value: str, field: str) -> int:
    """Return a positive number out of a resource name."""
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise InvalidArgument(field, "must end in a number")
    return int(value)


def resource(name: str, field: str) -> str:
    """Return the id in apps/{app}, or `-` for all apps."""
    return ALL_APPS if name == "apps/-" else app_name(name, field)


def principal(value: str) -> str:
    """Return a valid principal."""
    if len(value) > MAX_PRINCIPAL:
        raise InvalidArgument("principal", f"must be at most {MAX_PRINCIPAL} characters")
    return _match(
        _PRINCIPAL,
        "principal",
        value,
        "must be token:{id}, certificate:{common name}, spiffe://{trust domain}/{path} or "
        "workload:{issuer}:{immutable id}",
    )


def serial(value: str) -> str:
    """Return a certificate's serial number: lower-case hexadecimal, no leading zeros."""
    text = value.replace(":", "").lower().removeprefix("0x").lstrip("0")
    return _match(_SERIAL, "serial", text, "must be 1 to 40 hexadecimal digits")


def request_id(value: str) -> str:
    """Return a request id: a UUID in its usual form."""
    return _match(
        _UUID, "request_id", value, "must be a UUID; make a new one for each new request"
    ).lower()


def digest(value: bytes, field: str) -> bytes:
    """Return a SHA-256 digest."""
    if len(value) != 32:
        raise InvalidArgument(
            field, f"must be a SHA-256 digest of 32 bytes, got {len(value)} bytes"
        )
    return value


def bundle_length(value: int) -> int:
    """Return the length of a zip in bytes."""
    if not 1 <= value <= MAX_BUNDLE:
        raise InvalidArgument("bundle_length", f"must be 1 to {MAX_BUNDLE} bytes")
    return value


def text(value: str, field: str, most: int, *, least: int = 0) -> str:
    """Return a text for people, within bounds and without control characters."""
    if not least <= len(value) <= most:
        raise InvalidArgument(field, f"must be {least} to {most} characters, got {len(value)}")
    if not value.isascii() or not value.isprintable():
        # Controls, and what hides or turns text: people decide on what they read.
        bad = next((c for c in value if unicodedata.category(c) in _UNSEEN), "")
        if bad:
            raise InvalidArgument(field, f"must not contain U+{ord(bad):04X}, which is not seen")
    return value


def shown_text(value: str, most: int) -> str:
    """Return a text of somebody else's as people can be shown it: in a line, cut to a length."""
    seen = (" " if unicodedata.category(c) in _UNSEEN else c for c in value[: 4 * most])
    return " ".join("".join(seen).split())[:most]


def commit(value: str, field: str) -> str:
    """Return a commit id, or an empty text."""
    return value and _match(_COMMIT, field, value, "must be 7 to 64 hexadecimal digits").lower()


def url(value: str, field: str) -> str:
    """Return an artifact URL."""
    if len(value) > 2048:
        raise InvalidArgument(field, "must be at most 2,048 characters")
    return _match(_URL, field, value, "must be an https, http or file URL without spaces")


def native_ranges(ranges: tuple[NativeRange, ...]) -> tuple[NativeRange, ...]:
    """Return valid ranges, one per platform, ordered by platform."""
    platforms = [r.platform for r in ranges]
    if len(set(platforms)) != len(platforms) or not set(platforms) <= {"android", "ios"}:
        raise InvalidArgument("native_ranges", "must name each of android and ios at most once")
    for bound in (b for r in ranges for b in (r.min, r.max, r.eq) if b):
        if len(bound) > 32:
            raise InvalidArgument("native_ranges", "a version has at most 32 characters")
        _match(
            NATIVE_VERSION,
            "native_ranges",
            bound,
            "must be a version such as 1.2.3 or a build number",
        )
    for r in ranges:
        if _is_empty(r):
            raise InvalidArgument("native_ranges", f"no version of {r.platform} is in it")
    return tuple(sorted(ranges, key=lambda r: r.platform))


def _is_empty(given: NativeRange) -> bool:
    """Say whether no version can be in a range; bounds of names and of codes are not compared."""
    named = {("." in bound) for bound in (given.min, given.max)}
    least, most = numbers(given.min), numbers(given.max)
    if least is None or most is None or len(named) > 1:
        return False
    return least > most or least == most == numbers(given.eq)
