"""What stands in for processes, sockets and files where services run in the test's own process."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, utils
from privyseal.verify.keys import load_public_key
from privyseal.verify.note import NoteVerifier, format_note
from privyseald.adapters.repositories import Db
from privyseald.adapters.sql_engine import make_engine, migrate
from privyseald.adapters.sql_transaction import SqlView
from privyseald.keyholder import wire
from privyseald.keyholder.keystore import SoftwareKeystore
from privyseald.keyholder.keystores import Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.keyholder.worker import Worker
from privyseald.model.errors import FailedPrecondition
from privyseald.model.policy import Grant, Role
from privyseald.model.schemes import KeyPlace

ORIGIN = "test/log"
_LOG_KEY = ed25519.Ed25519PrivateKey.generate()
VERIFIER = NoteVerifier(ORIGIN, _LOG_KEY.public_key().public_bytes_raw())


def sign_checkpoint(checkpoint) -> str:
    """Sign a checkpoint of the log that all tests of this process share."""
    text = checkpoint.text()
    return format_note(text, ORIGIN, VERIFIER.public_key, _LOG_KEY.sign(text.encode()))


@functools.cache
def empty_database() -> Path:
    """A database with an empty log, where olivia and oscar may do all; each test takes a copy."""
    folder = Path(tempfile.mkdtemp(prefix="privyseal-test-"))
    atexit.register(shutil.rmtree, folder)
    url = f"sqlite:///{folder / 'empty.db'}"
    migrate(url, sign_checkpoint, ORIGIN)
    engine = make_engine(url)
    with engine.begin() as connection:
        view = SqlView(Db(connection))
        for person in ("olivia", "oscar"):
            for role in Role:
                view.grants.add(Grant(f"{person}-{role}", f"certificate:{person}", role, "-"))
    engine.dispose()
    return folder / "empty.db"


class InProcess:
    """The keyholder's worker, called rather than spoken to."""

    def __init__(self, clock) -> None:
        self.software = SoftwareKeystore(b"k" * 32)
        self.worker = Worker(Keystores(self.software), clock)
        self.generated = 0
        self.destroyed: list[str] = []

    def _ask(self, **call: object) -> pb.Response:
        response = self.worker.answer(pb.Request(id=1, **call))
        if response.WhichOneof("result") == "failure":
            raise FailedPrecondition(response.failure.message, reason="KEY_UNUSABLE")
        return response

    async def generate(self, identity, place=KeyPlace(), certificate=None):  # noqa: B008 - frozen
        self.generated += 1
        call = pb.GenerateKey(
            identity=wire.identity_to_wire(identity), certificate=wire.terms_to_wire(certificate)
        )
        return wire.made_from_wire(self._ask(generate_key=call).generated_key, certificate)

    async def import_key(self, identity, sealed, *, token, certificate=None):
        call = pb.ImportKey(
            identity=wire.identity_to_wire(identity),
            sealed_private_key=sealed,
            token=token,
            certificate=wire.terms_to_wire(certificate),
        )
        return wire.made_from_wire(self._ask(import_key=call).generated_key, certificate)

    async def sign_release(self, statement, statement_key, scheme_keys):
        call = pb.SignRelease(
            content=wire.content_to_wire(statement),
            statement_key=wire.key_to_wire(statement_key),
            scheme_keys=[wire.key_to_wire(key) for key in scheme_keys],
        )
        signed = self._ask(sign_release=call).signed_release
        return signed.statement, [signed.statement_signature, *signed.scheme_signatures]

    async def sign_archive(self, statement, keys, pieces):
        first = True
        async for piece in pieces:
            self._ask(take_archive=pb.TakeArchive(first=first, piece=piece))
            first = False
        content = wire.content_to_wire(statement)
        return [
            self._ask(
                sign_archive=pb.SignArchive(content=content, key=wire.key_to_wire(key))
            ).signed_archive.signature
            for key in keys
        ]

    async def sign_successor(self, old, new, new_public_key, at):
        call = pb.SignSuccessor(
            key=wire.key_to_wire(old),
            new_key=wire.key_to_wire(new),
            new_public_key=new_public_key,
            time=at,
        )
        return self._ask(sign_successor=call).signed_successor.signature

    async def destroy(self, key):
        self._ask(destroy_key=pb.DestroyKey(key=wire.key_to_wire(key)))
        self.destroyed.append(key.identity.name)


class Forgetful:
    """Keeps the last checkpoint in memory."""

    def __init__(self) -> None:
        self.note = ""

    def read(self):
        return None

    def doubt(self) -> str:
        return ""

    def write(self, note: str) -> None:
        self.note = note


@dataclass
class Device:
    """A device: its binary's version, and what is compiled into it."""

    build: str
    platform: str
    version_name: str
    version_code: str
    keys: tuple[bytes, ...]
    installed: str = ""

    def accepts(self, receipt_signature, bundle_sha256: bytes) -> bool:
        """Verify as the plugin does, with the embedded keys and nothing else."""
        for spki in self.keys:
            key = load_public_key(spki)
            try:
                key.verify(
                    receipt_signature.signature,
                    bundle_sha256,
                    padding.PKCS1v15(),
                    utils.Prehashed(hashes.SHA256()),
                )
            except InvalidSignature:
                continue
            return True
        return False
