"""The servicers: each method converts, calls one use case and converts back."""

from __future__ import annotations

import hashlib
from typing import TypeVar

from google.protobuf.message import Message
from privyseal import __version__
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc
from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import app_service_pb2_grpc as app_grpc
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import key_service_pb2_grpc as key_grpc
from privyseal.v1 import log_service_pb2 as log_pb
from privyseal.v1 import log_service_pb2_grpc as log_grpc
from privyseal.v1 import release_service_pb2 as release_pb
from privyseal.v1 import release_service_pb2_grpc as release_grpc
from privyseal.v1 import signing_service_pb2 as signing_pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc
from privyseal.v1 import types_pb2
from privyseal.verify.keys import spki_pem
from privyseal.verify.statement import Statement

from privyseald.model import fields
from privyseald.model.errors import AlreadyExists, InvalidArgument
from privyseald.model.policy import Caller, Grant
from privyseald.model.records import AppRecord, DeploymentRecord, KeyRecord, TokenRecord
from privyseald.rpc import convert
from privyseald.rpc.calls import call, idempotent, page
from privyseald.services.access import Access
from privyseald.services.audit import Audit
from privyseald.services.keys import Keys
from privyseald.services.releases import Artifact, Releases
from privyseald.services.signing import SignedRelease, Signing

_M = TypeVar("_M", bound=Message)


def _nothing(message: type[_M]) -> _M:
    return message()


class AppServicer(app_grpc.AppServiceServicer):
    """privyseal.v1.AppService."""

    def __init__(self, access: Access, keys: Keys) -> None:
        self.access, self._keys = access, keys

    @call
    async def CreateApp(
        self, request: app_pb.CreateAppRequest, caller: Caller
    ) -> app_pb.CreateAppResponse:
        """Create an app and its statement key."""

        def encode(made: tuple[AppRecord, KeyRecord]) -> app_pb.CreateAppResponse:
            pem = spki_pem(made[1].versions[0].public_key)
            return app_pb.CreateAppResponse(app=convert.app(made[0]), statement_public_key=pem)

        answer = await self._keys.create_app(
            caller,
            idempotent(caller, request, encode),
            app=request.app_id,
            display_name=request.display_name,
            algorithm=convert.algorithm(request.statement_algorithm),
        )
        return app_pb.CreateAppResponse.FromString(answer)

    @call
    async def GetApp(self, request: app_pb.GetAppRequest, caller: Caller) -> app_pb.GetAppResponse:
        """Return an app."""
        found = await self._keys.app(caller, fields.app_name(request.name, "name"))
        return app_pb.GetAppResponse(app=convert.app(found))

    @call
    async def ListApps(
        self, request: app_pb.ListAppsRequest, caller: Caller
    ) -> app_pb.ListAppsResponse:
        """List apps."""
        found, more = await self._keys.apps(
            caller, request.page_token, page(request.page_size, 100)
        )
        return app_pb.ListAppsResponse(apps=[convert.app(a) for a in found], next_page_token=more)


class KeyServicer(key_grpc.KeyServiceServicer):
    """privyseal.v1.KeyService."""

    def __init__(self, access: Access, keys: Keys) -> None:
        self.access, self._keys = access, keys

    @call
    async def CreateKey(
        self, request: key_pb.CreateKeyRequest, caller: Caller
    ) -> key_pb.CreateKeyResponse:
        """Create a key."""
        answer = await self._keys.create_key(
            caller,
            idempotent(caller, request, lambda k: key_pb.CreateKeyResponse(key=convert.key(k))),
            app=fields.app_name(request.parent, "parent"),
            key_id=request.key_id,
            scheme=convert.scheme(request.scheme),
            algorithm=convert.algorithm(request.algorithm),
        )
        return key_pb.CreateKeyResponse.FromString(answer)

    @call
    async def GetKey(self, request: key_pb.GetKeyRequest, caller: Caller) -> key_pb.GetKeyResponse:
        """Return a key."""
        app, key = fields.parts(request.name, "name", "apps", "keys")
        return key_pb.GetKeyResponse(key=convert.key(await self._keys.key(caller, app, key)))

    @call
    async def ListKeys(
        self, request: key_pb.ListKeysRequest, caller: Caller
    ) -> key_pb.ListKeysResponse:
        """List an app's keys."""
        found = await self._keys.keys(caller, fields.app_name(request.parent, "parent"))
        return key_pb.ListKeysResponse(keys=[convert.key(k) for k in found])

    @call
    async def SuspendKeyVersion(
        self, request: key_pb.SuspendKeyVersionRequest, caller: Caller
    ) -> key_pb.SuspendKeyVersionResponse:
        """Suspend a version."""
        answer = await self._change(caller, request, key_pb.SuspendKeyVersionResponse, suspend=True)
        return key_pb.SuspendKeyVersionResponse.FromString(answer)

    @call
    async def ResumeKeyVersion(
        self, request: key_pb.ResumeKeyVersionRequest, caller: Caller
    ) -> key_pb.ResumeKeyVersionResponse:
        """Resume a version."""
        answer = await self._change(caller, request, key_pb.ResumeKeyVersionResponse, suspend=False)
        return key_pb.ResumeKeyVersionResponse.FromString(answer)

    async def _change(
        self,
        caller: Caller,
        request: key_pb.SuspendKeyVersionRequest | key_pb.ResumeKeyVersionRequest,
        response: type[key_pb.SuspendKeyVersionResponse | key_pb.ResumeKeyVersionResponse],
        *,
        suspend: bool,
    ) -> bytes:
        app, key, number = fields.parts(request.name, "name", "apps", "keys", "versions")
        return await self._keys.change_state(
            caller,
            idempotent(caller, request, lambda v: response(key_version=convert.key_version(v))),
            app=app,
            key_id=key,
            number=fields.number(number, "name"),
            reason=request.reason,
            suspend=suspend,
        )


