"""Field trust: which store binaries are out there, and which keys each of them trusts.

An embedded public key cannot be recalled. What an app may do with its keys follows from the
native builds that live: a build is served as long as some active version of its key is one
that it trusts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from privyseal.verify.statement import NativeRange

from privyseald.model.errors import InvalidArgument
from privyseald.model.native import NATIVE_CODE, NativeVersion, admits
from privyseald.model.records import KeyRecord, KeyVersionRecord
from privyseald.model.schemes import KeyVersionState, Scheme

PLUGINS: dict[str, Scheme | None] = {
    "capawesome": Scheme.CAPAWESOME_V1,
    "capgo": Scheme.CAPGO_V2,
    "codepush": Scheme.CODEPUSH_V1,
    "minisign": Scheme.MINISIGN,
    "sparkle": Scheme.SPARKLE_ED25519,
    "expo": Scheme.EXPO_V1,
    "statement": Scheme.STATEMENT_V1,
    # It verifies nothing.
    "ionic": None,
}
"""Which scheme the devices of a plugin verify."""
MAX_TRUSTS = 8


HOPES = frozenset(
    {KeyVersionState.PRE_ACTIVATION, KeyVersionState.ACTIVE, KeyVersionState.SUSPENDED}
)
"""States of versions that sign, or may yet."""


def embeds(plugin: str, scheme: Scheme) -> bool:
    """Say whether a plugin's devices embed keys of a scheme: their own, or what it hangs on."""
    own = PLUGINS[plugin]
    return own is scheme or (own is Scheme.EXPO_V1 and scheme is Scheme.EXPO_ROOT_V1)


@dataclass(frozen=True)
class NativeBuild:
    """One store binary.

    Attributes:
        app: Its app.
        id: Within the app, such as `android-1.4.0-37`.
        platform: android or ios.
        version_name: Such as 1.4.0.
        version_code: Android's version code or iOS's build number, as text.
        plugin: One of `PLUGINS`.
        trusts: SHA-256 of each public key compiled into it (SubjectPublicKeyInfo DER).
        registered_at: Seconds since 1970.
        ended_at: Since when it does not count any more; 0 while it lives.
    """

    app: str
    id: str
    platform: str
    version_name: str
    version_code: str
    plugin: str
    trusts: tuple[bytes, ...]
    registered_at: int
    ended_at: int = 0

    @property
    def name(self) -> str:
        """apps/{app}/nativeBuilds/{id}."""
        return f"apps/{self.app}/nativeBuilds/{self.id}"

    @property
    def live(self) -> bool:
        """Whether devices with it still count."""
        return not self.ended_at

    @property
    def scheme(self) -> Scheme | None:
        """What its devices verify; None if they verify nothing."""
        return PLUGINS[self.plugin]

    @property
    def native(self) -> NativeVersion:
        """Its version, as ranges compare it."""
        return NativeVersion(self.platform, self.version_name, self.version_code)

    @property
    def order(self) -> tuple[list[int], int]:
        """What tells a newer build from an older one of its platform."""
        digits = [int(p) if NATIVE_CODE.fullmatch(p) else 0 for p in self.version_name.split(".")]
        return digits, int(self.version_code) if NATIVE_CODE.fullmatch(self.version_code) else 0


@dataclass(frozen=True)
class CheckIns:
    """How often devices of one native version asked on one day; who they are is not kept.

    `build` is the id of a registered build, or empty for versions that nobody registered;
    `day` is in days since 1970, UTC.
    """

    build: str
    platform: str
    version_name: str
    version_code: str
    day: int
    count: int


def build_id(platform: str, version_name: str, version_code: str) -> str:
    """Return the id of a build that nobody named."""
    name = "-".join(part for part in (platform, version_name, version_code) if part)
    # Runtime versions of Expo's have signs that a name has not.
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)


