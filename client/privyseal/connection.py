"""The connection to a daemon: profile, credentials, calls, errors in words."""

from __future__ import annotations

import os
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

# gRPC prints its own lines about failed handshakes; the user gets ours.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from privyseal import credential_files
from privyseal._version import __version__
from privyseal.call_errors import explained, retryable
from privyseal.errors import ClientError
from privyseal.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    app_service_pb2_grpc,
    approval_service_pb2_grpc,
    backup_service_pb2_grpc,
    key_service_pb2_grpc,
    log_service_pb2_grpc,
    native_service_pb2_grpc,
    policy_service_pb2_grpc,
    release_service_pb2_grpc,
    rotation_service_pb2_grpc,
    signing_service_pb2_grpc,
)
from privyseal.verify.messages import expo_from_message
from privyseal.verify.statement import content_sha256

TIMEOUT = 30.0
_PAUSES = (0.3, 1.2)
_TRIES = 1 + len(_PAUSES)


@dataclass(frozen=True)
class Profile:
    """Where the daemon is and how to identify to it."""

    server: str
    ca: Path | None
    token: str = ""
    certificate: Path | None = None
    key: Path | None = None
    storage: str = ""
    public_url: str = ""
    audience: str = ""

    @property
    def anonymous(self) -> bool:
        """Whether there is no credential in it: then CI may vouch for the job."""
        return not self.token and self.certificate is None


def load_profile(path: str = "", server: str = "") -> Profile:
    """Read the profile: the file named, or PRIVYSEAL_PROFILE, or the user's; then variables.

    PRIVYSEAL_SERVER, PRIVYSEAL_CA, PRIVYSEAL_TOKEN, PRIVYSEAL_TOKEN_FILE,
    PRIVYSEAL_CERTIFICATE, PRIVYSEAL_KEY, PRIVYSEAL_STORAGE, PRIVYSEAL_PUBLIC_URL and
    PRIVYSEAL_AUDIENCE win over the file.

    Raises:
        ClientError: If it cannot be read or says too little.
    """
    env = os.environ
    named = path or env.get("PRIVYSEAL_PROFILE", "")
    home = Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "privyseal/profile.toml"
    file = Path(named) if named else home
    values = _read_profile(file) if named or file.exists() else {}

    def where(name: str, variable: str) -> Path | None:
        if variable in env:
            return Path(env[variable])
        return file.parent / values[name] if name in values else None

    token = env.get("PRIVYSEAL_TOKEN", "").strip()
    token_file = where("token_file", "PRIVYSEAL_TOKEN_FILE")
    if not token and token_file is not None:
        token = credential_files.read(token_file, "token").decode("utf-8", "replace").strip()
    address = server or env.get("PRIVYSEAL_SERVER") or values.get("server", "")
    if not address:
        raise ClientError(
            f"no server is set and there is no profile {home}; use --profile, or set "
            "PRIVYSEAL_SERVER and PRIVYSEAL_CA, and PRIVYSEAL_TOKEN where CI does not vouch for "
            "its jobs"
        )
    _check_address(address)
    if "PRIVYSEAL_STORAGE" in env:
        values.pop("public_url", None)
    return Profile(
        server=address,
        ca=where("ca", "PRIVYSEAL_CA"),
        token=token,
        certificate=None if token else where("certificate", "PRIVYSEAL_CERTIFICATE"),
        key=where("key", "PRIVYSEAL_KEY"),
        storage=env.get("PRIVYSEAL_STORAGE") or values.get("storage", ""),
        public_url=env.get("PRIVYSEAL_PUBLIC_URL") or values.get("public_url", ""),
        # The server's own address, never one that the server names: it could name another's.
        audience=env.get("PRIVYSEAL_AUDIENCE") or values.get("audience") or f"https://{address}",
    )


