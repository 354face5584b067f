"""What a keyholder answers: it signs only bytes that it built from a typed request.

Each signature is verified before it is answered. See `process` for the process around it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from privyseal.verify import backup, importing
from privyseal.verify.backup import note_text
from privyseal.verify.errors import VerificationError
from privyseal.verify.importing import ImportTarget, import_key_text, unseal
from privyseal.verify.keys import load_public_key
from privyseal.verify.note import Checkpoint
from privyseal.verify.statement import PAYLOAD_TYPE, Statement, pae
from privyseal.verify.successor import Successor, signing_input

from privyseald.keyholder import certificates, schemes, wire
from privyseald.keyholder.keystore import KeyUnusableError, Signer
from privyseald.keyholder.keystores import HsmDownError, Keystores, PinRefusedError
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.model.errors import InvalidArgument
from privyseald.model.fields import MAX_ARCHIVE, MAX_BUNDLE, app_id, key_id
from privyseald.model.schemes import (
    ALGORITHMS,
    ARCHIVE_SCHEMES,
    Algorithm,
    GeneratedKey,
    KeyIdentity,
    Scheme,
    WrappedKey,
)

LOG_APP = "_log"
"""The app that the log's own key belongs to; the underscore keeps callers from creating it."""

TITLES = (backup.TITLE, importing.TITLE)


class RefusedError(Exception):
    """The request is not one that the keyholder signs."""


