"""The running daemon: how it starts, what it does unasked, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from prometheus_client import start_http_server

from privyseald.adapters.sql_engine import migrate
from privyseald.composition import Adapters, Services, servicers_of
from privyseald.config import LOSS, Settings
from privyseald.gateway.app import create_gateway
from privyseald.gateway.artifacts import Cache
from privyseald.gateway.fetch import Sources
from privyseald.gateway.server import GatewayServer
from privyseald.grpc_ports import listen
from privyseald.model.errors import Unavailable
from privyseald.ports import Request, Transaction
from privyseald.rpc.registration import add_services
from privyseald.rpc.sealed import Sealed

_HEALTH_SECONDS, _DUTY_SECONDS = 0.25, 2.0
GC_THRESHOLD = (20_000, 20, 20)


class Daemon:
    """A running daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapters = Adapters(settings)
        self._services = Services(settings, self._adapters)
        self._servers: list[grpc.aio.Server] = []
        self._gateway: GatewayServer | None = None
        self._health = HealthServicer()
        self._watches: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start everything; when this returns, it is serving.

        Raises:
            OSError: If an address cannot be bound.
            Unavailable: If the keyholders do not start.
        """
        settings, adapters, services = self._settings, self._adapters, self._services
        await self._open()
        await adapters.keyholder.start()
        import_note = await self._start_log()
        head = (await adapters.store.read(lambda view: view.log.head())).note
        await asyncio.to_thread(migrate, settings.database_url, lambda _: head, settings.log_origin)
        await adapters.store.check()
        await services.sweeper.begin()
        await self._record_loss()
        # Before anybody can ask: a part that is not known yet would be one that is not there.
        await self._tell_health()
        servicers = servicers_of(settings, adapters, services, import_note)
        self._servers = await listen(
            settings, adapters.peers, lambda server: add_services(server, servicers, self._health)
        )
        gateway = create_gateway(
            adapters.store,
            verifier=adapters.verifier,
            kept=adapters.kept,
            counter=services.check_ins,
            channel_discovery=settings.channel_discovery,
            public_url=settings.device_url,
            cache=Cache(settings.data / "cache", settings.cache_mb << 20),
            sources=Sources(
                f"{settings.device_url}/artifacts/",
                settings.file(settings.artifacts),
                tuple(settings.artifact_sources),
            ),
        )
        self._gateway = GatewayServer(
            gateway,
            settings.gateway,
            settings.gateway_file(settings.gateway_certificate),
            settings.gateway_file(settings.gateway_key),
        )
        await self._gateway.start()
        if settings.metrics:
            host, _, port = settings.metrics.rpartition(":")
            start_http_server(int(port), host)
        await self._tell_health()
        watches = (self._watch_health(), self._do_what_is_due())
        self._watches = [asyncio.create_task(watch) for watch in watches]

    async def _start_log(self) -> str:
        """Start the log's keyholder; return the import key's note. Raises Unavailable."""
        try:
            await asyncio.to_thread(self._adapters.log_keyholder.start)
            return await asyncio.to_thread(self._adapters.notes.import_key)
        except (OSError, ValueError):
            raise Unavailable("the log's keyholder could not start", reason="LOG_DOWN") from None

    async def _record_loss(self) -> None:
        """Tell the log, before anything else, of entries that an operator gave up."""
        file = self._settings.data / LOSS
        if not file.exists():
            return
        lost = json.loads(file.read_text())
        once = f"{lost['lostEntries']} {lost['lostRoot']} {lost['entries']}"
        # Once, however often the daemon is started before it can go on.
        request = Request("operator", once, hashlib.sha256(once.encode()).digest(), bytes)

        def act(tx: Transaction) -> Callable[[object], bytes]:
            tx.record({"act": "log.loss-accepted", "principal": "operator", **lost})
            return lambda _: b""

        await self._adapters.store.commit(act, request)
        file.unlink()

    async def _open(self) -> None:
        """Wait until the key-encryption key is open; meanwhile say so on every port."""
        loop, opened = asyncio.get_running_loop(), asyncio.Event()
        self._adapters.kek.on_open = lambda: _tell(loop, opened)
        await asyncio.to_thread(self._adapters.kek.start)
        if self._adapters.kek.opened:
            return
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        servers = await listen(self._settings, self._adapters.peers, self._add_sealed)
        structlog.get_logger("privyseald").warning(
            "sealed", waits_for=self._adapters.kek.told.removeprefix("sealed").strip()
        )
        await opened.wait()
        await asyncio.gather(*(server.stop(0) for server in servers))

    def _add_sealed(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers((Sealed(),))

    def abandon(self) -> None:
        """End what waits to be opened; nothing was answered yet."""
        self._adapters.kek.stop()

    async def stop(self) -> None:
        """Finish what was accepted and stop."""
        for watch in self._watches:
            watch.cancel()
        # What a duty has begun ends before what it needs is stopped.
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(server.stop(5) for server in self._servers))
        if self._gateway is not None:
            await self._gateway.stop()
        await self._attempt("write counts of check-ins", self._services.check_ins.flush)
        await self._adapters.store.close()
        await self._adapters.keyholder.stop()
        await asyncio.to_thread(self._adapters.log_keyholder.stop)
        self._adapters.kek.stop()

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            await self._tell_health()

    async def _do_what_is_due(self) -> None:
        # Beside the health: making keys and signing again can take its time.
        duties = {
            "write counts of refusals": self._services.refusals.flush,
            "write counts of check-ins": self._services.check_ins.flush,
            "see whether the store can be written": self._adapters.store.probe,
            "sweep": self._services.sweeper.sweep,
            "rotate leaves": self._services.leaves.rotate,
        }
        while True:
            await asyncio.sleep(_DUTY_SECONDS)
            for name, duty in duties.items():
                await self._attempt(name, duty)

    async def _attempt(self, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Do a duty; whatever goes wrong with it keeps nothing else from being done."""
        try:
            await duty()
        except Exception as error:  # noqa: BLE001 - as said
            self._adapters.alarm.duty_failed(name, error)

    async def _tell_health(self) -> None:
        """Say honestly what can sign: the whole, and each place where keys are."""
        serving = health_pb2.HealthCheckResponse.SERVING
        down = health_pb2.HealthCheckResponse.NOT_SERVING
        adapters = self._adapters
        software = serving if adapters.keyholder.serving else down
        await self._health.set("", down if adapters.store.broken else software)
        await self._health.set("privyseal.keys.software", software)
        await self._health.set("privyseal.log", down if adapters.store.broken else serving)
        if self._settings.hsm is not None:
            token = serving if adapters.keyholder.token_serving else down
            await self._health.set("privyseal.keys.token", token)
        # Sealed again, what runs signs on, and what dies is not replaced.
        await self._health.set("privyseal.kek", serving if adapters.kek.opened else down)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    # The loop may have ended when the custodian's thread hears of something.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


async def serve(settings: Settings) -> None:
    """Run a daemon until SIGTERM or SIGINT."""
    os.umask(0o077)
    log = structlog.get_logger("privyseald")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    daemon = Daemon(settings)
    starting = asyncio.create_task(daemon.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        # Sealed, or the start takes long.
        starting.cancel()
        daemon.abandon()
        return
    await starting
    # What was made so far lives as long as the process: the collector need not look at it.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    log.info(
        "serving",
        tokens=settings.listen_tokens,
        certificates=settings.listen_certificates,
        gateway=settings.device_url,
    )
    await stop.wait()
    log.info("stopping")
    await daemon.stop()
