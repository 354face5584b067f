"""KeyService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import key_service_pb2_grpc as key_grpc

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.lifecycle import DEFAULT_DESTROY_DELAY
from privyseald.model.policy import Caller
from privyseald.model.schemes import KeyIdentity, KeyPlace
from privyseald.ports import Request
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.ceremonies import MAX_VERSIONS, Ceremonies, Ceremony
from privyseald.services.ending import VersionName
from privyseald.services.keys import Keys
from privyseald.services.versions import Versions


class KeyServicer(key_grpc.KeyServiceServicer):
    """privyseal.v1.KeyService."""

    def __init__(
        self,
        gate: Gate,
        keys: Keys,
        versions: Versions,
        ceremonies: Ceremonies,
        *,
        import_note: str,
    ) -> None:
        self.gate, self._keys, self._versions = gate, keys, versions
        self._ceremonies = ceremonies
        self._import_note = import_note

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
            place=KeyPlace(
                token=request.in_token or bool(request.token_uri), uri=request.token_uri
            ),
        )
        return key_pb.CreateKeyResponse.FromString(answer)

    @call
    async def GetImportKey(
        self,
        request: key_pb.GetImportKeyRequest,
        caller: Caller,
    ) -> key_pb.GetImportKeyResponse:
        """Return the key that private keys are sealed for."""
        return key_pb.GetImportKeyResponse(note=self._import_note)

    @call
    async def ImportKey(
        self, request: key_pb.ImportKeyRequest, caller: Caller
    ) -> key_pb.ImportKeyResponse:
        """Import a key."""
        scheme, algorithm = convert.scheme(request.scheme), convert.algorithm(request.algorithm)
        if algorithm is None:
            raise InvalidArgument("algorithm", "must say what the private key is")
        answer = await self._keys.import_key(
            caller,
            idempotent(caller, request, lambda k: key_pb.ImportKeyResponse(key=convert.key(k))),
            KeyIdentity(
                fields.app_name(request.parent, "parent"),
                request.key_id or scheme,
                1,
                scheme,
                algorithm,
                request.public_key_sha256,
            ),
            request.sealed_private_key,
            token=request.in_token,
        )
        return key_pb.ImportKeyResponse.FromString(answer)

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
    async def CreateKeyVersion(
        self, request: key_pb.CreateKeyVersionRequest, caller: Caller
    ) -> key_pb.CreateKeyVersionResponse:
        """Make a standby version."""
        app, key = fields.parts(request.parent, "parent", "apps", "keys")
        message = key_pb.CreateKeyVersionResponse
        answer = await self._versions.create(
            caller,
            _version_answer(caller, request, message),
            app=app,
            key_id=key,
            algorithm=convert.algorithm(request.algorithm),
            place=KeyPlace(token=request.in_token),
        )
        return message.FromString(answer)

    @call
    async def SuspendKeyVersion(
        self, request: key_pb.SuspendKeyVersionRequest, caller: Caller
    ) -> key_pb.SuspendKeyVersionResponse:
        """Suspend a version."""
        message = key_pb.SuspendKeyVersionResponse
        made, name = _version_answer(caller, request, message), _version(request.name)
        return message.FromString(
            await self._versions.suspend(caller, made, name, reason=request.reason)
        )

    @call
    async def ResumeKeyVersion(
        self, request: key_pb.ResumeKeyVersionRequest, caller: Caller
    ) -> key_pb.ResumeKeyVersionResponse:
        """Resume a version."""
        message = key_pb.ResumeKeyVersionResponse
        made, name = _version_answer(caller, request, message), _version(request.name)
        return message.FromString(
            await self._versions.resume(caller, made, name, reason=request.reason)
        )

    @call
    async def DeactivateKeyVersion(
        self, request: key_pb.DeactivateKeyVersionRequest, caller: Caller
    ) -> key_pb.DeactivateKeyVersionResponse:
        """Stop a version for good."""
        message = key_pb.DeactivateKeyVersionResponse
        answer = await self._versions.deactivate(
            caller,
            _version_answer(caller, request, message),
            _version(request.name),
            reason=request.reason,
            force=request.force,
        )
        return message.FromString(answer)

    @call
    async def CompromiseKeyVersion(
        self, request: key_pb.CompromiseKeyVersionRequest, caller: Caller
    ) -> key_pb.CompromiseKeyVersionResponse:
        """Note that others may know a private key."""
        message = key_pb.CompromiseKeyVersionResponse
        answer = await self._versions.compromise(
            caller,
            _version_answer(caller, request, message),
            _version(request.name),
            since=request.compromise_time.seconds,
            evidence=request.evidence,
        )
        return message.FromString(answer)

    @call
    async def DestroyKeyVersion(
        self, request: key_pb.DestroyKeyVersionRequest, caller: Caller
    ) -> key_pb.DestroyKeyVersionResponse:
        """Schedule the destruction of a version."""
        message = key_pb.DestroyKeyVersionResponse
        given = request.HasField("delay")
        answer = await self._versions.destroy(
            caller,
            _version_answer(caller, request, message),
            _version(request.name),
            reason=request.reason,
            delay=request.delay.seconds if given else DEFAULT_DESTROY_DELAY,
            force=request.force,
        )
        return message.FromString(answer)

    @call
    async def RestoreKeyVersion(
        self, request: key_pb.RestoreKeyVersionRequest, caller: Caller
    ) -> key_pb.RestoreKeyVersionResponse:
        """Undo a scheduled destruction."""
        message = key_pb.RestoreKeyVersionResponse
        made, name = _version_answer(caller, request, message), _version(request.name)
        return message.FromString(
            await self._versions.restore(caller, made, name, reason=request.reason)
        )

    @call
    async def SetCryptoperiod(
        self, request: key_pb.SetCryptoperiodRequest, caller: Caller
    ) -> key_pb.SetCryptoperiodResponse:
        """Set for how long versions may sign."""
        app, key = fields.parts(request.name, "name", "apps", "keys")
        message = key_pb.SetCryptoperiodResponse
        made = idempotent(caller, request, lambda k: message(key=convert.key(k)))
        return message.FromString(
            await self._versions.set_cryptoperiod(caller, made, app, key, request.days)
        )

    @call
    async def ListSuccessors(
        self, request: key_pb.ListSuccessorsRequest, caller: Caller
    ) -> key_pb.ListSuccessorsResponse:
        """List successor records."""
        app, key = fields.parts(request.parent, "parent", "apps", "keys")
        found = await self._versions.successors(caller, app, key)
        return key_pb.ListSuccessorsResponse(records=[s.record for s in found])

    @call
    async def RecordCeremony(
        self, request: key_pb.RecordCeremonyRequest, caller: Caller
    ) -> key_pb.RecordCeremonyResponse:
        """Note a ceremony in the log."""
        message = key_pb.RecordCeremonyResponse
        # A stranger's long list is refused before it is read.
        names = request.key_versions[: MAX_VERSIONS + 1]
        held = Ceremony(
            request.title,
            tuple(request.participants),
            request.file_sha256,
            request.transcript_sha256,
            tuple(_version(name, "key_versions") for name in names),
        )
        answer = await self._ceremonies.record(
            caller,
            idempotent(caller, request, lambda index: message(log_index=index)),
            fields.app_name(request.parent, "parent"),
            held,
        )
        return message.FromString(answer)


def _version(name: str, field: str = "name") -> VersionName:
    app, key, number = fields.parts(name, field, "apps", "keys", "versions")
    return app, key, fields.number(number, field)


def _version_answer(caller: Caller, request: Message, message: Callable[..., Message]) -> Request:
    return idempotent(caller, request, lambda v: message(key_version=convert.key_version(v)))
