"""Puts servicers on a gRPC server, with health and reflection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from privyseal.v1 import access_service_pb2_grpc as access_grpc
from privyseal.v1 import app_service_pb2_grpc as app_grpc
from privyseal.v1 import approval_service_pb2_grpc as approval_grpc
from privyseal.v1 import backup_service_pb2_grpc as backup_grpc
from privyseal.v1 import key_service_pb2_grpc as key_grpc
from privyseal.v1 import log_service_pb2_grpc as log_grpc
from privyseal.v1 import native_service_pb2_grpc as native_grpc
from privyseal.v1 import policy_service_pb2_grpc as policy_grpc
from privyseal.v1 import release_service_pb2_grpc as release_grpc
from privyseal.v1 import rotation_service_pb2_grpc as rotation_grpc
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc

from privyseald.rpc.access_servicer import AccessServicer
from privyseald.rpc.app_servicer import AppServicer
from privyseald.rpc.approval_servicer import ApprovalServicer
from privyseald.rpc.backup_servicer import BackupServicer
from privyseald.rpc.key_servicer import KeyServicer
from privyseald.rpc.log_servicer import LogServicer
from privyseald.rpc.native_servicer import NativeServicer
from privyseald.rpc.policy_servicer import PolicyServicer
from privyseald.rpc.release_servicer import ReleaseServicer
from privyseald.rpc.rotation_servicer import RotationServicer
from privyseald.rpc.signing_servicer import SigningServicer

SERVICERS: dict[type, Callable[[Any, grpc.aio.Server], None]] = {
    AccessServicer: access_grpc.add_AccessServiceServicer_to_server,
    AppServicer: app_grpc.add_AppServiceServicer_to_server,
    ApprovalServicer: approval_grpc.add_ApprovalServiceServicer_to_server,
    BackupServicer: backup_grpc.add_BackupServiceServicer_to_server,
    KeyServicer: key_grpc.add_KeyServiceServicer_to_server,
    LogServicer: log_grpc.add_LogServiceServicer_to_server,
    NativeServicer: native_grpc.add_NativeServiceServicer_to_server,
    PolicyServicer: policy_grpc.add_PolicyServiceServicer_to_server,
    ReleaseServicer: release_grpc.add_ReleaseServiceServicer_to_server,
    RotationServicer: rotation_grpc.add_RotationServiceServicer_to_server,
    SigningServicer: signing_grpc.add_SigningServiceServicer_to_server,
}


def add_services(
    server: grpc.aio.Server,
    servicers: Iterable[object],
    health: health_pb2_grpc.HealthServicer,
) -> None:
    """Put servicers on a server.

    Args:
        server: The server, before it is started.
        servicers: One of each service that it offers.
        health: Tells whether they serve.
    """
    names = [reflection.SERVICE_NAME]
    for servicer in servicers:
        kind = type(servicer)
        SERVICERS[kind](servicer, server)
        names.append(f"privyseal.v1.{kind.__name__.removesuffix('Servicer')}Service")
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(names, server)