class Worker:
    """Answers requests with a keystore."""

    def __init__(self, keystore: Keystores, clock: Callable[[], float] = time.time) -> None:
        self._keystore = keystore
        self._clock = clock
        self.token_failed = False
        self._archive = bytearray()
        self._calls: dict[str | None, Callable[[pb.Request], pb.Response]] = {
            "sign_release": self._release,
            "sign_checkpoint": self._checkpoint,
            "generate_key": self._generate,
            "import_key": self._import,
            "sign_import_key": self._import_key,
            "sign_backup": self._backup,
            "sign_successor": self._successor,
            "destroy_key": self._destroy,
            "take_archive": self._take,
            "expect_keys": self._expect,
            "sign_archive": self._sign_archive,
        }

    def look(self) -> None:
        """Notice, while nobody asks for anything, that the token has gone."""
        try:
            self._keystore.probe()
        except HsmDownError:
            self.token_failed = True

    def answer(self, request: pb.Request) -> pb.Response:
        """Return the response to a request; never raises, never tells of key material."""
        try:
            answer = self._calls.get(request.WhichOneof("call"))
            if answer is None:
                raise RefusedError("unknown call")
            response = answer(request)
        except RefusedError as error:
            failure = pb.Failure(kind=pb.Failure.KIND_REFUSED, message=str(error))
        except KeyUnusableError as error:
            failure = pb.Failure(kind=pb.Failure.KIND_KEY_UNUSABLE, message=str(error))
        except PinRefusedError as error:
            failure = pb.Failure(kind=pb.Failure.KIND_PIN_REFUSED, message=str(error))
        except HsmDownError as error:
            self.token_failed = True
            failure = pb.Failure(kind=pb.Failure.KIND_TOKEN_DOWN, message=str(error))
        except Exception as error:  # noqa: BLE001 - a traceback could show what must not be seen
            failure = pb.Failure(kind=pb.Failure.KIND_INTERNAL, message=type(error).__name__)
        else:
            response.id = request.id
            return response
        return pb.Response(id=request.id, failure=failure)

    def _generate(self, request: pb.Request) -> pb.Response:
        identity = _named(request.generate_key.identity)
        if identity.algorithm not in ALGORITHMS[identity.scheme]:
            raise RefusedError("scheme cannot use this algorithm")
        call = request.generate_key
        if call.adopt_uri:
            if identity.app == LOG_APP:
                raise RefusedError("the log's key is made by its daemon")
            if identity.scheme in ARCHIVE_SCHEMES or call.certificate.HasField("issuer"):
                # Who signs raw bytes, or what a root vouches for, is made here and now.
                raise RefusedError("a key that exists is not taken for this")
            made = self._keystore.token().adopt(identity, call.adopt_uri)
        elif call.token:
            made = self._keystore.token().generate(identity)
        else:
            made = self._keystore.software.generate(identity)
        return self._with_certificate(made, call.certificate, is_new=not call.adopt_uri)

    def _import(self, request: pb.Request) -> pb.Response:
        call = request.import_key
        identity = _named(call.identity)
        if identity.algorithm not in ALGORITHMS[identity.scheme] or identity.app == LOG_APP:
            raise RefusedError("scheme cannot use this algorithm")
        if call.certificate.HasField("issuer"):
            raise RefusedError("a root vouches for no key that others may have")
        target = ImportTarget(
            identity.app,
            identity.key,
            identity.scheme,
            identity.algorithm,
            identity.public_key_sha256,
        )
        software = self._keystore.software
        try:
            pkcs8 = unseal(call.sealed_private_key, target, software.import_key)
        except VerificationError as error:
            raise KeyUnusableError(str(error)) from None
        store = self._keystore.token() if call.token else software
        return self._with_certificate(store.add(identity, pkcs8), call.certificate)

    def _import_key(self, request: pb.Request) -> pb.Response:
        call = request.sign_import_key
        signer = self._log_signer(call.key, call.origin)
        public = self._keystore.software.import_key.public_key().public_bytes_raw()
        text = import_key_text(call.origin, public)
        signed = pb.SignedImportKey(public_key=public, signature=signer.sign(text.encode()))
        return pb.Response(signed_import_key=signed)

    def _backup(self, request: pb.Request) -> pb.Response:
        call = request.sign_backup
        signer = self._log_signer(call.key, call.origin)
        if len(call.sha256) != 32:
            raise RefusedError("a digest is not 32 bytes")
        signed = pb.SignedBackup(
            signature=signer.sign(note_text(call.origin, call.sha256).encode())
        )
        return pb.Response(signed_backup=signed)

    def _successor(self, request: pb.Request) -> pb.Response:
        call = request.sign_successor
        key = wire.key_from_wire(call.key)
        identity, new_key = key.identity, wire.key_from_wire(call.new_key)
        new = new_key.identity
        same = (identity.app, identity.key, identity.scheme) == (new.app, new.key, new.scheme)
        if identity.app == LOG_APP or not same or new.version <= identity.version:
            raise RefusedError("a successor is a later version of the same key")
        if hashlib.sha256(call.new_public_key).digest() != new.public_key_sha256:
            raise RefusedError("the new public key is not the new version's")
        try:
            load_public_key(call.new_public_key)
        except VerificationError:
            raise RefusedError("the new public key is malformed") from None
        # It opens only if nothing of its identity was changed.
        self._keystore.open(new_key)
        record = Successor(
            app=identity.app,
            key=identity.key,
            old=identity.version,
            new=new.version,
            old_sha256=identity.public_key_sha256,
            new_public_key=call.new_public_key,
            at=call.time,
        )
        signature = self._keystore.open(key).sign(signing_input(record))
        return pb.Response(signed_successor=pb.SignedSuccessor(signature=signature))

    def _destroy(self, request: pb.Request) -> pb.Response:
        key = wire.key_from_wire(request.destroy_key.key)
        if key.identity.app == LOG_APP:
            raise RefusedError("the log's key is not destroyed")
        if request.destroy_key.only_forget:
            self._keystore.forget(key)
        else:
            self._keystore.destroy(key)
        return pb.Response(destroyed_key=pb.DestroyedKey())

    def _with_certificate(
        self, made: GeneratedKey, terms: pb.CertificateTerms, *, is_new: bool = True
    ) -> pb.Response:
        """Answer with a key and its certificate; a new one is nobody's if that fails."""
        response = _made(made)
        if not terms.ends:
            return response
        subject = certificates.Party(made.wrapped.identity, made.public_key)
        try:
            if terms.HasField("issuer"):
                key = wire.key_from_wire(terms.issuer)
                issuer = certificates.Party(key.identity, terms.issuer_public_key)
            else:
                key, issuer = made.wrapped, subject
            validity = certificates.Validity(terms.begins, terms.ends)
            response.generated_key.certificate = certificates.issue(
                subject, issuer, self._keystore.open(key), validity, self._clock()
            )
        except Exception:
            if made.wrapped.in_token and is_new:
                self._keystore.destroy(made.wrapped)
            raise
        return response

    def _log_signer(self, message: pb.WrappedKey, origin: str) -> Signer:
        key = wire.key_from_wire(message)
        self._require(key.identity, Scheme.STATEMENT_V1, LOG_APP)
        if key.identity.algorithm is not Algorithm.ED25519:
            raise RefusedError("a log's key is Ed25519")
        if not origin or "\n" in origin or origin.startswith(TITLES):
            # What a note of another kind begins with: one would pass for the other.
            raise RefusedError("the log's name is malformed")
        return self._keystore.open(key)

    def _release(self, request: pb.Request) -> pb.Response:
        call = request.sign_release
        statement = _content(call.content)
        statement_key = wire.key_from_wire(call.statement_key)
        self._require(statement_key.identity, Scheme.STATEMENT_V1, statement.app)
        payload = statement.build()
        signer = self._keystore.open(statement_key)
        signed = pb.SignedRelease(
            statement=payload, statement_signature=signer.sign(pae(PAYLOAD_TYPE, payload))
        )
        for message in call.scheme_keys:
            key = wire.key_from_wire(message)
            scheme = key.identity.scheme
            if scheme not in schemes.SIGN:
                raise RefusedError(f"key is for {scheme}, which signs no bundle")
            self._require(key.identity, scheme, statement.app)
            if scheme is Scheme.STATEMENT_V1 and not _another(key, statement_key):
                raise RefusedError("a statement is signed by versions of its own key, once each")
            loaded = self._keystore.open(key)
            signed.scheme_signatures.append(schemes.SIGN[scheme](loaded, statement, payload))
        return pb.Response(signed_release=signed)

    def _take(self, request: pb.Request) -> pb.Response:
        call = request.take_archive
        if call.first:
            self._archive = bytearray()
        if len(self._archive) + len(call.piece) > MAX_ARCHIVE:
            self._archive = bytearray()
            raise RefusedError("the archive is too long")
        self._archive += call.piece
        return pb.Response(took_archive=pb.TookArchive())

    def _expect(self, _: pb.Request) -> pb.Response:
        self._keystore.token().expect_keys()
        return pb.Response(expected_keys=pb.ExpectedKeys())

    def _sign_archive(self, request: pb.Request) -> pb.Response:
        call = request.sign_archive
        statement = _content(call.content)
        # What is signed is what was hashed: nobody else has this copy of it.
        archive = bytes(self._archive)
        if (hashlib.sha256(archive).digest(), len(archive)) != (
            statement.bundle_sha256,
            statement.bundle_length,
        ):
            raise RefusedError("the archive is not the release's")
        key = wire.key_from_wire(call.key)
        if key.identity.scheme not in ARCHIVE_SCHEMES:
            raise RefusedError(f"key is for {key.identity.scheme}, which signs no archive")
        self._require(key.identity, key.identity.scheme, statement.app)
        signature = self._keystore.open(key).sign(archive)
        return pb.Response(signed_archive=pb.SignedArchive(signature=signature))

    def _checkpoint(self, request: pb.Request) -> pb.Response:
        call = request.sign_checkpoint
        signer = self._log_signer(call.key, call.origin)
        if len(call.root) != 32:
            raise RefusedError("checkpoint is malformed")
        text = Checkpoint(call.origin, call.size, call.root).text()
        signed = pb.SignedCheckpoint(signature=signer.sign(text.encode()))
        return pb.Response(signed_checkpoint=signed)

    @staticmethod
    def _require(identity: KeyIdentity, scheme: Scheme, app: str) -> None:
        if identity.scheme is not scheme:
            raise RefusedError(f"key is for {identity.scheme}, not for {scheme}")
        if identity.app != app:
            raise RefusedError("key belongs to another app")
        if identity.algorithm not in ALGORITHMS[scheme]:
            raise RefusedError("scheme cannot use this algorithm")


