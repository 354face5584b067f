"""KeyService: each method converts, calls one use case and converts back."""

from __future__ import annotations

from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import key_service_pb2_grpc as key_grpc

from privyseald.model import fields
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Caller
from privyseald.model.schemes import KeyIdentity, KeyPlace
from privyseald.rpc import convert
from privyseald.rpc.calls import Gate, call, idempotent
from privyseald.services.keys import Keys


class KeyServicer(key_grpc.KeyServiceServicer):
    """privyseal.v1.KeyService."""

    def __init__(self, gate: Gate, keys: Keys, import_note: str) -> None:
        self.gate, self._keys = gate, keys
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

    @call
    async def DestroyKeyVersion(
        self, request: key_pb.DestroyKeyVersionRequest, caller: Caller
    ) -> key_pb.DestroyKeyVersionResponse:
        """Destroy a version."""
        message = key_pb.DestroyKeyVersionResponse
        app, key, number = fields.parts(request.name, "name", "apps", "keys", "versions")
        answer = await self._keys.destroy(
            caller,
            idempotent(caller, request, lambda v: message(key_version=convert.key_version(v))),
            app=app,
            key_id=key,
            number=fields.number(number, "name"),
            reason=request.reason,
        )
        return message.FromString(answer)

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
