"""What the log says is deployed: read from its leaves, each of them under a signed checkpoint.

The gateway trusts one thing, the log's public key. It reads every leaf once, in order,
rebuilds the tree, and compares its root with the checkpoint that the log signed. What
channels point at, where artifacts are and for which binaries, it knows from there and from
nowhere else: a changed row of the database reaches no device, and a log that is shorter
than it was, or another, is noticed and not followed.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from privyseal.verify.canonical import parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.merkle import EMPTY_ROOT, leaf_hash
from privyseal.verify.note import Checkpoint, NoteVerifier, open_checkpoint
from privyseal.verify.statement import NativeRange

from privyseald.model import merkle
from privyseald.model.field import NativeBuild, matching
from privyseald.model.fields import parts
from privyseald.model.native import NativeVersion
from privyseald.ports import LastCheckpoint, Store, View

ARTIFACTS = "/artifacts/"
"""Under which path the gateway's own folder of artifacts is served."""
_PAGE = 2000
_FRONTIER_AGE = 512


@dataclass(frozen=True)
class Registered:
    """A release as the log has it.

    `statement_sha256` is of the statement that was registered; empty where an older daemon
    registered it, whose leaves tell of the version alone.
    """

    app: str
    counter: int
    version: str
    url: str
    type: str
    statement_sha256: bytes = b""
    ranges: tuple[NativeRange, ...] = ()
    withdrawn: bool = False

    @property
    def name(self) -> str:
        """apps/{app}/releases/{n}."""
        return f"apps/{self.app}/releases/{self.counter}"


@dataclass(frozen=True)
class Certificate:
    """What the log has of a key version's certificate.

    `anchor_sha256` is of the public key that it hangs on, empty if it is self-signed; `begins`
    and `ends` in seconds since 1970.
    """

    sha256: bytes
    anchor_sha256: bytes
    begins: int
    ends: int


@dataclass
class Followed:
    """What the leaves so far come to.

    Attributes:
        channels: What each channel points at: the name of a release, empty before the first
            deployment.
        releases: The releases, by name.
        builds: The native builds of each app, by their names.
        certificates: Of the key versions that have one, by their names.
        served: The releases whose artifact the gateway's own folder may have, oldest first, by
            its place in there.
    """

    channels: dict[str, str] = field(default_factory=dict)
    releases: dict[str, Registered] = field(default_factory=dict)
    builds: dict[str, dict[str, NativeBuild]] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    served: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def concerns(leaf: bytes) -> bool:
        """Whether a leaf tells of anything that is kept here."""
        return _kind(leaf) in _APPLY

    def copy(self) -> Followed:
        """Return another that can be changed without this one."""
        builds = {app: dict(builds) for app, builds in self.builds.items()}
        return Followed(
            *(dict(self.channels), dict(self.releases), builds),
            *(dict(self.certificates), dict(self.served)),
        )

    def apply(self, leaf: bytes) -> None:
        """Take one more leaf, which concerns it, into account.

        Raises:
            VerificationError: If it is malformed.
        """
        act = parse_object(leaf, "log leaf")
        try:
            _APPLY[_kind(leaf)](self, act)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VerificationError("a leaf of the log is malformed") from error

    def channels_of(self, app: str) -> list[str]:
        """Return the ids of an app's channels, ordered."""
        prefix = f"apps/{app}/channels/"
        return sorted(n.removeprefix(prefix) for n in self.channels if n.startswith(prefix))

    def build(self, app: str, device: NativeVersion) -> NativeBuild | None:
        """Return the build that a device runs, if it is registered."""
        found = self.builds.get(app, {}).values()
        return matching(found, device.platform, device.name, device.code)

    def _create_channel(self, act: dict[str, Any]) -> None:
        self.channels[act["channel"]] = ""

    def _delete_channel(self, act: dict[str, Any]) -> None:
        self.channels.pop(act["channel"], None)

    def _deploy(self, act: dict[str, Any]) -> None:
        self.channels[act["channel"]] = act["release"]

    def _register(self, act: dict[str, Any]) -> None:
        app, counter = parts(act["release"], "release", "apps", "releases")
        stated = bytes.fromhex(act.get("statementSha256", ""))
        made = Registered(app, int(counter), act["version"], act["url"], act["type"], stated)
        self.releases[made.name] = made
        # Whatever the gateway is called to devices: which bytes they get, the digest says. Below
        # the app's own id, or one app could take the place of another's.
        _, _, place = unquote(made.url).partition(ARTIFACTS)
        if place.startswith(f"{app}/"):
            self.served[place] = (*self.served.get(place, ()), made.name)

    def _withdraw(self, act: dict[str, Any]) -> None:
        name = act["release"]
        self.releases[name] = replace(self.releases[name], withdrawn=True)

    def _register_build(self, act: dict[str, Any]) -> None:
        app, build_id = parts(act["nativeBuild"], "nativeBuild", "apps", "nativeBuilds")
        made = NativeBuild(
            app=app,
            id=build_id,
            platform=act["platform"],
            version_name=act["versionName"],
            version_code=act["versionCode"],
            plugin=act["plugin"],
            trusts=tuple(bytes.fromhex(digest) for digest in act["trusts"]),
            registered_at=act["time"],
        )
        self.builds.setdefault(app, {})[made.name] = made

    def _end_build(self, act: dict[str, Any]) -> None:
        name = act["nativeBuild"]
        builds = self.builds[name.split("/")[1]]
        builds[name] = replace(builds[name], ended_at=act["time"])

    def _certify(self, act: dict[str, Any]) -> None:
        if "certificateSha256" in act:
            self.certificates[act["keyVersion"]] = Certificate(
                bytes.fromhex(act["certificateSha256"]),
                bytes.fromhex(act["anchorSha256"]),
                act["certificateBegins"],
                act["certificateEnds"],
            )

    def _narrow(self, act: dict[str, Any]) -> None:
        ranges = tuple(NativeRange(**r) for r in act["ranges"])
        self.releases[act["release"]] = replace(self.releases[act["release"]], ranges=ranges)


