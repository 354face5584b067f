"""What a sealed daemon answers to every call but those about its health."""

from __future__ import annotations

from typing import Any

import grpc

from privyseald.model.errors import Unavailable
from privyseald.rpc.status import abort


class Sealed(grpc.GenericRpcHandler):
    """Takes every method and refuses it, to be tried again."""

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return what refuses a method."""
        if handler_call_details.method.startswith("/grpc.health."):
            return None
        return grpc.unary_unary_rpc_method_handler(_refuse)


async def _refuse(_: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await abort(
        context,
        Unavailable(
            "the daemon is sealed: its key-encryption key is not open yet, and its log says what "
            "it waits for: officers (`privyseald unseal`), its token, or a service",
            reason="SEALED",
        ),
    )
