"""Reads what JavaScript and TypeScript configurations say outright, and runs none of it."""

from __future__ import annotations

import re

MAX_SCRIPT = 256 << 10
_MOST_OBJECTS = 1000
_STRING = r"""(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)"|`([^`$\\]*)`)"""
_STRINGS_AND_COMMENTS = re.compile(rf"{_STRING}|/\*.*?\*/|//[^\n]*", re.DOTALL)
_STRINGS_AND_BRACKETS = re.compile(rf"{_STRING}|[{{}}\[\](),]")
_PROPERTY = re.compile(r"""\s*(?:(\w+)|'(\w+)'|"(\w+)")\s*(?::(.*))?""", re.DOTALL)


class Computed(Exception):  # noqa: N818 - it is no error of the script
    """A value is there, but only running the script tells it."""


def without_comments(text: str) -> str:
    """Return a script without its comments."""
    return _STRINGS_AND_COMMENTS.sub(lambda m: " " if m[0].startswith("/") else m[0], text)


def properties(text: str, start: int) -> dict[str, str]:
    """Return the properties of an object and the source of their values.

    Args:
        text: A script without comments.
        start: Where the object's first property may begin: behind its brace.

    Returns:
        Sources by name; "" for a property in short form (`{version}`), or that a spread behind
        it may replace. What spreads or computed names add is not there.
    """
    found: dict[str, str] = {}
    depth, last = 0, start
    for token in _STRINGS_AND_BRACKETS.finditer(text, start):
        opens, closes = token[0] in {"{", "[", "("}, token[0] in {"}", "]", ")"}
        if depth == 0 and (closes or token[0] == ","):
            match = _PROPERTY.fullmatch(text, last, token.start())
            if text[last : token.start()].lstrip().startswith("..."):
                # What is spread behind a property can replace it.
                found = dict.fromkeys(found, "")
            elif match is not None:
                found[match[1] or match[2] or match[3]] = (match[4] or "").strip()
            last = token.end()
            if closes:
                break
        depth += opens - closes
    return found


def literal(source: str) -> str:
    """Return the value of a string's or a whole number's source. Raises Computed."""
    match = re.fullmatch(rf"{_STRING}|([0-9]+)", source)
    if match is None:
        raise Computed
    text = next(group for group in match.groups() if group is not None)
    plain = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"\\(.)", lambda m: plain.get(m[1], m[1]), text, flags=re.DOTALL)


def object_with(text: str, names: set[str]) -> dict[str, str] | None:
    """Return the first object's properties that has one of these names; None if none has."""
    for count, brace in enumerate(re.finditer(r"\{", text)):
        found = properties(text, brace.end())
        if names & found.keys():
            return found
        if count == _MOST_OBJECTS:
            break
    return None