class SigningServicer(signing_grpc.SigningServiceServicer):
    """privyseal.v1.SigningService."""

    def __init__(self, access: Access, signing: Signing) -> None:
        self.access, self._signing = access, signing

    @call
    async def SignRelease(
        self, request: signing_pb.SignReleaseRequest, caller: Caller
    ) -> signing_pb.SignReleaseResponse:
        """Sign a release."""
        wanted = Statement(
            app=fields.app_name(request.parent, "parent"),
            version=request.version,
            counter=0,
            bundle_sha256=request.bundle_sha256,
            bundle_length=request.bundle_length,
            manifest_sha256=request.manifest_sha256,
            native_ranges=fields.native_ranges(convert.ranges(request.native_ranges)),
            source_commit=fields.commit(request.source_commit, "source_commit"),
            signed_at=0,
            log_origin="",
        )
        answer = await self._signing.sign(caller, idempotent(caller, request, _signed), wanted)
        return signing_pb.SignReleaseResponse.FromString(answer)


def _signed(signed: SignedRelease) -> signing_pb.SignReleaseResponse:
    return signing_pb.SignReleaseResponse(
        signatures=[
            types_pb2.Signature(
                key_version=s.key_version,
                scheme=convert.scheme_to_wire(s.scheme),
                algorithm=convert.algorithm_to_wire(s.algorithm),
                signature=s.signature,
                public_key_sha256=hashlib.sha256(s.public_key).digest(),
                reason="primary",
            )
            for s in signed.signatures
        ],
        statement=signed.statement,
        receipt=signed.receipt,
        counter=signed.counter,
    )


