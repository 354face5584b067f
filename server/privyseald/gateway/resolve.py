"""What a device gets: channel, release, and the verification before anything is served."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier
from privyseal.verify.receipt import Receipt, SchemeSignature, verify_receipt
from privyseal.verify.statement import Statement

from privyseald.gateway.check_ins import CheckInCounter
from privyseald.gateway.follow import Certificate, Followed, Follower, Registered
from privyseald.model.field import NativeBuild
from privyseald.model.fields import parts
from privyseald.model.native import NativeVersion, admits
from privyseald.ports import Store, View

NO_UPDATE = "privyseal-no-update"
"""The header that says why, to people: devices' answers have no word for it."""
_MOST_RECEIPTS, _MOST_BYTES = 1024, 32 << 20


class NoUpdate(StrEnum):
    """Why there is nothing for a device. None of it is a fault, and none of it a secret."""

    NO_CHANNEL = "the app has no such channel"
    NOT_DEPLOYED = "nothing is deployed to the channel"
    WITHDRAWN = "the release that is deployed was withdrawn"
    OTHER_NATIVE_VERSION = "the release is for other native versions"
    OTHER_ARTIFACT = "the release has no zip"
    OTHER_RUNTIME = "the release is for other platforms or runtime versions"
    NO_SIGNATURE = "the release has no signature that the device's binary verifies"
    UP_TO_DATE = "the device has the release"

    @property
    def headers(self) -> dict[str, str]:
        """What an answer without an update says of it."""
        return {NO_UPDATE: str(self)}


@dataclass(frozen=True)
class Served:
    """A release that was verified, and whether this device's binary is in its range."""

    release: Registered
    receipt: Receipt
    compatible: bool
    build: NativeBuild | None = None

    def signature(self, scheme: str) -> SchemeSignature | None:
        """Return the signature of a scheme that the device's binary verifies.

        Of a binary that nobody registered, the first: the primary's when it was signed. None
        if there is none.
        """
        found = [s for s in self.receipt.signatures if s.scheme == scheme]
        if self.build is not None and self.build.trusts:
            trusts = set(self.build.trusts)
            found = [s for s in found if hashlib.sha256(s.public_key).digest() in trusts]
        return found[0] if found else None

    @property
    def snapshot(self) -> str:
        """An id that names this content for ever: counter and digest."""
        return self.receipt.statement.snapshot


class Resolver:
    """Resolves channels and snapshots to verified releases.

    Args:
        store: Where receipts are.
        verifier: The log's key.
        follower: Knows what the log says is deployed.
        counter: Counts the devices' requests.
    """

    def __init__(
        self, store: Store, verifier: NoteVerifier, follower: Follower, counter: CheckInCounter
    ) -> None:
        self._counter = counter
        self._store = store
        self._verifier = verifier
        self._follower = follower
        self._receipts: dict[bytes, Receipt] = {}
        self._kept = 0

    async def channels(self, app: str) -> list[str]:
        """Return the ids of an app's channels."""
        return (await self._follower.state()).channels_of(app)

    async def channel(self, app: str, channel: str, device: NativeVersion) -> Served | NoUpdate:
        """Return what a channel points at, or why there is nothing.

        Raises:
            VerificationError: If what the store says is not what the log says.
        """
        state = await self._follower.state()
        name = state.channels.get(f"apps/{app}/channels/{channel}")
        if name is None:
            return NoUpdate.NO_CHANNEL
        build = state.build(app, device)
        self._counter.note(app, build, device)
        if not name:
            return NoUpdate.NOT_DEPLOYED
        if name in state.releases and state.releases[name].withdrawn:
            return NoUpdate.WITHDRAWN
        served = await self._served(state, name, device)
        return replace(served, build=build)

    async def snapshot(self, app: str, snapshot: str) -> Served | None:
        """Return the release a snapshot id names, or None. Raises VerificationError."""
        counter = snapshot.partition("-")[0]
        if not (counter.isascii() and counter.isdigit() and len(counter) <= 15):
            return None
        state, name = await self._follower.state(), f"apps/{app}/releases/{int(counter)}"
        if name not in state.releases or state.releases[name].withdrawn:
            return None
        served = await self._served(state, name, NativeVersion("", ""))
        return served if served.snapshot == snapshot else None

    async def artifact(self, place: str) -> tuple[Registered, Statement] | None:
        """Return what was registered at a place in the gateway's own folder of artifacts.

        The newest that was not withdrawn, and its statement; None if there is none.

        Raises:
            VerificationError: If what the store says is not what the log says.
        """
        state = await self._follower.state()
        for name in reversed(state.served.get(place, ())):
            release = state.releases[name]
            if not release.withdrawn:
                return release, (await self._receipt(release)).statement
        return None

    async def certificate(self, key_version: str) -> Certificate | None:
        """Return what the log has of a version's certificate, if it has one."""
        return (await self._follower.state()).certificates.get(key_version)

    async def certificate_bytes(self, key_version: str, certificate: Certificate) -> bytes:
        """Return a certificate, DER.

        Raises:
            VerificationError: If the store has another than the log.
        """
        app, key_id, number = parts(key_version, "key_version", "apps", "keys", "versions")

        def query(view: View) -> bytes:
            key = view.keys.get(app, key_id)
            version = key.version(int(number)) if key is not None else None
            return version.certificate if version is not None else b""

        found: bytes = await self._store.read(query)
        if hashlib.sha256(found).digest() != certificate.sha256:
            raise VerificationError("the store has another certificate than the log")
        return found

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
            self._kept += len(signed.receipt)
            if len(self._receipts) >= _MOST_RECEIPTS or self._kept > _MOST_BYTES:
                self._receipts.clear()
                self._kept = len(signed.receipt)
            self._receipts[signed.receipt] = receipt
        statement = receipt.statement
        named = (statement.app, statement.counter, statement.version)
        stated = release.statement_sha256 or receipt.statement_sha256
        if named != (app, counter, release.version) or receipt.statement_sha256 != stated:
            raise VerificationError("receipt is of another release")
        return receipt