def _read_profile(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ClientError(f"cannot read the profile {file}: {error}") from None
    known = {
        *("server", "ca", "token_file", "certificate", "key", "storage", "public_url"),
        "audience",
    }
    if unknown := set(values) - known:
        raise ClientError(f"profile {file} has unknown settings: {', '.join(sorted(unknown))}")
    if values.get("storage") and "://" not in values["storage"]:
        values["storage"] = str(file.parent / values["storage"])
    return values


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ClientError(
            f"the server must be HOST:PORT, such as privyseal.example:8443: {address}"
        )


def _quiet(_: str) -> None:
    pass


_SERVING = b"\x08\x01"
"""HealthCheckResponse with status SERVING."""


class Connection:
    """Stubs of every service, and errors as `ClientError`.

    Without a token or a certificate, the job's own CI system vouches for it: its identity
    token is exchanged at the first call, for a session on the app of that call.

    Args:
        profile: Where, and as whom.
        say: Told in words which identity is used.
    """

    def __init__(self, profile: Profile, say: Callable[[str], None] = _quiet) -> None:
        self._profile = profile
        self._say = say
        self._session_app = ""
        ca = credential_files.authorities(profile.ca) if profile.ca else None
        pair: tuple[bytes | None, bytes | None] = (None, None)
        if profile.certificate is not None:
            pair = credential_files.pair(profile.certificate, profile.key)
        credentials = grpc.ssl_channel_credentials(ca, *pair)
        options = [("grpc.primary_user_agent", f"privyseal/{__version__}")]
        self._channel = grpc.secure_channel(profile.server, credentials, options)
        token = credential_files.checked_token(profile.token)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.approvals = approval_service_pb2_grpc.ApprovalServiceStub(self._channel)
        self.backups = backup_service_pb2_grpc.BackupServiceStub(self._channel)
        self.native = native_service_pb2_grpc.NativeServiceStub(self._channel)
        self.rotations = rotation_service_pb2_grpc.RotationServiceStub(self._channel)
        self.policies = policy_service_pb2_grpc.PolicyServiceStub(self._channel)
        self.access = access_service_pb2_grpc.AccessServiceStub(self._channel)
        self.apps = app_service_pb2_grpc.AppServiceStub(self._channel)
        self.keys = key_service_pb2_grpc.KeyServiceStub(self._channel)
        self.log = log_service_pb2_grpc.LogServiceStub(self._channel)
        self.releases = release_service_pb2_grpc.ReleaseServiceStub(self._channel)
        self.signing = signing_service_pb2_grpc.SigningServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def serves(self) -> bool:
        """Say whether the daemon can sign now, by the gRPC health protocol (grpc.health.v1).

        Raises:
            ClientError: If there is no answer.
        """
        # One message of one field: a library for it would be one more to install in CI.
        check: Any = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=lambda _: b"",
            response_deserializer=lambda answer: answer == _SERVING,
        )
        return bool(self._try(check, None))

    def call(self, method: Any, request: Any) -> Any:
        """Call a method and return its response.

        A mutation gets a request id, and is tried again under the same id when the daemon
        says that it may succeed later.

        Raises:
            ClientError: With the daemon's reason; UnreachableError if there is no answer.
        """
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request.request_id = str(uuid.uuid4())
        self.identify_for(request)
        return self._try(method, request)

    def identify_for(self, request: Any) -> None:
        """Have CI vouch for the job, where nothing else does, before a request about an app.

        Raises:
            ClientError: As `identify`.
        """
        if self._profile.anonymous and (app := _app_of(request)):
            signs = "manifest_sha256" in request.DESCRIPTOR.fields_by_name
            self.identify(app, content_of(request) if signs else b"")

    def receive(self, method: Any, request: Any, seconds: float) -> Iterator[Any]:
        """Call a method that answers with a stream, and yield what comes; no second try.

        Raises:
            ClientError: With the daemon's reason; UnreachableError if there is no answer.
        """
        request.request_id = str(uuid.uuid4())
        try:
            yield from method(request, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise explained(error, self._profile) from None

    def send(self, method: Any, request: Any, messages: Iterator[Any], seconds: float) -> Any:
        """Call a method that takes a stream and return its response; no second try.

        Args:
            method: The method.
            request: What is asked for, which messages are made of; gets a request id.
            messages: The stream.
            seconds: How long it may take.

        Raises:
            ClientError: With the daemon's reason; UnreachableError if there is no answer.
        """
        request.request_id = str(uuid.uuid4())
        self.identify_for(request)
        try:
            return method(messages, timeout=seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            raise explained(error, self._profile) from None

    def identify(self, app: str, digest: bytes = b"") -> None:
        """Exchange the job's identity token for a session, unless there is one.

        Args:
            app: apps/{app}: what the session is for.
            digest: What it may sign, see `content_sha256`; nothing if empty.

        Raises:
            ClientError: If nobody vouches for this job, or the daemon refuses.
        """
        if app == self._session_app:
            return
        from privyseal import identity

        source = identity.find()
        if source is None:
            if hint := identity.hint():
                raise ClientError(f"no credential: {hint}")
            return  # the daemon says so itself, if it can be reached
        exchange = access_service_pb2.ExchangeTokenRequest(
            parent=app,
            id_token=source.fetch(self._profile.audience),
            content_sha256s=[digest] if digest else [],
        )
        made = self._try(self.access.ExchangeToken, exchange)
        self._session_app = app
        self._metadata = (("authorization", f"Bearer {made.session}"),)
        name = made.attributes.get("repository") or made.attributes.get("subject", "")
        self._say(f"identity: {source.name}, {name}, as {made.principal}")

    def _try(self, method: Any, request: Any) -> Any:
        for attempt in range(_TRIES):
            try:
                return method(
                    request, timeout=TIMEOUT, metadata=self._metadata, wait_for_ready=False
                )
            except grpc.RpcError as error:
                failure = explained(error, self._profile)
                if attempt == _TRIES - 1 or not retryable(error):
                    raise failure from None
                time.sleep(_PAUSES[attempt])
        raise AssertionError


def content_of(request: Any) -> bytes:
    """Return the digest of the content of a SignReleaseRequest, 32 bytes."""
    return content_sha256(
        bundle_sha256=request.bundle_sha256,
        bundle_length=request.bundle_length,
        manifest_sha256=request.manifest_sha256,
        bundle_blake2b=request.bundle_blake2b,
        codepush_sha256=request.codepush_sha256,
        expo=expo_from_message(request.expo) if request.HasField("expo") else None,
    )


def _app_of(request: Any) -> str:
    """Return apps/{app} if a request is about one app."""
    for field in ("parent", "name", "release", "resource"):
        value = getattr(request, field, "")
        if value.startswith("apps/") and not value.startswith("apps/-"):
            return "/".join(value.split("/", 2)[:2])
    return ""
