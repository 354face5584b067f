"""What a device gets: channel, release, and the verification before anything is served."""

from __future__ import annotations

from dataclasses import dataclass

from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier
from privyseal.verify.receipt import Receipt, verify_receipt

from privyseald.gateway.follow import Followed, Follower, Registered
from privyseald.model.native import NativeVersion, admits
from privyseald.ports import Store

_MOST_RECEIPTS = 1024


@dataclass(frozen=True)
class Served:
    """A release that was verified, and whether this device's binary is in its range."""

    release: Registered
    receipt: Receipt
    compatible: bool

    @property
    def snapshot(self) -> str:
        """An id that names this content for ever: counter and digest."""
        return f"{self.release.counter}-{self.receipt.statement.bundle_sha256.hex()[:16]}"


class Resolver:
    """Resolves channels and snapshots to verified releases.

    Args:
        store: Where receipts are.
        verifier: The log's key.
        follower: Knows what the log says is deployed.
    """

    def __init__(self, store: Store, verifier: NoteVerifier, follower: Follower) -> None:
        self._store = store
        self._verifier = verifier
        self._follower = follower
        self._receipts: dict[bytes, Receipt] = {}

    async def channels(self, app: str) -> list[str]:
        """Return the ids of an app's channels."""
        return (await self._follower.state()).channels_of(app)

    async def channel(self, app: str, channel: str, device: NativeVersion) -> Served | None:
        """Return what a channel points at, or None if there is nothing.

        Raises:
            VerificationError: If what the store says is not what the log says.
        """
        state = await self._follower.state()
        name = state.channels.get(f"apps/{app}/channels/{channel}")
        return await self._served(state, name, device) if name else None

    async def snapshot(self, app: str, snapshot: str) -> Served | None:
        """Return the release a snapshot id names, or None. Raises VerificationError."""
        counter = snapshot.partition("-")[0]
        if not (counter.isascii() and counter.isdigit() and len(counter) <= 15):
            return None
        state, name = await self._follower.state(), f"apps/{app}/releases/{int(counter)}"
        if name not in state.releases:
            return None
        served = await self._served(state, name, NativeVersion("", ""))
        return served if served.snapshot == snapshot else None

    async def _served(self, state: Followed, name: str, device: NativeVersion) -> Served:
        release = state.releases.get(name)
        if release is None:
            raise VerificationError("the log does not tell of the release that is deployed")
        receipt = await self._receipt(release)
        ranges = (*receipt.statement.native_ranges, *release.ranges)
        return Served(release, receipt, admits(ranges, device))

    async def _receipt(self, release: Registered) -> Receipt:
        app, counter = release.app, release.counter
        signed = await self._store.read(lambda view: view.releases.signed(app, counter=counter))
        if signed is None:
            raise VerificationError("the store lacks the receipt of a release")
        receipt = self._receipts.get(signed.receipt)
        if receipt is None:
            receipt = verify_receipt(signed.receipt, log=self._verifier)
            if len(self._receipts) >= _MOST_RECEIPTS:
                self._receipts.clear()
            self._receipts[signed.receipt] = receipt
        statement = receipt.statement
        if (statement.app, statement.counter) != (app, counter):
            raise VerificationError("receipt is of another release")
        return receipt
