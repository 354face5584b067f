"""Ceremonies: keys made by several people from one reviewed file, and what they were shown."""

from __future__ import annotations

import hashlib
import tomllib
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privyseal.errors import ClientError

MAX_FILE = 64 << 10
MAX_TITLE, MAX_NAME, MAX_PARTICIPANTS, MAX_DAYS = 100, 200, 20, 3650
MAX_KEYS = 20
_STEPS = uuid.UUID("6f6f3b5e-6d1c-5b0e-9d3c-5f2b6c1a7e44")
_TOP = {"title": str, "app": str, "participants": list, "create_app": dict, "keys": list}
_APP = {"name": str, "in_token": bool, "public": str}
_KEY = {
    "scheme": str,
    "algorithm": str,
    "in_token": bool,
    "public": str,
    "standby_public": str,
    "cryptoperiod_days": int,
}


@dataclass(frozen=True)
class PlannedKey:
    """A key to be made.

    Attributes:
        scheme: Whose devices verify with it; "" for the statement key of a new app.
        algorithm: Its algorithm; "" for the scheme's default.
        in_token: Whether it is made in the daemon's HSM.
        public: Where its public key is written.
        standby_public: Where the public key of a standby version is written; None for no standby.
        cryptoperiod_days: For how long its versions may sign; 0 for ever.
        display_name: Of the app that is created with it.
    """

    scheme: str
    algorithm: str
    in_token: bool
    public: Path
    standby_public: Path | None = None
    cryptoperiod_days: int = 0
    display_name: str = ""

    def line(self) -> str:
        """Return what is made, for people."""
        what = f"a {self.scheme} key" if self.scheme else "the app, and its statement key"
        parts = [
            what,
            self.algorithm or "of the usual algorithm",
            "in the HSM" if self.in_token else "in software",
            *(["with a standby version"] if self.standby_public else []),
            *([f"for {self.cryptoperiod_days} days"] if self.cryptoperiod_days else []),
        ]
        return ", ".join(parts)


@dataclass(frozen=True)
class Plan:
    """What a reviewed file says.

    Attributes:
        sha256: Of the file as it is, 32 bytes; what reviewers agree on.
    """

    sha256: bytes
    title: str
    app: str
    participants: tuple[str, ...]
    keys: tuple[PlannedKey, ...]

    def request_id(self, step: str) -> str:
        """Return the id of a step's request: one file makes each key once, however often run."""
        return str(uuid.uuid5(_STEPS, f"{self.sha256.hex()} {step}"))


def read_plan(path: Path) -> Plan:
    """Read a ceremony's file.

    Raises:
        ClientError: If it says less or more than a ceremony does.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        values = tomllib.loads(data[:MAX_FILE].decode())
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ClientError(f"{path} is no TOML: {error}") from None
    if len(data) > MAX_FILE:
        raise ClientError(f"{path} is longer than {MAX_FILE:,} bytes")
    _check(values, "the file", _TOP, required=("title", "app", "participants", "keys"))
    # All that the daemon checks when the keys are there already, and cannot be unmade.
    _plain(values["title"], "title", MAX_TITLE)
    people = values["participants"]
    if not 1 <= len(people) <= MAX_PARTICIPANTS or not all(isinstance(n, str) for n in people):
        raise ClientError(f"participants must be 1 to {MAX_PARTICIPANTS} names of who takes part")
    for name in people:
        _plain(name, "a participant", MAX_NAME)
    if len(set(people)) != len(people):
        raise ClientError("participants names somebody twice")
    keys = [_created(values["create_app"])] if "create_app" in values else []
    keys += [_planned(entry, n) for n, entry in enumerate(values["keys"], 1)]
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ClientError(f"keys must name 1 to {MAX_KEYS} keys, in [[keys]]")
    files = [p for k in keys for p in (k.public, k.standby_public) if p is not None]
    schemes = [k.scheme for k in keys]
    if len(set(files)) != len(files) or len(set(schemes)) != len(schemes):
        raise ClientError("two keys have the same scheme, or the same file for a public key")
    return Plan(
        hashlib.sha256(data).digest(), values["title"], values["app"], tuple(people), tuple(keys)
    )


def _created(entry: dict[str, Any]) -> PlannedKey:
    _check(entry, "[create_app]", _APP, required=("public",))
    return PlannedKey(
        "",
        "",
        entry.get("in_token", False),
        Path(entry["public"]),
        display_name=entry.get("name", ""),
    )


def _planned(entry: object, number: int) -> PlannedKey:
    where = f"[[keys]] number {number}"
    if not isinstance(entry, dict):
        raise ClientError(f"{where} must be a table")
    _check(entry, where, _KEY, required=("scheme", "public"))
    standby, days = entry.get("standby_public"), entry.get("cryptoperiod_days", 0)
    if not 0 <= days <= MAX_DAYS:
        raise ClientError(f"cryptoperiod_days in {where} must be 0 to {MAX_DAYS:,}")
    return PlannedKey(
        entry["scheme"],
        entry.get("algorithm", ""),
        entry.get("in_token", False),
        Path(entry["public"]),
        Path(standby) if standby else None,
        days,
    )


def _plain(text: str, what: str, most: int) -> None:
    unseen = any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text)
    if not 1 <= len(text) <= most or unseen:
        raise ClientError(f"{what} must be 1 to {most} characters that can be seen")


def _check(
    values: Mapping[str, Any], where: str, kinds: Mapping[str, type], *, required: Sequence[str]
) -> None:
    for name in required:
        if name not in values:
            raise ClientError(f"{where} lacks {name}")
    for name, value in values.items():
        if name not in kinds:
            raise ClientError(f"{where} has {name}, which is none of {', '.join(kinds)}")
        # A truth value is an int to Python, and no number to people.
        if type(value) is not kinds[name]:
            raise ClientError(f"{name} in {where} must be {_NAMES[kinds[name]]}")


_NAMES = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    list: "a list",
    dict: "a table",
}
