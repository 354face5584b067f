"""Whether a store binary gets a release."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from privyseal.verify.statement import NativeRange

NATIVE_VERSION = re.compile(r"[0-9]+(\.[0-9]+){0,4}([-+][A-Za-z0-9.-]+)?")
"""Names of store binaries that are taken and shown; what devices say of themselves is any text."""
NATIVE_CODE = re.compile(r"[0-9]{1,18}")
_NUMBERS = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15}){0,7})(?:[-+].*)?")


@dataclass(frozen=True)
class NativeVersion:
    """What a device says of its binary: platform, version name, and code if it says one."""

    platform: str
    name: str
    code: str = ""


def numbers(version: str) -> tuple[int, ...] | None:
    """Return a version's numbers without trailing zeros, or None if it has none.

    A suffix after `-` or `+` is left out of the comparison.
    """
    match = _NUMBERS.fullmatch(version.strip())
    if match is None:
        return None
    found = [int(part) for part in match[1].split(".")]
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def admits(ranges: Iterable[NativeRange], device: NativeVersion) -> bool:
    """Say whether a device is inside every range that is for its platform.

    A bound without a dot is compared with the version code where the device says one. A
    device whose version cannot be read is outside every range that has a bound.
    """
    for native_range in ranges:
        if native_range.platform != device.platform:
            continue
        for kind in ("min", "max", "eq"):
            bound = getattr(native_range, kind)
            if bound and not _inside(kind, bound, device):
                return False
    return True


def _inside(kind: str, bound: str, device: NativeVersion) -> bool:
    by_code = "." not in bound and device.code
    have, want = numbers(device.code if by_code else device.name), numbers(bound)
    if have is None or want is None:
        return False
    if kind == "min":
        return have >= want
    if kind == "max":
        return have <= want
    return have != want
