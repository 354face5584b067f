"""Canonical JSON (RFC 8785) for the values that leaves and statements are made of.

Restricted to what needs no care: strings, booleans, null, integers up to 2^53 - 1, lists,
and objects with ASCII keys. With that, orjson writes the canonical form, which needs a
twentieth of the time of Python's own encoder; a test compares it with an independent
implementation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, Union, cast

import orjson

from privyseal.verify.errors import VerificationError

Json: TypeAlias = Union[str, int, bool, Sequence["Json"], Mapping[str, "Json"], None]  # noqa: UP007 - forward references
"""A value that has a canonical form here."""

MAX_SAFE_INTEGER = 2**53 - 1
_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def canonical(value: Json) -> bytes:
    """Encode a value as canonical JSON.

    Args:
        value: Strings must be encodable as UTF-8.

    Returns:
        UTF-8 bytes.

    Raises:
        ValueError: For a float, an integer beyond 2^53 - 1 or a non-ASCII key.
    """
    _check(value)
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from error


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object, refusing duplicate members, floats and non-finite numbers.

    Raises:
        VerificationError: If it is anything else.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_refuse,
        )
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{what} is not well-formed JSON") from error
    if not isinstance(value, dict):
        raise VerificationError(f"{what} is not a JSON object")
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _refuse(text: str) -> None:
    raise ValueError(f"number {text} has no canonical form here")


_PLAIN = frozenset({str, bool, type(None)})


def _check(value: Json) -> None:
    # By exact type: this runs for each leaf and receipt, and nearly all are texts.
    kind = type(value)
    if kind in _PLAIN:
        return
    if kind is dict:
        members = cast("dict[str, Json]", value)
        if not all(map(str.isascii, members)):
            raise ValueError("member name is not ASCII")
        for member in members.values():
            _check(member)
    elif kind is list or kind is tuple:
        for item in cast("Sequence[Json]", value):
            _check(item)
    elif isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise ValueError("integer beyond 2^53 - 1")
    elif not isinstance(value, str):
        raise ValueError(f"{kind.__name__} has no canonical form here")