def check(build: NativeBuild) -> NativeBuild:
    """Return a valid build. Raises InvalidArgument."""
    if build.platform not in {"android", "ios"}:
        raise InvalidArgument("platform", "must be android or ios")
    if build.plugin not in PLUGINS:
        raise InvalidArgument("plugin", f"must be one of {', '.join(PLUGINS)}")
    if build.version_code and not NATIVE_CODE.fullmatch(build.version_code):
        raise InvalidArgument("version_code", "must be at most 18 digits")
    if len(build.trusts) > MAX_TRUSTS:
        raise InvalidArgument("trusted_keys", f"must be at most {MAX_TRUSTS}")
    if build.scheme is not None and not build.trusts:
        raise InvalidArgument("trusted_keys", f"{build.plugin} verifies: name what it embeds")
    return build


def trusted(build: NativeBuild, key: KeyRecord) -> list[KeyVersionRecord]:
    """Return the versions of a key that a build trusts, newest first."""
    found = [v for v in key.versions if v.trusted_with(build.trusts)]
    return sorted(found, key=lambda v: v.version, reverse=True)


def serving(
    build: NativeBuild, key: KeyRecord, without: Iterable[int] = ()
) -> KeyVersionRecord | None:
    """Return the version that signs for a build: the primary, else its newest active one.

    Args:
        build: The build.
        key: The key of its scheme.
        without: Versions that are thought away.
    """
    gone = set(without)
    able = [
        v
        for v in trusted(build, key)
        if v.state is KeyVersionState.ACTIVE and v.version not in gone
    ]
    return next((v for v in able if v.version == key.primary), able[0] if able else None)


def needed_versions(
    key: KeyRecord, builds: Sequence[NativeBuild], ranges: tuple[NativeRange, ...]
) -> dict[int, str]:
    """Return the versions of a key that a release for some native ranges is signed with.

    Returns:
        Version -> why, in words: `primary`, or the builds that need it. The primary comes
        first, whether it is active or not, unless the key was given up.
    """
    reasons: dict[int, list[str]] = {}
    for build in builds:
        if not build.live or build.scheme is not key.scheme or not admits(ranges, build.native):
            continue
        version = serving(build, key)
        if version is not None and version.version != key.primary:
            reasons.setdefault(version.version, []).append(build.id)
    chosen = {} if key.given_up else {key.primary: "primary"}
    for number, ids in sorted(reasons.items()):
        shown = ", ".join(sorted(ids)[:5]) + (" and others" if len(ids) > 5 else "")
        chosen[number] = f"needed by {shown}"
    return chosen


@dataclass(frozen=True)
class Standing:
    """How one native version stands with a key.

    Attributes:
        build: The build; None for a version that nobody registered.
        label: For people.
        embedded: The numbers of the key's versions that it trusts.
        served_by: The version that signs for it; 0 if none does.
        check_ins: How often its devices asked in the days looked at.
        share: Of all check-ins, 0 to 1.
        last_day: The last day on which one did, days since 1970; 0 if none did.
        unknown: How many of the keys in it the daemon does not know.
    """

    build: NativeBuild | None
    label: str
    embedded: tuple[int, ...]
    served_by: int
    check_ins: int
    share: float
    last_day: int
    unknown: int = 0

    @property
    def verdict(self) -> str:
        """In words: served, stranded, ended, unregistered, or that nothing is verified."""
        if self.build is None:
            return "not registered"
        if not self.build.live:
            return "ended"
        return f"served by version {self.served_by}" if self.served_by else "stranded"


