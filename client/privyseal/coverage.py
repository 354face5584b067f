"""A picture of coverage over time: check-ins by the key version that serves them, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 800, 320, 48, 44, 56
_COLOURS = ("#0b6e99", "#d98310", "#4d8b31", "#8e44ad", "#b03a2e", "#5d6d7e")
_STRANDED = "#c9c9c9"


def draw(title: str, days: Sequence[tuple[str, dict[int, int]]]) -> str:
    """Return an SVG with one bar a day, stacked by version.

    Args:
        title: What it is of.
        days: Day (YYYY-MM-DD) and check-ins by version; version 0 is served by none.
    """
    versions = sorted({v for _, counts in days for v in counts if v})
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12" role="img">'
        ),
        f"<title>Coverage of {escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        (
            f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}: check-ins by the version '
            "that serves them</text>"
        ),
    ]
    if not days:
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT // 2}">no device has asked yet</text>')
    parts += _bars(days, versions)
    parts += _legend(versions)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bars(days: Sequence[tuple[str, dict[int, int]]], versions: Sequence[int]) -> list[str]:
    room = _HEIGHT - _TOP - _BOTTOM
    step = (_WIDTH - _LEFT - 8) / max(len(days), 1)
    parts = []
    for number, share in enumerate((0.0, 0.5, 1.0)):
        y = _TOP + room * (1 - share)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 8}" y2="{y:.1f}" '
            f'stroke="#ddd"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{number * 50} %</text>"
        )
    for number, (day, counts) in enumerate(days):
        total = sum(counts.values()) or 1
        x, y = _LEFT + number * step, float(_TOP + room)
        for version in (*versions, 0):
            height = room * counts.get(version, 0) / total
            if not height:
                continue
            y -= height
            told = f"version {version}" if version else "served by none"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(step - 1, 1):.1f}" '
                f'height="{height:.1f}" fill="{_colour(version, versions)}">'
                f"<title>{day}: {told}, {counts[version]:,} check-ins</title></rect>"
            )
        if number in {0, len(days) - 1}:
            anchor = "start" if number == 0 else "end"
            at = x if number == 0 else x + step
            y = _HEIGHT - _BOTTOM + 16
            parts.append(f'<text x="{at:.1f}" y="{y}" text-anchor="{anchor}">{day}</text>')
    return parts


def _legend(versions: Sequence[int]) -> list[str]:
    parts, x = [], _LEFT
    for version in (*versions, 0):
        told = f"version {version}" if version else "none"
        parts.append(
            f'<rect x="{x}" y="{_HEIGHT - 24}" width="12" height="12" '
            f'fill="{_colour(version, versions)}"/>'
            f'<text x="{x + 18}" y="{_HEIGHT - 14}">{told}</text>'
        )
        x += 110
    return parts


def _colour(version: int, versions: Sequence[int]) -> str:
    return _COLOURS[versions.index(version) % len(_COLOURS)] if version else _STRANDED
