"""What a device gets: channel, release, and the verification before anything is served.

The gateway trusts one thing, the log's public key it was configured with. A deployment
counts if the log has it; a release counts if its receipt verifies. Whatever else the
database says, a changed row reaches no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from privyseal.verify.canonical import parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.merkle import leaf_hash, verify_inclusion
from privyseal.verify.note import NoteVerifier, open_checkpoint
from privyseal.verify.receipt import Receipt, verify_receipt

from privyseald.model import merkle
from privyseald.model.native import NativeVersion, admits
from privyseald.model.records import ChannelRecord, LogHead, ReleaseRecord
from privyseald.ports import Store, View


@dataclass(frozen=True)
class Served:
    """A release that was verified, and whether this device's binary is in its range."""

    release: ReleaseRecord
    receipt: Receipt
    compatible: bool

    @property
    def snapshot(self) -> str:
        """An id that names this content for ever: counter and digest."""
        return f"{self.release.counter}-{self.receipt.statement.bundle_sha256.hex()[:16]}"


@dataclass(frozen=True)
class _Found:
    channel: ChannelRecord
    release: ReleaseRecord
    receipt: bytes
    head: LogHead
    leaf: bytes
    proof: list[bytes]


class Resolver:
    """Resolves channels and snapshots to verified releases."""

    def __init__(self, store: Store, verifier: NoteVerifier) -> None:
        self._store = store
        self._verifier = verifier
        self._receipts: dict[bytes, Receipt] = {}

    async def channel(self, app: str, channel: str, device: NativeVersion) -> Served | None:
        """Return what a channel points at, or None if there is nothing.

        Raises:
            VerificationError: If what the store says is not what the log says.
        """
        found: _Found | None = await self._store.read(lambda view: _find(view, app, channel))
        if found is None:
            return None
        checkpoint = open_checkpoint(found.head.note, self._verifier)
        verify_inclusion(
            index=found.channel.log_index,
            size=checkpoint.size,
            leaf=leaf_hash(found.leaf),
            proof=found.proof,
            root=checkpoint.root,
        )
        act = parse_object(found.leaf, "log leaf")
        expected = ("deploy", found.channel.name, found.release.name)
        if (act.get("act"), act.get("channel"), act.get("release")) != expected:
            raise VerificationError("the log does not tell of this deployment")
        return self._served(found.release, found.receipt, device)

    async def snapshot(self, app: str, snapshot: str) -> Served | None:
        """Return the release a snapshot id names, or None. Raises VerificationError."""
        counter = snapshot.partition("-")[0]
        if not (counter.isascii() and counter.isdigit() and len(counter) <= 15):
            return None

        def query(view: View) -> tuple[ReleaseRecord | None, bytes]:
            signed = view.releases.signed(app, counter=int(counter))
            return view.releases.get(app, int(counter)), signed.receipt if signed else b""

        release, receipt = await self._store.read(query)
        if release is None:
            return None
        served = self._served(release, receipt, NativeVersion("", ""))
        return served if served.snapshot == snapshot else None

    def _served(self, release: ReleaseRecord, data: bytes, device: NativeVersion) -> Served:
        receipt = self._receipts.get(data)
        if receipt is None:
            receipt = verify_receipt(data, log=self._verifier)
            if len(self._receipts) >= 1024:
                self._receipts.clear()
            self._receipts[data] = receipt
        statement = receipt.statement
        if (statement.app, statement.counter) != (release.app, release.counter):
            raise VerificationError("receipt is of another release")
        ranges = (*statement.native_ranges, *release.ranges)
        return Served(release, receipt, admits(ranges, device))


def _find(view: View, app: str, channel: str) -> _Found | None:
    channels = view.channels.list(app, channel)
    if not channels or not channels[0].counter:
        return None
    target = channels[0]
    release = view.releases.get(app, target.counter)
    signed = view.releases.signed(app, counter=target.counter)
    leaves = view.log.leaves(target.log_index, 1)
    if release is None or signed is None or not leaves:
        raise VerificationError("the store lacks what the channel points at")
    head = view.log.head()
    index, size = target.log_index, head.size
    nodes = view.log.nodes(merkle.nodes_for(lambda look: merkle.inclusion_proof(index, size, look)))
    try:
        proof = merkle.inclusion_proof(index, size, nodes.__getitem__)
    except KeyError:
        raise VerificationError("the store lacks nodes of the log") from None
    return _Found(target, release, signed.receipt, head, leaves[0][1], proof)