def _content(message: pb.ReleaseContent) -> Statement:
    """Return the content of a release. Raises RefusedError if it is out of bounds."""
    statement = wire.content_from_wire(message)
    if len(statement.bundle_sha256) != 32 or len(statement.manifest_sha256) != 32:
        raise RefusedError("a digest is not 32 bytes")
    if len(statement.bundle_blake2b) not in {0, 64}:
        raise RefusedError("the BLAKE2b digest is not 64 bytes")
    if len(statement.codepush_sha256) not in {0, 32}:
        raise RefusedError("the package hash is not 32 bytes")
    if statement.expo is not None and any(
        len(sha256) != 32
        for update in statement.expo.updates
        for sha256 in (update.launch_sha256, *(a.sha256 for a in update.assets))
    ):
        raise RefusedError("an Expo asset's digest is not 32 bytes")
    if statement.app == LOG_APP:
        raise RefusedError("the log releases nothing")
    if not 1 <= statement.bundle_length <= MAX_BUNDLE or statement.counter < 1:
        raise RefusedError("bundle length or counter is out of bounds")
    return statement


def _named(message: pb.KeyIdentity) -> KeyIdentity:
    """Return what a new key will be. Raises RefusedError for names that no key can have.

    Labels of keys in a token are made of them.
    """
    identity = wire.identity_from_wire(message)
    try:
        if identity.app != LOG_APP:
            app_id(identity.app)
        key_id(identity.key)
    except InvalidArgument:
        raise RefusedError("a key's name is malformed") from None
    if identity.version < 1:
        raise RefusedError("a key's name is malformed")
    return identity


def _another(key: WrappedKey, than: WrappedKey) -> bool:
    """Say whether it is another version of the same key."""
    mine, theirs = key.identity, than.identity
    return mine.key == theirs.key and mine.version != theirs.version


def _made(key: GeneratedKey) -> pb.Response:
    made = pb.GeneratedKey(
        key=wire.key_to_wire(key.wrapped), public_key=key.public_key, protection=key.protection
    )
    return pb.Response(generated_key=made)
