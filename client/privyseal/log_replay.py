"""What the daemon's state must be, if all that the log tells happened and nothing else did.

State is told as facts: a name, and what is so of it, in a word or two. The same names and words
are made of the log's leaves and of the daemon's answers, so that both can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_STATES = {
    "key.create": "active",
    "key.import": "active",
    "key.create-version": "pre-activation",
    "key.activate": "active",
    "key.suspend": "suspended",
    "key.resume": "active",
    "key.deactivate": "deactivated",
    "key.compromise": "compromised",
    "key.destroy-schedule": "destroy-scheduled",
    "key.destroy": "destroyed",
}


class Replay:
    """Follows the log, act by act."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.signed: dict[tuple[str, int], Mapping[str, Any]] = {}
        """The acts that signed releases, by app and counter."""
        self._versions: dict[str, tuple[str, str]] = {}
        self._before: dict[str, str] = {}
        self._releases: dict[str, tuple[str, str, str, str]] = {}

    def apply(self, act: Mapping[str, Any]) -> str:
        """Let an act happen; return the name that it is about, empty if it changes no fact.

        Raises:
            KeyError, TypeError, ValueError: If it lacks something, or what it changes never was.
        """
        kind = act["act"]
        if kind in _STATES or kind == "key.restore":
            return self._key(kind, act)
        if kind.startswith("release."):
            return self._release(kind, act)
        make = _MAKES.get(kind)
        if make is not None:
            return self._set(*make(act))
        what = _ENDS.get(kind)
        return self._remove(what(act)) if what is not None else ""

    def forget_grants(self) -> None:
        """Leave grants out: whoever compares may not see the daemon's."""
        for name in [name for name in self.facts if name.startswith("grants/")]:
            del self.facts[name]

    def _key(self, kind: str, act: Mapping[str, Any]) -> str:
        name = act["keyVersion"]
        was, digest = self._versions.get(name, ("", ""))
        if kind in {"key.create", "key.import"}:
            self._set(key_of(name), primary(name))
        if kind == "key.destroy-schedule":
            self._before[name] = was
        state = self._before[name] if kind == "key.restore" else _STATES[kind]
        self._versions[name] = state, act.get("publicKeySha256", digest)
        return self._set(name, version(*self._versions[name]))

    def _release(self, kind: str, act: Mapping[str, Any]) -> str:
        if kind == "release.sign":
            self.signed[act["app"], act["counter"]] = act
            return ""
        name = act["release"]
        if kind == "release.register":
            self._releases[name] = act["url"], act["type"], "-", "-"
        url, form, ranges, withdrawn = self._releases[name]
        if kind == "release.native-versions":
            ranges = native([(r["platform"], r["min"], r["max"], r["eq"]) for r in act["ranges"]])
        elif kind == "release.withdraw":
            withdrawn = "withdrawn"
        self._releases[name] = url, form, ranges, withdrawn
        return self._set(name, release(*self._releases[name]))

    def _set(self, name: str, what: str) -> str:
        self.facts[name] = what
        return name

    def _remove(self, name: str) -> str:
        self.facts.pop(name, None)
        return name


def key_of(version_name: str) -> str:
    """Return the name of a version's key."""
    return version_name.rpartition("/versions/")[0]


def primary(version_name: str) -> str:
    """Return what is so of a key."""
    return f"primary {version_name}"


def version(state: str, public_key_sha256: str) -> str:
    """Return what is so of a key version; the digest in hexadecimal digits."""
    return f"{state} {public_key_sha256}"


def release(url: str, kind: str, ranges: str, withdrawn: str) -> str:
    """Return what is so of a release."""
    return f"{url} {kind} {ranges} {withdrawn}"


def native(ranges: Sequence[tuple[str, str, str, str]]) -> str:
    """Return native ranges as a word; `-` if there are none."""
    return ",".join("/".join(each) for each in sorted(ranges)) or "-"


def channel(release_name: str) -> str:
    """Return what is so of a channel."""
    return release_name or "nothing deployed"


def grant(principal: str, role: str, resource: str, conditions: Mapping[str, str]) -> str:
    """Return what is so of a grant."""
    only = "".join(f" {name}={value}" for name, value in sorted(conditions.items()))
    return f"{principal} {role} {resource}{only}"


_MAKES: dict[str, Callable[[Mapping[str, Any]], tuple[str, str]]] = {
    "app.create": lambda act: (f"apps/{act['app']}", "there"),
    "key.promote": lambda act: (key_of(act["keyVersion"]), primary(act["keyVersion"])),
    "channel.create": lambda act: (act["channel"], channel("")),
    "deploy": lambda act: (act["channel"], channel(act["release"])),
    "grant.create": lambda act: (
        f"grants/{act['grant']}",
        grant(act["to"], act["role"], act["resource"], act.get("conditions", {})),
    ),
}
_ENDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "channel.delete": lambda act: str(act["channel"]),
    "grant.revoke": lambda act: f"grants/{act['grant']}",
}
