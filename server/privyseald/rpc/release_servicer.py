"""ReleaseService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import release_service_pb2 as release_pb
from privyseal.v1 import release_service_pb2_grpc as release_grpc

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Caller
from privyseald.model.records import DeploymentRecord
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent, page
from privyseald.services.channels import Channels
from privyseald.services.releases import Artifact, Releases


class ReleaseServicer(release_grpc.ReleaseServiceServicer):
    """privyseal.v1.ReleaseService."""

    def __init__(self, gate: Gate, releases: Releases, channels: Channels) -> None:
        self.gate, self._releases, self._channels = gate, releases, channels

    @call
    async def RegisterRelease(
        self, request: release_pb.RegisterReleaseRequest, caller: Caller
    ) -> release_pb.RegisterReleaseResponse:
        """Register an artifact."""
        types = {release_pb.ARTIFACT_TYPE_ZIP: "zip", release_pb.ARTIFACT_TYPE_MANIFEST: "manifest"}
        message = release_pb.RegisterReleaseResponse
        answer = await self._releases.register(
            caller,
            idempotent(caller, request, lambda r: message(release=convert.release(r))),
            app=fields.app_name(request.parent, "parent"),
            version=request.version,
            artifact=Artifact(
                request.artifact_url,
                types.get(request.artifact_type, ""),
                request.commit_sha,
                request.commit_ref,
                request.commit_message,
            ),
        )
        return message.FromString(answer)

    @call
    async def GetRelease(
        self, request: release_pb.GetReleaseRequest, caller: Caller
    ) -> release_pb.GetReleaseResponse:
        """Return a release."""
        app, number = fields.parts(request.name, "name", "apps", "releases")
        record, receipt = await self._releases.release(caller, app, fields.number(number, "name"))
        return release_pb.GetReleaseResponse(release=convert.release(record), receipt=receipt)

    @call
    async def ListReleases(
        self, request: release_pb.ListReleasesRequest, caller: Caller
    ) -> release_pb.ListReleasesResponse:
        """List releases."""
        app, limit = fields.app_name(request.parent, "parent"), page(request.page_size, 100)
        below = fields.number(request.page_token, "page_token") if request.page_token else 1 << 53
        found = await self._releases.releases(caller, app, below, limit)
        more = str(found[-1].counter) if len(found) == limit else ""
        return release_pb.ListReleasesResponse(
            releases=[convert.release(r) for r in found], next_page_token=more
        )

    @call
    async def WithdrawRelease(
        self, request: release_pb.WithdrawReleaseRequest, caller: Caller
    ) -> release_pb.WithdrawReleaseResponse:
        """Withdraw a release."""
        app, number = fields.parts(request.name, "name", "apps", "releases")
        message = release_pb.WithdrawReleaseResponse
        answer = await self._releases.withdraw(
            caller,
            idempotent(caller, request, lambda r: message(release=convert.release(r))),
            app=app,
            counter=fields.number(number, "name"),
            reason=request.reason,
        )
        return message.FromString(answer)

    @call
    async def SetNativeVersions(
        self, request: release_pb.SetNativeVersionsRequest, caller: Caller
    ) -> release_pb.SetNativeVersionsResponse:
        """Narrow a release."""
        app, number = fields.parts(request.name, "name", "apps", "releases")
        message = release_pb.SetNativeVersionsResponse
        answer = await self._releases.set_native_versions(
            caller,
            idempotent(caller, request, lambda r: message(release=convert.release(r))),
            app=app,
            counter=fields.number(number, "name"),
            ranges=convert.ranges(request.native_ranges),
        )
        return message.FromString(answer)

    @call
    async def CreateChannel(
        self, request: release_pb.CreateChannelRequest, caller: Caller
    ) -> release_pb.CreateChannelResponse:
        """Create a channel."""
        message = release_pb.CreateChannelResponse
        answer = await self._channels.create(
            caller,
            idempotent(caller, request, lambda c: message(channel=convert.channel(c))),
            app=fields.app_name(request.parent, "parent"),
            channel=request.channel_id,
        )
        return message.FromString(answer)

    @call
    async def ListChannels(
        self, request: release_pb.ListChannelsRequest, caller: Caller
    ) -> release_pb.ListChannelsResponse:
        """List channels."""
        found = await self._channels.all(caller, fields.app_name(request.parent, "parent"))
        return release_pb.ListChannelsResponse(channels=[convert.channel(c) for c in found])

    @call
    async def DeleteChannel(
        self, request: release_pb.DeleteChannelRequest, caller: Caller
    ) -> release_pb.DeleteChannelResponse:
        """Delete a channel."""
        app, channel = fields.parts(request.name, "name", "apps", "channels")
        message = release_pb.DeleteChannelResponse
        answer = await self._channels.delete(
            caller,
            idempotent(caller, request, lambda _: message()),
            app=app,
            channel=channel,
        )
        return message.FromString(answer)

    @call
    async def Deploy(
        self, request: release_pb.DeployRequest, caller: Caller
    ) -> release_pb.DeployResponse:
        """Point channels at a release."""
        app, number = fields.parts(request.release, "release", "apps", "releases")
        named = [fields.parts(c, "channels", "apps", "channels") for c in request.channels]
        if any(owner != app for owner, _ in named):
            raise InvalidArgument("channels", "must be channels of the release's app")

        def encode(made: list[DeploymentRecord]) -> release_pb.DeployResponse:
            return release_pb.DeployResponse(deployments=[convert.deployment(d) for d in made])

        answer = await self._channels.deploy(
            caller,
            idempotent(caller, request, encode),
            app=app,
            counter=fields.number(number, "release"),
            channels=[channel for _, channel in named],
        )
        return release_pb.DeployResponse.FromString(answer)

    @call
    async def ListDeployments(
        self, request: release_pb.ListDeploymentsRequest, caller: Caller
    ) -> release_pb.ListDeploymentsResponse:
        """List deployments."""
        app, channel = fields.parts(request.parent, "parent", "apps", "channels")
        found = await self._channels.deployments(caller, app, channel, page(request.page_size, 5))
        return release_pb.ListDeploymentsResponse(
            deployments=[convert.deployment(d) for d in found]
        )