class ReleaseServicer(release_grpc.ReleaseServiceServicer):
    """privyseal.v1.ReleaseService."""

    def __init__(self, access: Access, releases: Releases) -> None:
        self.access, self._releases = access, releases

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
        answer = await self._releases.create_channel(
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
        found = await self._releases.channels(caller, fields.app_name(request.parent, "parent"))
        return release_pb.ListChannelsResponse(channels=[convert.channel(c) for c in found])

    @call
    async def DeleteChannel(
        self, request: release_pb.DeleteChannelRequest, caller: Caller
    ) -> release_pb.DeleteChannelResponse:
        """Delete a channel."""
        app, channel = fields.parts(request.name, "name", "apps", "channels")
        message = release_pb.DeleteChannelResponse
        answer = await self._releases.delete_channel(
            caller,
            idempotent(caller, request, lambda _: _nothing(message)),
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

        answer = await self._releases.deploy(
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
        found = await self._releases.deployments(caller, app, channel, page(request.page_size, 5))
        return release_pb.ListDeploymentsResponse(
            deployments=[convert.deployment(d) for d in found]
        )


class LogServicer(log_grpc.LogServiceServicer):
    """privyseal.v1.LogService."""

    def __init__(self, access: Access, audit: Audit, vkey: str) -> None:
        self.access, self._audit, self._vkey = access, audit, vkey

    @call
    async def GetCheckpoint(
        self, request: log_pb.GetCheckpointRequest, caller: Caller
    ) -> log_pb.GetCheckpointResponse:
        """Return the newest checkpoint."""
        head = await self._audit.head()
        return log_pb.GetCheckpointResponse(checkpoint=head.note, verifier_key=self._vkey)

    @call
    async def GetInclusionProof(
        self, request: log_pb.GetInclusionProofRequest, caller: Caller
    ) -> log_pb.GetInclusionProofResponse:
        """Prove a leaf."""
        size, hashes = await self._audit.inclusion(request.index, request.tree_size)
        return log_pb.GetInclusionProofResponse(tree_size=size, hashes=hashes)

    @call
    async def GetConsistencyProof(
        self, request: log_pb.GetConsistencyProofRequest, caller: Caller
    ) -> log_pb.GetConsistencyProofResponse:
        """Prove a prefix."""
        size, hashes = await self._audit.consistency(request.old_size, request.new_size)
        return log_pb.GetConsistencyProofResponse(new_size=size, hashes=hashes)

    @call
    async def ListEntries(
        self, request: log_pb.ListEntriesRequest, caller: Caller
    ) -> log_pb.ListEntriesResponse:
        """List leaves."""
        limit = page(request.page_size, 100)
        leaves, size = await self._audit.entries(caller, request.start, limit)
        return log_pb.ListEntriesResponse(
            entries=[
                types_pb2.LogEntry(index=i, leaf=leaf, time=convert.time(at))
                for i, leaf, at in leaves
            ],
            next_start=leaves[-1][0] + 1 if leaves else size,
            log_size=size,
        )


class AccessServicer(access_grpc.AccessServiceServicer):
    """privyseal.v1.AccessService."""

    def __init__(self, access: Access) -> None:
        self.access = access

    @call
    async def WhoAmI(
        self, request: access_pb.WhoAmIRequest, caller: Caller
    ) -> access_pb.WhoAmIResponse:
        """Say who calls."""
        grants = [convert.grant(g) for g in await self.access.who(caller)]
        return access_pb.WhoAmIResponse(
            principal=caller.principal, grants=grants, server_version=__version__
        )

    @call
    async def CreateToken(
        self, request: access_pb.CreateTokenRequest, caller: Caller
    ) -> access_pb.CreateTokenResponse:
        """Create a token; its secret is in this one answer."""

        def encode(made: tuple[TokenRecord, list[Grant]]) -> access_pb.CreateTokenResponse:
            return access_pb.CreateTokenResponse(
                token=convert.token(made[0]), grants=[convert.grant(g) for g in made[1]]
            )

        secret, answer = await self.access.create_token(
            caller,
            idempotent(caller, request, encode),
            name=request.display_name,
            ttl=request.ttl_seconds,
            roles=[convert.role(r) for r in request.roles],
            app=fields.resource(request.resource, "resource"),
        )
        response = access_pb.CreateTokenResponse.FromString(answer)
        if not secret.startswith("pst_" + response.token.name.removeprefix("tokens/")):
            raise AlreadyExists(
                f"{response.token.name} was created by this request before, and its secret "
                "was shown then; revoke it and create another",
                reason="SECRET_SHOWN",
                field="request_id",
            )
        response.secret = secret
        return response

    @call
    async def ListTokens(
        self, request: access_pb.ListTokensRequest, caller: Caller
    ) -> access_pb.ListTokensResponse:
        """List tokens."""
        found = await self.access.tokens(caller)
        return access_pb.ListTokensResponse(tokens=[convert.token(t) for t in found])

    @call
    async def RevokeToken(
        self, request: access_pb.RevokeTokenRequest, caller: Caller
    ) -> access_pb.RevokeTokenResponse:
        """Revoke a token."""
        message = access_pb.RevokeTokenResponse
        answer = await self.access.revoke_token(
            caller,
            idempotent(caller, request, lambda t: message(token=convert.token(t))),
            fields.parts(request.name, "name", "tokens")[0],
        )
        return message.FromString(answer)

    @call
    async def CreateGrant(
        self, request: access_pb.CreateGrantRequest, caller: Caller
    ) -> access_pb.CreateGrantResponse:
        """Give a role."""
        message = access_pb.CreateGrantResponse
        app = fields.resource(request.resource, "resource")
        wanted = Grant("", fields.principal(request.principal), convert.role(request.role), app)
        answer = await self.access.create_grant(
            caller, idempotent(caller, request, lambda g: message(grant=convert.grant(g))), wanted
        )
        return message.FromString(answer)

    @call
    async def ListGrants(
        self, request: access_pb.ListGrantsRequest, caller: Caller
    ) -> access_pb.ListGrantsResponse:
        """List grants."""
        found = await self.access.grants(caller, fields.resource(request.resource, "resource"))
        return access_pb.ListGrantsResponse(grants=[convert.grant(g) for g in found])

    @call
    async def RevokeGrant(
        self, request: access_pb.RevokeGrantRequest, caller: Caller
    ) -> access_pb.RevokeGrantResponse:
        """Take a role back."""
        message = access_pb.RevokeGrantResponse
        answer = await self.access.revoke_grant(
            caller,
            idempotent(caller, request, lambda _: _nothing(message)),
            fields.parts(request.name, "name", "grants")[0],
        )
        return message.FromString(answer)
