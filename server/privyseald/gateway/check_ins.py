"""Counts how often devices of each native version ask; who they are is kept nowhere."""

from __future__ import annotations

from collections.abc import Callable

from privyseald.model.errors import Unavailable
from privyseald.model.field import CheckIns, NativeBuild
from privyseald.model.lifecycle import DAY
from privyseald.model.native import NATIVE_CODE, NATIVE_VERSION, NativeVersion
from privyseald.ports import Clock, Store

MOST_STRANGERS = 50
"""Versions that nobody registered, of one app on one day; the others are counted together."""
MOST_NAME = 32
_OTHERS = "other"
_Key = tuple[str, str, str, str, str, int]


class CheckInCounter:
    """Counts in memory, and adds to the store now and then.

    Args:
        store: Where the counts go.
        clock: Tells the time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock: Callable[[], int] = clock
        self._counts: dict[_Key, int] = {}
        self._strangers: dict[tuple[str, int], set[tuple[str, str, str]]] = {}

    def note(self, app: str, build: NativeBuild | None, device: NativeVersion) -> None:
        """Count one request of a device."""
        day = self._clock() // DAY
        if build is not None:
            version = (build.platform, build.version_name, build.version_code)
            key = (app, build.id, *version, day)
        else:
            key = (app, "", *self._stranger(app, day, device), day)
        self._counts[key] = self._counts.get(key, 0) + 1

    def _stranger(self, app: str, day: int, device: NativeVersion) -> tuple[str, str, str]:
        # What devices say is anybody's text: of a form, and of so many versions at most.
        if device.platform not in {"android", "ios"}:
            return "", _OTHERS, ""
        if len(device.name) > MOST_NAME or NATIVE_VERSION.fullmatch(device.name) is None:
            return device.platform, _OTHERS, ""
        code = device.code if NATIVE_CODE.fullmatch(device.code) else ""
        version = (device.platform, device.name, code)
        seen = self._strangers.setdefault((app, day), set())
        if version not in seen and len(seen) >= MOST_STRANGERS:
            return device.platform, _OTHERS, ""
        seen.add(version)
        return version

    async def flush(self) -> None:
        """Add what was counted to the store.

        Raises:
            Unavailable: If the store is; then it is kept for later. What fails otherwise would
                fail again, and is dropped, so that it does not keep out what comes after.
        """
        if not self._counts:
            return
        taken, self._counts = self._counts, {}
        today = self._clock() // DAY
        self._strangers = {k: v for k, v in self._strangers.items() if k[1] >= today - 1}
        rows = [
            (app, CheckIns(build, platform, name, code, day, count))
            for (app, build, platform, name, code, day), count in taken.items()
        ]
        try:
            await self._store.count(rows)
        except Unavailable:
            for key, count in taken.items():
                self._counts[key] = self._counts.get(key, 0) + count
            raise
