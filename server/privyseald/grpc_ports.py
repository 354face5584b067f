"""The two ports for gRPC: callers with tokens, and callers with client certificates."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from privyseald.adapters.peers import CertificatePeers
from privyseald.adapters.server_tls import ServerTls
from privyseald.config import Settings

MAX_MESSAGE = 1 << 20
SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.max_metadata_size", 16384),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    # A connection that says nothing is looked after, and none lives for ever.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
]


async def listen(
    settings: Settings, peers: CertificatePeers, add: Callable[[grpc.aio.Server], None]
) -> list[grpc.aio.Server]:
    """Start a server on each port.

    Args:
        settings: Where they are, and where the certificates are.
        peers: Knows the CAs of client certificates.
        add: Adds the services to a server.

    Raises:
        OSError: If a port is taken.
    """
    options = [*SERVER_OPTIONS, ("grpc.max_allowed_incoming_connections", settings.connections)]
    tls, servers = settings.data / "tls", []
    for address, credentials in (
        (settings.listen_tokens, ServerTls(tls, peers, roots=False).credentials()),
        (settings.listen_certificates, ServerTls(tls, peers, roots=True).credentials()),
    ):
        server = grpc.aio.server(options=options)
        add(server)
        try:
            server.add_secure_port(address, credentials)
        except RuntimeError:
            raise OSError(f"cannot listen on {address}; is another daemon running?") from None
        await server.start()
        servers.append(server)
    return servers