@dataclass(frozen=True)
class FieldTrust:
    """The builds of an app and how often their devices asked.

    Attributes:
        builds: All of them.
        counts: Check-ins, by build and day.
    """

    builds: tuple[NativeBuild, ...]
    counts: tuple[CheckIns, ...] = field(default=())

    def live(self, scheme: Scheme) -> list[NativeBuild]:
        """Return the live builds whose devices embed keys of a scheme."""
        return [b for b in self.builds if b.live and embeds(b.plugin, scheme)]

    def stranded(self, key: KeyRecord, without: Iterable[int] = ()) -> list[NativeBuild]:
        """Return the live builds that no version could be signed for, some thought away."""
        gone = tuple(without)
        return [b for b in self.live(key.scheme) if serving(b, key, gone) is None]

    def newly_stranded(self, key: KeyRecord, without: Iterable[int]) -> list[NativeBuild]:
        """Return the live builds that are served now and would not be without some versions."""
        gone = tuple(without)
        return [
            b
            for b in self.live(key.scheme)
            if serving(b, key) is not None and serving(b, key, gone) is None
        ]

    def lost_by_retiring(self, key: KeyRecord, number: int) -> list[NativeBuild]:
        """Return the live builds that the retirement of a version takes something from.

        Those that it signs for and no other could, and those that could hope for it alone: it
        is suspended, or waits, and whatever else they trust never signs again.
        """
        version = key.version(number)
        if version is None or version.state not in HOPES:
            return []
        lost = {b.id for b in self.newly_stranded(key, [number])}
        lost |= {b.id for b in self.hoping_for(key, number)}
        return [b for b in self.live(key.scheme) if b.id in lost]

    def hoping_for(self, key: KeyRecord, number: int) -> list[NativeBuild]:
        """Return the live builds that trust a version, and no other that could ever sign."""
        version = key.version(number)
        return [
            b
            for b in self.live(key.scheme)
            if version is not None
            and version.trusted_with(b.trusts)
            and not any(v.state in HOPES for v in trusted(b, key) if v.version != number)
        ]

    def share(self, builds: Iterable[NativeBuild], since_day: int) -> float:
        """Return the share of check-ins since a day that came from some builds."""
        ids = {b.id for b in builds}
        recent = [c for c in self.counts if c.day >= since_day]
        total = sum(c.count for c in recent)
        return sum(c.count for c in recent if c.build in ids) / total if total else 0.0

    def standings(self, key: KeyRecord, since_day: int) -> list[Standing]:
        """Return how each native version stands with a key, newest builds first."""
        recent = [c for c in self.counts if c.day >= since_day]
        total = sum(c.count for c in recent) or 1
        known = {d for v in key.versions for d in (v.public_key_sha256, v.anchor_sha256)}
        found = []
        for build in sorted(self.builds, key=lambda b: (b.platform, b.order), reverse=True):
            if not embeds(build.plugin, key.scheme):
                continue
            mine = [c for c in recent if c.build == build.id]
            served = serving(build, key) if build.live else None
            embedded = tuple(sorted(v.version for v in trusted(build, key)))
            found.append(
                Standing(
                    build=build,
                    label=build.id,
                    embedded=embedded,
                    served_by=served.version if served else 0,
                    check_ins=sum(c.count for c in mine),
                    share=sum(c.count for c in mine) / total,
                    last_day=max((c.day for c in self.counts if c.build == build.id), default=0),
                    unknown=len(set(build.trusts) - known),
                )
            )
        return found + _strangers(recent, total)


def _strangers(recent: Sequence[CheckIns], total: int) -> list[Standing]:
    """Return the versions that nobody registered, most check-ins first."""
    counts: dict[str, int] = {}
    days: dict[str, int] = {}
    for c in recent:
        if not c.build:
            label = build_id(c.platform, c.version_name, c.version_code)
            counts[label] = counts.get(label, 0) + c.count
            days[label] = max(days.get(label, 0), c.day)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [
        Standing(None, label, (), 0, count, count / total, days[label]) for label, count in ordered
    ]


def matching(
    builds: Iterable[NativeBuild], platform: str, version_name: str, version_code: str
) -> NativeBuild | None:
    """Return the build that a device runs, by what it says of itself.

    Plugins say the name, the code, or both. A code decides where both have one; of several
    builds of one name, the one registered last counts.
    """
    named: NativeBuild | None = None
    for build in builds:
        if build.platform != platform:
            continue
        if version_code and build.version_code:
            if build.version_code == version_code and (
                not version_name or build.version_name == version_name
            ):
                return build
            continue
        if version_name and build.version_name == version_name:
            named = build
    return named


def by_scheme(keys: Iterable[KeyRecord]) -> Mapping[Scheme, KeyRecord]:
    """Return an app's keys by what they are for."""
    return {key.scheme: key for key in keys}
