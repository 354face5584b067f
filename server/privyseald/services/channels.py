"""Channels, and what they point at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from privyseald.model.policy import Action, Caller
from privyseald.model.records import ChannelRecord, DeploymentRecord
from privyseald.ports import Clock, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.key_records import require_app
from privyseald.services.releases import require_release, require_sound
from privyseald.services.replay import replayed


class Channels:
    """What devices follow.

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
        *,
        cover: Callable[[str, str], Awaitable[object]],
    ) -> None:
        self._store = store
        self._access = access
        self._clock = clock
        self._cover = cover

    async def create(self, caller: Caller, request: Request, *, app: str, channel: str) -> bytes:
        """Create a channel; the answer is made of a ChannelRecord.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            channel: Its id, 1 to 100 of A-Z a-z 0-9 . _ -.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app is missing.
            AlreadyExists: If there is one of that id.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        fields.channel_id(channel)
        permit = await self._access.authorise(caller, Action.RELEASE_MANAGE, app)
        now = self._clock()
        record = ChannelRecord(app, channel, 0, 0, now)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            require_app(tx, app)
            if tx.channels.list(app, channel):
                raise AlreadyExists(
                    f"{record.name} exists", reason="CHANNEL_EXISTS", field="channel_id"
                )
            tx.channels.add(record)
            tx.record(
                {"act": "channel.create", "principal": caller.principal, "channel": record.name}
            )
            return lambda _: record

        return await self._store.commit(act, request)

    async def all(self, caller: Caller, app: str) -> list[ChannelRecord]:
        """Return an app's channels."""
        await self._access.authorise(caller, Action.RELEASE_READ, app)

        def query(view: View) -> list[ChannelRecord]:
            require_app(view, app)
            return view.channels.list(app)

        found: list[ChannelRecord] = await self._store.read(query)
        return found

    async def delete(self, caller: Caller, request: Request, *, app: str, channel: str) -> bytes:
        """Delete a channel; its devices get nothing from then on.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            channel: Its id.

        Raises:
            NotFound: If the app or what is named of it is not there.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        permit = await self._access.authorise(caller, Action.RELEASE_MANAGE, app)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            record = _require_channel(tx, app, channel)
            tx.channels.remove(app, channel)
            tx.record(
                {"act": "channel.delete", "principal": caller.principal, "channel": record.name}
            )
            return lambda _: None

        return await self._store.commit(act, request)

    async def deploy(
        self, caller: Caller, request: Request, *, app: str, counter: int, channels: list[str]
    ) -> bytes:
        """Point channels at a release; the answer is made of a list of DeploymentRecord.

        Args:
            caller: Who asks.
            request: Makes it idempotent, and its answer the stored one.
            app: The app's id.
            counter: The release's number.
            channels: Ids of 1 to 20 channels.

        Raises:
            InvalidArgument: With the field that is wrong.
            NotFound: If the app or what is named of it is not there.
            FailedPrecondition: If the release was withdrawn, or would reach devices that refuse it.
            PermissionDenied: If the caller may not.
            Unavailable: If it cannot be recorded now.
        """
        if not 1 <= len(set(channels)) <= 20:
            raise InvalidArgument("channels", "must name 1 to 20 channels")
        answer: bytes = await self._deploy(caller, request, app, counter, channels)
        # It may have been signed before some of its builds were there.
        await self._cover(app, caller.principal)
        return answer

    @replayed
    async def _deploy(
        self, caller: Caller, request: Request, app: str, counter: int, channels: list[str]
    ) -> bytes:
        permits = [
            await self._access.authorise(
                caller,
                Action.RELEASE_DEPLOY,
                app,
                channel=name,
                subject=f"apps/{app}/channels/{name} = apps/{app}/releases/{counter}",
            )
            for name in dict.fromkeys(channels)
        ]
        now = self._clock()

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            for permit in permits:
                permit.confirm(tx)
            release = require_release(tx, app, counter)
            if release.withdrawn_at:
                raise FailedPrecondition(
                    f"{release.name} was withdrawn; deploy another", reason="RELEASE_WITHDRAWN"
                )
            signed = tx.releases.signed(app, counter=counter)
            if signed is not None:
                require_sound(tx, signed)
            made = []
            for name in dict.fromkeys(channels):
                channel = _require_channel(tx, app, name)
                index = tx.record(
                    {
                        "act": "deploy",
                        "principal": caller.principal,
                        "channel": channel.name,
                        "release": release.name,
                    }
                )
                deployment = DeploymentRecord(
                    app, name, counter, release.version, caller.principal, now, index
                )
                tx.channels.deploy(deployment)
                made.append(deployment)
            return lambda _: made

        return await self._store.commit(act, request)

    async def deployments(
        self, caller: Caller, app: str, channel: str, limit: int
    ) -> list[DeploymentRecord]:
        """Return a channel's deployments, newest first."""
        await self._access.authorise(caller, Action.RELEASE_READ, app)

        def query(view: View) -> list[DeploymentRecord]:
            _require_channel(view, app, channel)
            return list(view.channels.deployments(app, channel, limit))

        found: list[DeploymentRecord] = await self._store.read(query)
        return found


def _require_channel(view: View, app: str, channel: str) -> ChannelRecord:
    found = view.channels.list(app, channel)
    if not found:
        raise NotFound(
            f"there is no channel {channel} in apps/{app}; `privyseal live-update create-channel` "
            "makes one",
            reason="CHANNEL_NOT_FOUND",
        )
    return found[0]