# Canonical JSON has its members in order, and no act has one before this.
_ACT = b'{"act":"'
_APPLY: dict[bytes, Callable[[Followed, dict[str, Any]], None]] = {
    b"channel.create": Followed._create_channel,  # noqa: SLF001 - this module's own
    b"channel.delete": Followed._delete_channel,  # noqa: SLF001 - as above
    b"deploy": Followed._deploy,  # noqa: SLF001 - as above
    b"release.register": Followed._register,  # noqa: SLF001 - as above
    b"release.native-versions": Followed._narrow,  # noqa: SLF001 - as above
    b"release.withdraw": Followed._withdraw,  # noqa: SLF001 - as above
    b"key.create": Followed._certify,  # noqa: SLF001 - as above
    b"key.create-version": Followed._certify,  # noqa: SLF001 - as above
    b"key.import": Followed._certify,  # noqa: SLF001 - as above
    b"native.register": Followed._register_build,  # noqa: SLF001 - as above
    b"native.end": Followed._end_build,  # noqa: SLF001 - as above
}


def _kind(leaf: bytes) -> bytes:
    return leaf[len(_ACT) : len(_ACT) + 32].partition(b'"')[0] if leaf[:8] == _ACT else b""


class Follower:
    """Follows the log.

    Args:
        store: Where the leaves are.
        verifier: The log's key.
        kept: The last checkpoint that is known outside the database.
    """

    def __init__(self, store: Store, verifier: NoteVerifier, kept: LastCheckpoint) -> None:
        self._store = store
        self._verifier = verifier
        self._kept = kept
        self._lock = asyncio.Lock()
        self._start()

    def _start(self) -> None:
        self._state = self._read = Followed()
        self._growth = merkle.Growth(0, {})
        self._root = EMPTY_ROOT
        self._must: Checkpoint | None = None

    async def state(self) -> Followed:
        """Return what the newest checkpoint covers.

        Raises:
            VerificationError: If the log contradicts itself or what was known of it.
            Unavailable: If the store cannot be read.
        """
        note: str = await self._store.read(lambda view: view.log.head().note)
        head = open_checkpoint(note, self._verifier)
        if (head.size, head.root) == (self._growth.size, self._root):
            return self._state
        async with self._lock:
            if head.size < self._growth.size:
                # Others came first, who read a later one; only if this is shorter, too, it shrank.
                note = await self._store.read(lambda view: view.log.head().note)
                head = open_checkpoint(note, self._verifier)
            await self._follow(head)
        return self._state

    async def _follow(self, head: Checkpoint) -> None:
        if head.size <= self._growth.size:
            # Another caller came first; a log that shrank or changed is none of those.
            if head.size == self._growth.size and head.root != self._root:
                raise VerificationError("the log has another root than it had")
            if head.size < self._growth.size:
                raise VerificationError("the log is shorter than it was")
            return
        if self._growth.size == 0:
            self._must = await asyncio.to_thread(self._kept.read)
            if self._must is None and (why := self._kept.doubt()):
                raise VerificationError(why)
            if self._must is not None and self._must.size > head.size:
                raise VerificationError("the log is shorter than its last known checkpoint")
        try:
            while self._growth.size < head.size:
                await self._store.read(functools.partial(self._take, head.size))
            self._check(head)
        except BaseException:
            # What was taken is under no checkpoint: it is read again from the beginning.
            self._start()
            raise

    def _take(self, size: int, view: View) -> None:
        start = self._growth.size
        limit = min(_PAGE, size - start)
        leaves = view.log.leaves(start, limit)
        if [index for index, _, _ in leaves] != list(range(start, start + limit)):
            raise VerificationError("the store lacks leaves of the log")
        for _, leaf, _ in leaves:
            self._growth.append(leaf_hash(leaf))
            if Followed.concerns(leaf):
                if self._read is self._state:
                    # Others have it, on another thread, and these leaves are not verified yet.
                    self._read = self._state.copy()
                self._read.apply(leaf)
            if self._must is not None and self._growth.size == self._must.size:
                if self._tree_root() != self._must.root:
                    raise VerificationError("the log is not the one of its last checkpoint")
                self._must = None
            if len(self._growth.added) > _FRONTIER_AGE:
                # Only the frontier is needed to go on.
                self._growth = merkle.Growth(self._growth.size, self._growth.frontier())

    def _check(self, head: Checkpoint) -> None:
        root = self._tree_root()
        if root != head.root:
            raise VerificationError("the leaves do not make the root that the log signed")
        self._root, self._state = root, self._read
        self._growth = merkle.Growth(self._growth.size, self._growth.frontier())

    def _tree_root(self) -> bytes:
        return merkle.root(self._growth.size, self._growth.node)
