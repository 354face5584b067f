"""The keyholder process that signs checkpoints, one call at a time.

The log's key has a process of its own: a checkpoint, which every commit waits for, never
queues behind the signatures of releases, and a device that hangs on an app's key does not
stop the log.
"""

from __future__ import annotations

import socket
import threading
import time

import structlog
from privyseal.verify.note import Checkpoint

from privyseald.keyholder import wire
from privyseald.keyholder.custody import KeyholderSource, Spawned
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.model.errors import Unavailable
from privyseald.model.schemes import WrappedKey

START_LIMIT = 30.0
_TRIES = 2


class LogKeyholder:
    """Signs checkpoints, blocking, one call at a time. A process that died is replaced.

    Args:
        source: Starts the process.
        key: The log's key, wrapped.
        call_limit: Seconds after which a call that does not end costs the process its life.
    """

    def __init__(self, source: KeyholderSource, key: WrappedKey, call_limit: float = 10.0) -> None:
        self._source = source
        self._key = wire.key_to_wire(key)
        self._call_limit = call_limit
        self._process: Spawned | None = None
        self._link: socket.socket | None = None
        self._buffer = bytearray()
        self._lock = threading.Lock()
        self._log = structlog.get_logger("keyholder")

    def sign_checkpoint(self, checkpoint: Checkpoint) -> bytes:
        """Return the raw Ed25519 signature (64 bytes) over a checkpoint's text.

        Raises:
            Unavailable: If the process cannot be started or does not answer.
        """
        call = pb.SignCheckpoint(
            key=self._key, origin=checkpoint.origin, size=checkpoint.size, root=checkpoint.root
        )
        asked = pb.Request(id=1, sign_checkpoint=call)
        return self._answer(asked, "signed_checkpoint").signed_checkpoint.signature

    def sign_import_key(self, origin: str) -> tuple[bytes, bytes]:
        """Return the import key (32 bytes), and the signature over the text of its note.

        Raises:
            Unavailable: If the process cannot be started or does not answer.
        """
        call = pb.SignImportKey(key=self._key, origin=origin)
        asked = pb.Request(id=1, sign_import_key=call)
        signed = self._answer(asked, "signed_import_key").signed_import_key
        return signed.public_key, signed.signature

    def sign_backup(self, origin: str, sha256: bytes) -> bytes:
        """Return the signature over the text of a backup's note.

        Raises:
            Unavailable: If the process cannot be started or does not answer.
        """
        call = pb.SignBackup(key=self._key, origin=origin, sha256=sha256)
        asked = pb.Request(id=1, sign_backup=call)
        return self._answer(asked, "signed_backup").signed_backup.signature

    def _answer(self, asked: pb.Request, wanted: str) -> pb.Response:
        with self._lock:
            return self._answer_alone(asked, wanted)

    def _answer_alone(self, asked: pb.Request, wanted: str) -> pb.Response:
        request = wire.frame(asked.SerializeToString())
        for _ in range(_TRIES):
            try:
                response = self._ask(request)
            except (OSError, ValueError) as error:
                self._log.warning("log keyholder failed", error=type(error).__name__)
                self.stop()
                continue
            if response.WhichOneof("result") != wanted:
                self._log.error("log keyholder refused", message=response.failure.message)
                break
            return response
        raise Unavailable("the log cannot be signed now; try again", reason="LOG_DOWN")

    def start(self) -> None:
        """Start the process, if it does not run. Raises OSError, ValueError."""
        if self._link is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = self._source.spawn(theirs, token=False)
        self._link = ours
        ready = self._receive(START_LIMIT)
        self._log.info(
            "log keyholder ready",
            pid=self._process.pid,
            not_confined_by=", ".join(ready.ready.missed),
        )

    @property
    def pid(self) -> int:
        """The process's id, 0 if none runs."""
        return self._process.pid if self._process is not None else 0

    def stop(self) -> None:
        """End the process."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._buffer.clear()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _ask(self, request: bytes) -> pb.Response:
        self.start()
        if self._link is None:
            raise ConnectionError
        self._link.settimeout(self._call_limit)
        self._link.sendall(request)
        return self._receive(self._call_limit)

    def _receive(self, limit: float) -> pb.Response:
        if self._link is None:
            raise ConnectionError
        deadline = time.monotonic() + limit
        while True:
            messages = wire.unframe(self._buffer)
            if messages:
                return pb.Response.FromString(messages[0])
            self._link.settimeout(max(0.001, deadline - time.monotonic()))
            chunk = self._link.recv(65536)
            if not chunk:
                raise ConnectionError
            self._buffer += chunk
