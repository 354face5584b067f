"""Native builds: which store binaries are out there, and which keys they trust."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from privyseal.verify.canonical import Json

from privyseald.model import field, fields
from privyseald.model.errors import AlreadyExists, FailedPrecondition, NotFound
from privyseald.model.field import FieldTrust, NativeBuild
from privyseald.model.lifecycle import DAY
from privyseald.model.obstacles import WINDOW_DAYS
from privyseald.model.policy import Action, Caller
from privyseald.model.rotation import RotationState
from privyseald.model.schemes import Scheme
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.key_records import require_app
from privyseald.services.replay import replayed

COUNTS, MOST_LOST = 0.01, 10_000
"""From which share, and which number, of check-ins builds are not ended without force.

Both: a share alone can be diluted by whoever reaches the gateway. Of all that end within the
days looked at together: many small shares are a large one.
"""
_AFTER_OVERLAP = frozenset({RotationState.OVERLAP, RotationState.PROMOTED})


class NativeBuilds:
    """Registers and ends native builds.

    Args:
        store: The store.
        access: Authorisation.
        clock: Tells the time.
        cover: Has deployed releases of an app signed for the builds it has now.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        clock: Clock,
        cover: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._store = store
        self._access = access
        self._clock = clock
        self._cover = cover

    async def register(
        self,
        caller: Caller,
        request: Request,
        build: NativeBuild,
        *,
        allow_unknown: bool,
        already_shipped: bool,
    ) -> bytes:
        """Register a build; the answer is made of it.

        Args:
            caller: Who asks.
            request: What makes it idempotent.
            build: What it is; its id may be empty, its times are filled in here.
            allow_unknown: Take keys that the daemon does not know.
            already_shipped: It is out there, whether its keys are still wanted or not; also
                one that was ended counts again. For who manages keys.
        """
        made = _checked(build, self._clock())
        action = Action.KEY_MANAGE if already_shipped else Action.NATIVE_MANAGE
        permit = await self._access.authorise(caller, action, made.app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            require_app(tx, made.app)
            _require_known(tx, made, allow_unknown=allow_unknown or already_shipped)
            existing = _registered(tx, made, revive=already_shipped)
            if existing is not None:
                return lambda _: existing
            if not already_shipped:
                _require_servable(tx, made, allow_unknown=allow_unknown)
                _require_up_to_date(tx, made)
            tx.builds.put(made)
            shipped: dict[str, Json] = {"alreadyShipped": True} if already_shipped else {}
            tx.record({**_leaf(made), "principal": caller.principal, **shipped})
            return lambda _: made

        answer = await self._store.commit(act, request)
        await self._cover(made.app, caller.principal)
        return answer

    async def list(self, caller: Caller, app: str) -> list[NativeBuild]:
        """Return an app's builds in the order of their registration."""
        await self._access.authorise(caller, Action.RELEASE_READ, app)

        def query(view: View) -> list[NativeBuild]:
            require_app(view, app)
            return view.builds.list(app)

        found: list[NativeBuild] = await self._store.read(query)
        return found

    @replayed
    async def end(
        self, caller: Caller, request: Request, app: str, build_id: str, *, reason: str, force: bool
    ) -> bytes:
        """Note that devices with a build do not count any more.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            build_id: The build's id.
            reason: For people, 1 to 500 characters.
            force: Go on though its devices still ask, with the consent of others.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If too many of its devices still ask.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        fields.text(reason, "reason", 500, least=1)
        name = f"apps/{app}/nativeBuilds/{build_id}"
        action = Action.KEY_FORCE_RETIRE if force else Action.KEY_MANAGE

        try:
            permit = await self._access.authorise(caller, action, app, subject=name)
        except FailedPrecondition:
            await self._store.read(lambda view: self._endable(view, app, build_id, force=force))
            raise

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            build = self._endable(tx, app, build_id, force=force)
            ended = replace(build, ended_at=max(self._clock(), 1))
            tx.builds.put(ended)
            leaf: dict[str, Json] = {
                "act": "native.end",
                "principal": caller.principal,
                "nativeBuild": name,
                "reason": reason,
            }
            if force:
                leaf["forced"] = True
                leaf["checkInsPerMille"] = round(1000 * self._asking(tx, build)[1])
            tx.record(leaf)
            return lambda _: ended

        return await self._store.commit(act, request)

    def _endable(self, view: View, app: str, build_id: str, *, force: bool) -> NativeBuild:
        """Return a build that may be ended. Raises NotFound, FailedPrecondition."""
        name = f"apps/{app}/nativeBuilds/{build_id}"
        build = next((b for b in view.builds.list(app) if b.id == build_id), None)
        if build is None:
            raise NotFound(f"there is no {name}", reason="NATIVE_BUILD_NOT_FOUND")
        if not build.live:
            raise FailedPrecondition(f"{name} was ended before", reason="NATIVE_BUILD_ENDED")
        count, share = self._asking(view, build)
        if (share >= COUNTS or count >= MOST_LOST) and not force:
            raise FailedPrecondition(
                f"{count:,} check-ins in the last {WINDOW_DAYS} days, {share:.1%} of all, came "
                f"from {name} and builds that were ended in these days; wait, or force it with "
                "the consent of others (--force)",
                reason="NATIVE_BUILD_LIVES",
            )
        return build

    def _asking(self, view: View, build: NativeBuild) -> tuple[int, float]:
        """Return how often devices asked that ending a build gives up: number and share.

        With those of builds that were ended in the days looked at; none if nobody asked with
        this one.
        """
        now = self._clock()
        since = now // DAY - WINDOW_DAYS
        counts = tuple(view.builds.check_ins(build.app, since))
        if not any(c.count for c in counts if c.build == build.id):
            return 0, 0.0
        builds = tuple(view.builds.list(build.app))
        lost = [b for b in builds if b.id == build.id or b.ended_at > now - WINDOW_DAYS * DAY]
        ids = {b.id for b in lost}
        return (
            sum(c.count for c in counts if c.build in ids),
            FieldTrust(builds, counts).share(lost, since),
        )


def _checked(build: NativeBuild, now: int) -> NativeBuild:
    """Return a build as it is registered. Raises InvalidArgument."""
    if build.plugin == "expo":
        fields.runtime_version(build.version_name, "version_name")
    else:
        fields.native_version(build.version_name, "version_name")
    build_id = build.id or field.build_id(build.platform, build.version_name, build.version_code)
    return field.check(
        replace(
            build,
            id=fields.build_id(build_id),
            trusts=tuple(fields.digest(t, "trusted_keys") for t in build.trusts),
            registered_at=now,
            ended_at=0,
        )
    )


def _registered(tx: Transaction, made: NativeBuild, *, revive: bool) -> NativeBuild | None:
    """Return the same build if it counts already; None if it is to be registered.

    Raises:
        AlreadyExists: If another has its id, or it was ended and is not to be revived.
    """
    existing = next((b for b in tx.builds.list(made.app) if b.id == made.id), None)
    if existing is None:
        return None
    same = _what_it_is(existing) == _what_it_is(made)
    if same and existing.live:
        return existing
    if same and revive:
        return None
    raise AlreadyExists(
        f"{made.name} is registered with other keys or versions, or was ended; name this one "
        "otherwise (--id), or if it was ended in error, pass --already-shipped",
        reason="NATIVE_BUILD_EXISTS",
        field="native_build_id",
    )


def _leaf(build: NativeBuild) -> dict[str, Json]:
    trusts: list[Json] = [digest.hex() for digest in build.trusts]
    return {
        "act": "native.register",
        "nativeBuild": build.name,
        "platform": build.platform,
        "versionName": build.version_name,
        "versionCode": build.version_code,
        "plugin": build.plugin,
        "trusts": trusts,
    }


def _what_it_is(build: NativeBuild) -> NativeBuild:
    return replace(build, registered_at=0, ended_at=0)


def _require_servable(tx: Transaction, build: NativeBuild, *, allow_unknown: bool) -> None:
    """Refuse a new build that no version could ever sign for."""
    if build.scheme is None:
        return
    key = field.by_scheme(tx.keys.list(build.app)).get(build.scheme)
    if key is None or (allow_unknown and not field.trusted(build, key)):
        return
    if not any(v.state in field.HOPES for v in field.trusted(build, key)):
        raise FailedPrecondition(
            f"no key that the build embeds signs any more, or ever again: compile that of "
            f"{key.name}/versions/{key.primary} in (`privyseal key show` prints it), or if the "
            "build is out there already, pass --already-shipped",
            reason="KEYS_RETIRED",
        )


def _require_known(tx: Transaction, build: NativeBuild, *, allow_unknown: bool) -> None:
    """Refuse keys that are not of the app and the plugin's scheme."""
    if build.scheme is None:
        return
    keys = field.by_scheme(tx.keys.list(build.app))
    key = keys.get(build.scheme)
    roots = keys.get(Scheme.EXPO_ROOT_V1) if build.scheme is Scheme.EXPO_V1 else None
    versions = (*(key.versions if key else ()), *(roots.versions if roots else ()))
    known = {v.public_key_sha256 for v in versions}
    leaf = next(
        (v for v in versions if v.anchor_sha256 and v.public_key_sha256 in build.trusts), None
    )
    if leaf is not None and not allow_unknown:
        raise FailedPrecondition(
            f"the build embeds the certificate of {leaf.name}, which ends soon: embed that of the "
            "app's root, or if the build is out there already, pass --already-shipped",
            reason="LEAF_EMBEDDED",
        )
    unknown = [t.hex()[:16] for t in build.trusts if t not in known]
    if unknown and not allow_unknown:
        raise FailedPrecondition(
            f"the build embeds a key that is none of apps/{build.app}'s for {build.scheme} "
            f"(sha256 {', '.join(unknown)}…); import it, mend the build, or pass --allow-unknown",
            reason="UNKNOWN_KEY",
        )


def _require_up_to_date(tx: Transaction, build: NativeBuild) -> None:
    """From OVERLAP on, refuse new builds that would depend on the version that goes."""
    for rotation in tx.rotations.list(build.app):
        key = tx.keys.get(build.app, rotation.key)
        if key is None or rotation.state not in _AFTER_OVERLAP:
            continue
        root = key.scheme is Scheme.EXPO_ROOT_V1
        if not field.embeds(build.plugin, key.scheme) or (root and not field.trusted(build, key)):
            continue
        fit = [v for v in key.versions if v.version >= rotation.new]
        if not any(v.trusted_with(build.trusts) for v in fit):
            name = f"{key.name}/versions/{rotation.new}"
            raise FailedPrecondition(
                f"{rotation.name} is {rotation.state}: new builds must trust {name}; compile its "
                "public key in, `privyseal key show` prints it; or if the build is out there "
                "already, pass --already-shipped",
                reason="BUILD_BEHIND_ROTATION",
            )
