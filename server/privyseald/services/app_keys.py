"""What signing remembers of an app: its keys, its builds and its last counter."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from privyseal.verify.statement import NativeRange

from privyseald.model.audience import Signer, signers
from privyseald.model.field import NativeBuild
from privyseald.model.records import KeyRecord
from privyseald.model.schemes import ARCHIVE_SCHEMES
from privyseald.ports import Store, View
from privyseald.services.key_records import require_app

_MOST_CHOICES = 1000


@dataclass
class AppKeys:
    """An app's keys and builds as of a revision, and what was chosen of them."""

    revision: int
    keys: list[KeyRecord]
    builds: list[NativeBuild]
    chosen: dict[tuple[NativeRange, ...], tuple[Signer, ...]] = field(default_factory=dict)

    @property
    def archive_schemes(self) -> set[str]:
        """The schemes of keys that sign the archive itself."""
        return {
            key.scheme for key in self.keys if key.scheme in ARCHIVE_SCHEMES and not key.given_up
        }

    def signers(self, app: str, ranges: tuple[NativeRange, ...]) -> tuple[Signer, ...]:
        """Return who signs for an audience. Raises DomainError if somebody is missing."""
        found = self.chosen.get(ranges)
        if found is None:
            if len(self.chosen) >= _MOST_CHOICES:
                self.chosen.clear()
            found = self.chosen[ranges] = signers(app, self.keys, self.builds, ranges)
        return found


class RememberedKeys:
    """Reads an app's keys and builds once for many signatures.

    What is remembered can be old: whoever commits checks again, and has it forgotten.

    Args:
        store: Where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, AppKeys] = {}
        self._reading: dict[str, asyncio.Task[AppKeys]] = {}
        self._counters: dict[str, int] = {}
        self._last: dict[str, tuple[int, int]] = {}

    async def of(self, app: str, revision: int) -> AppKeys:
        """Return an app's keys and builds.

        Args:
            app: The app's id.
            revision: What is older than this is not from memory.

        Raises:
            NotFound: If there is no such app.
            Unavailable: If the store cannot be read.
        """
        known = self._known.get(app)
        if known is None or known.revision < revision:
            known = await self._newly_read(app)
        if known.revision < revision:
            # It was being read when this was asked for; what is read now is as new as there is.
            known = await self._newly_read(app)
        return known

    def forget(self, app: str) -> None:
        """Have it read again, from now on, before the next signature."""
        self._known.pop(app, None)
        self._reading.pop(app, None)

    def next_counter(self, app: str) -> int:
        """Return the number of the next release of an app whose keys were read."""
        self._counters[app] = counter = self._counters[app] + 1
        return counter

    def after_the_last(self, app: str, counter: int, now: int) -> int:
        """Return a time for a release that its devices take as later than the one before.

        They compare times of which the milliseconds are the counter modulo 1,000.
        """
        thousand, last = self._last.get(app, (0, 0))
        if counter // 1000 > thousand and now <= last:
            now = last + 1
        now = max(now, last)
        self._last[app] = (counter // 1000, now)
        return now

    async def _newly_read(self, app: str) -> AppKeys:
        reading = self._reading.get(app)
        if reading is None:
            # A task of its own: a caller that hangs up takes nothing from those who wait.
            reading = self._reading[app] = asyncio.create_task(self._read(app))
            reading.add_done_callback(lambda done: self._done(app, done))
        return await asyncio.shield(reading)

    async def _read(self, app: str) -> AppKeys:
        def query(view: View) -> tuple[AppKeys, tuple[int, int]]:
            require_app(view, app)
            found = AppKeys(view.revision, view.keys.list(app), view.builds.list(app))
            return found, view.releases.last_signed(app)

        known: AppKeys
        known, (counter, signed_at) = await self._store.read(query)
        self._counters[app] = max(counter, self._counters.get(app, 0))
        # Whatever the clock says now, after a restart as well.
        self._last.setdefault(app, (counter // 1000, signed_at))
        if self._reading.get(app) is asyncio.current_task():
            self._known[app] = known
        return known

    def _done(self, app: str, reading: asyncio.Task[AppKeys]) -> None:
        if self._reading.get(app) is reading:
            del self._reading[app]
        if not reading.cancelled():
            # It is raised where it is waited for; if nobody does any more, it is of no interest.
            reading.exception()
