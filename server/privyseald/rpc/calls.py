"""What every call goes through: authentication, error mapping, idempotency."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from privyseald.model import fields
from privyseald.model.errors import Unauthenticated
from privyseald.model.policy import Caller
from privyseald.ports import Request
from privyseald.rpc.status import abort
from privyseald.services.access import Access

_Req = TypeVar("_Req", bound=Message)
_Res = TypeVar("_Res")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Method = Callable[[Any, _Req, Caller], Awaitable[_Res]]


def call(method: Method[_Req, _Res]) -> Callable[[Any, _Req, Context], Awaitable[_Res]]:
    """Make a servicer's method out of one that takes the caller; errors become statuses."""

    @functools.wraps(method)
    async def handler(self: Any, request: _Req, context: Context) -> _Res:
        try:
            return await method(self, request, await authenticate(self.access, context))
        except Exception as error:  # noqa: BLE001 - every error becomes a status
            await abort(context, error)

    return handler


async def authenticate(access: Access, context: Context) -> Caller:
    """Return the caller by its client certificate or its token. Raises Unauthenticated."""
    for common_name in context.auth_context().get("x509_common_name", ()):
        return await access.by_certificate(common_name.decode("utf-8", "replace"))
    for name, value in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(value, str):
            kind, _, text = value.partition(" ")
            if kind.lower() == "bearer":
                return await access.by_token(text)
    raise Unauthenticated(
        "no credential; set PRIVYSEAL_TOKEN or use a client certificate", reason="NO_CREDENTIAL"
    )


def idempotent(caller: Caller, request: Message, encode: Callable[[Any], Message]) -> Request:
    """Return what makes a mutation idempotent. Raises InvalidArgument for its request_id."""
    request_id = fields.request_id(request.request_id)  # type: ignore[attr-defined]
    body = type(request).__name__.encode() + b"\n" + request.SerializeToString(deterministic=True)
    return Request(
        caller.principal,
        request_id,
        hashlib.sha256(body).digest(),
        lambda value: encode(value).SerializeToString(),
    )


def page(size: int, default: int) -> int:
    """Return a page size within bounds."""
    return min(size, 1000) if size > 0 else default
