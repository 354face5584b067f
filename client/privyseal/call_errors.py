"""What goes wrong with a call to the daemon, in words that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2

from privyseal import identity
from privyseal.errors import ClientError, UnreachableError

if TYPE_CHECKING:
    from privyseal.connection import Profile

_Detail = TypeVar("_Detail", error_details_pb2.ErrorInfo, error_details_pb2.BadRequest)
_OPTIONS = {
    "parent": "--app-id",
    "app_id": "--app-id",
    "native_ranges": "--android-… and --ios-…",
    "source_commit": "--commit-sha",
    "commit_sha": "--commit-sha",
    "release": "--build-id",
    "version": "--version",
    "artifact_url": "--artifact-url",
    "artifact_type": "--artifact-type",
    "channel_id": "--name",
    "display_name": "--name",
    "resource": "--app-id",
    "compromise_time": "--since",
    "conditions": "--condition",
    "ttl_seconds": "--hours or --minutes",
}
"""How the fields that errors name are called on the command line."""


def explained(error: grpc.RpcError, profile: Profile) -> ClientError:
    """Return what an error of a call means, in the user's words."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and reason_of(error) == "":
        return UnreachableError(_unreachable(details, profile))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(f"{profile.server} did not answer in time")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return ClientError("the request is larger than the 1 MiB that the server takes")
    if reason_of(error) == "NO_CREDENTIAL" and profile.certificate is not None:
        return ClientError(f"{profile.server} takes tokens; client certificates have another port")
    return ClientError(_refused(error, details, profile), reason=reason_of(error))


def _refused(error: grpc.RpcError, details: str, profile: Profile) -> str:
    if reason_of(error) == "NO_CREDENTIAL" and profile.anonymous and identity.find():
        return (
            "what CI says of this job counts for one app, and this names none: add --app-id where "
            "the command takes it, or use an API token or a client certificate"
        )
    wrong = _detail(error, error_details_pb2.BadRequest())
    for violation in wrong.field_violations if wrong is not None else ():
        option = _OPTIONS.get(violation.field, violation.field)
        return f"{option}: {violation.description.removeprefix(f'{violation.field}: ')}"
    return details or error.code().name.lower().replace("_", " ")


def _unreachable(details: str, profile: Profile) -> str:
    server = profile.server
    if "certificate has expired" in details or "not yet valid" in details:
        return f"the certificate of {server} has expired or is not valid yet; renew it there"
    if "CERTIFICATE_VERIFY_FAILED" in details or "certificate verify failed" in details:
        if profile.ca is None:
            return f"no public CA vouches for {server}; set PRIVYSEAL_CA to its CA's file"
        return f"{server} has a certificate that the CA in use did not issue; check PRIVYSEAL_CA"
    if "SSL" in details or "handshake" in details.lower() or "Socket closed" in details:
        have, wants = ("a token", "client certificates")
        if profile.certificate is not None:
            have, wants = "a client certificate", "tokens"
        return (
            f"TLS with {server} failed: you have {have}, and this may be the port for {wants}; "
            "each has its own, and the CA must be the daemon's; or the clocks of the two differ"
        )
    return f"cannot reach {server}; is the daemon running, and the address right?"


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason that the daemon gives (google.rpc.ErrorInfo), if it gave one."""
    info = _detail(error, error_details_pb2.ErrorInfo())
    return str(info.reason) if info is not None else ""


def _detail(error: grpc.RpcError, wanted: _Detail) -> _Detail | None:
    """Return the detail of one kind that the daemon gives, if it gave one."""
    metadata: Any = error.trailing_metadata() or ()
    for name, value in metadata:
        if name == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(wanted):
                    return wanted
    return None


def retryable(error: grpc.RpcError) -> bool:
    """Say whether the daemon says that the same call may succeed later."""
    again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    return error.code() in again and reason_of(error) != ""
