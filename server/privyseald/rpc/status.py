"""Domain errors as gRPC statuses with rich details: one table."""

from __future__ import annotations

import secrets
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from privyseald.model import errors
from privyseald.rpc.metrics import ERRORS

DOMAIN = "privyseal"
CODES: dict[type[errors.DomainError], int] = {
    errors.InvalidArgument: code_pb2.INVALID_ARGUMENT,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.AlreadyExists: code_pb2.ALREADY_EXISTS,
    errors.FailedPrecondition: code_pb2.FAILED_PRECONDITION,
    errors.ResourceExhausted: code_pb2.RESOURCE_EXHAUSTED,
    errors.OutOfRange: code_pb2.OUT_OF_RANGE,
    errors.Unavailable: code_pb2.UNAVAILABLE,
}
_log = structlog.get_logger("rpc")


def to_status(error: Exception) -> status_pb2.Status:
    """Return the status for an error; of an unknown one the caller sees an id only."""
    if not isinstance(error, errors.DomainError):
        error_id = secrets.token_hex(6)
        _log.error("internal error", error_id=error_id, error=errors.explain(error))
        return status_pb2.Status(
            code=code_pb2.INTERNAL, message=f"internal error {error_id}; the daemon's log has it"
        )
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.FailedPrecondition):
        failed = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, description=error.message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[failed]))
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    code = next(c for kind, c in CODES.items() if isinstance(error, kind))
    return status_pb2.Status(code=code, message=error.message, details=packed)


def told(error: Exception) -> status_pb2.Status:
    """Return the status for an error that a caller is told of; it is counted."""
    ERRORS.labels(getattr(error, "reason", "INTERNAL")).inc()
    return to_status(error)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> NoReturn:
    """End a call with the status for an error."""
    status = rpc_status.to_status(told(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
