"""Puts the running daemon together; with `setup`, what names concrete adapters."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from privyseal.verify.keys import load_public_key, public_key_sha256
from prometheus_client import start_http_server

from privyseald.adapters import policies_cedar
from privyseald.adapters.alarm import LoudAlarm
from privyseald.adapters.backup_archive import BackupArchiver, Quorum
from privyseald.adapters.checkpoint_file import CheckpointFile
from privyseald.adapters.log_notes import LogNotes
from privyseald.adapters.peers import CaFile, CertificatePeers
from privyseald.adapters.policies_trial import try_out
from privyseald.adapters.spool import FileSpool
from privyseald.adapters.sql_engine import migrate
from privyseald.adapters.store_sql import SqlStore
from privyseald.config import Settings
from privyseald.gateway.app import create_gateway
from privyseald.gateway.artifacts import Cache
from privyseald.gateway.check_ins import CheckInCounter
from privyseald.gateway.fetch import Sources
from privyseald.grpc_ports import listen
from privyseald.keyholder.log_keyholder import LogKeyholder
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.model.errors import Unavailable
from privyseald.model.schemes import WrappedKey
from privyseald.ports import Transaction
from privyseald.rpc.access_servicer import AccessServicer
from privyseald.rpc.app_servicer import AppServicer
from privyseald.rpc.approval_servicer import ApprovalServicer
from privyseald.rpc.backup_servicer import BackupServicer
from privyseald.rpc.calls import Gate
from privyseald.rpc.key_servicer import KeyServicer
from privyseald.rpc.log_servicer import LogServicer
from privyseald.rpc.policy_servicer import PolicyServicer
from privyseald.rpc.registration import add_services
from privyseald.rpc.release_servicer import ReleaseServicer
from privyseald.rpc.rotation_servicer import NativeServicer, RotationServicer
from privyseald.rpc.sealed import Sealed
from privyseald.rpc.signing_servicer import SigningServicer
from privyseald.services.access import Access
from privyseald.services.archives import Archives
from privyseald.services.audit import Audit
from privyseald.services.backups import Backups
from privyseald.services.ceremonies import Ceremonies
from privyseald.services.certificates import CertifiedKeys
from privyseald.services.consent import Consent
from privyseald.services.credentials import Credentials
from privyseald.services.field_status import FieldStatus
from privyseald.services.grants import Grants
from privyseald.services.keys import Keys
from privyseald.services.leaves import Leaves
from privyseald.services.native import NativeBuilds
from privyseald.services.policies import TeamPolicies
from privyseald.services.refusals import Refusals
from privyseald.services.releases import Releases
from privyseald.services.renewal import Renewal
from privyseald.services.rotations import Rotations
from privyseald.services.signing import Signing
from privyseald.services.sweeping import Sweeper
from privyseald.services.versions import Versions
from privyseald.services.workloads import Workloads
from privyseald.setup import clock, log_key_identity, log_verifier
from privyseald.wiring import GatewayServer, custody, tokens

LOSS = "accepted-loss.json"
"""The file by which `privyseald accept-loss` tells the daemon what to write into the log."""
RESTORED = "restored"
"""The mark of a data directory that `privyseald restore` made."""
_HEALTH_SECONDS, _DUTY_SECONDS = 0.25, 2.0
GC_THRESHOLD = (20_000, 20, 20)


class Daemon:
    """A running daemon."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        data = settings.data
        self.kek = custody(settings)
        spki = (data / "log.spki").read_bytes()
        digest = public_key_sha256(load_public_key(spki))
        log_key = WrappedKey(log_key_identity(digest), (data / "log.key").read_bytes())
        self.log_keyholder = LogKeyholder(self.kek, log_key)
        self.verifier = log_verifier(settings, spki)
        self._notes = LogNotes(self.log_keyholder, self.verifier)
        self.keyholder = KeyholderPool(
            self.kek, settings.keyholder_count, token=settings.hsm is not None
        )
        self._kept = CheckpointFile(
            settings.file(settings.last_checkpoint), self.verifier, data / RESTORED
        )
        self.store = SqlStore(
            settings.database_url,
            clock=clock,
            sign_checkpoint=self._notes.checkpoint,
            origin=settings.log_origin,
            kept=self._kept,
        )
        # One of each, whatever the number of ports: they keep caches and counters.
        store, keyholder, alarm = self.store, self.keyholder, LoudAlarm()
        self._alarm = alarm
        policies = policies_cedar.CedarPolicies(settings.approvals)
        self._refusals = Refusals(store, clock)
        self._access = access = Access(store, policies, clock, self._refusals)
        self._policies = TeamPolicies(
            store,
            access,
            policies,
            clock,
            try_out=functools.partial(try_out, approvals=settings.approvals),
        )
        self._grants = Grants(store, access, clock)
        self._credentials = Credentials(store, access, clock)
        self._workloads = Workloads(store, access, tokens(settings), clock, self._refusals)
        self._consent = Consent(store, access, clock, needed=settings.approvals, alarm=alarm)
        own = CaFile(data / "tls/ca.pem")
        domains = {d.name: CaFile(settings.file(d.bundle)) for d in settings.trust_domains}
        self._peers = CertificatePeers(own, domains, clock)
        self._gate = Gate(
            access,
            self._peers,
            principal_rate=settings.principal_rate,
            app_rate=settings.app_rate,
        )
        self._renewal = Renewal(store, keyholder)
        makes = CertifiedKeys(store, keyholder, clock, alarm)
        self._keys = Keys(store, access, makes, clock)
        self._versions = Versions(store, access, makes, clock)
        self._rotations = Rotations(
            *(store, access, keyholder, clock), versions=self._versions, renewal=self._renewal
        )
        self._field = FieldStatus(store, access, clock)
        self._builds = NativeBuilds(store, access, clock, self._renewal.cover)
        self._sweeper = Sweeper(store, keyholder, clock, alarm)
        self._leaves = Leaves(
            *(store, keyholder, clock), makes=makes, renewal=self._renewal, alarm=alarm
        )
        self._check_ins = CheckInCounter(store, clock)
        self._signing = Signing(
            *(store, access, keyholder, clock),
            origin=settings.log_origin,
            gateway=settings.device_url,
        )
        self._releases = Releases(store, access, clock, self.verifier, cover=self._renewal.cover)
        self._audit = Audit(store, access)
        chosen = settings.backup
        archiver = BackupArchiver(
            *(data, settings.database_url, settings.log_origin),
            Quorum(chosen.keys, chosen.threshold) if chosen else None,
            seal=self.kek.seal_backup,
            sign=self._notes.backup,
            clock=clock,
        )
        self._backups = Backups(store, access, archiver)
        self._import_note = ""
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
        settings = self._settings
        await self._open()
        await self.keyholder.start()
        try:
            await asyncio.to_thread(self.log_keyholder.start)
            self._import_note = await asyncio.to_thread(self._notes.import_key)
        except (OSError, ValueError):
            raise Unavailable("the log's keyholder could not start", reason="LOG_DOWN") from None
        head = (await self.store.read(lambda view: view.log.head())).note
        await asyncio.to_thread(migrate, settings.database_url, lambda _: head, settings.log_origin)
        await self.store.check()
        await self._sweeper.begin()
        await self._record_loss()
        # Before anybody can ask: a part that is not known yet would be one that is not there.
        await self._tell_health()
        self._servers = await listen(self._settings, self._peers, self._add_services)
        gateway = create_gateway(
            self.store,
            verifier=self.verifier,
            kept=self._kept,
            counter=self._check_ins,
            public_url=settings.device_url,
            cache=Cache(settings.data / "cache", settings.cache_mb << 20),
            sources=Sources(
                f"{settings.device_url}/artifacts/",
                settings.file(settings.artifacts),
                tuple(settings.artifact_sources),
            ),
        )
        self._gateway = GatewayServer(settings, gateway)
        await self._gateway.start()
        if settings.metrics:
            host, _, port = settings.metrics.rpartition(":")
            start_http_server(int(port), host)
        await self._tell_health()
        watches = (self._watch_health(), self._do_what_is_due())
        self._watches = [asyncio.create_task(watch) for watch in watches]

    async def _record_loss(self) -> None:
        """Tell the log, before anything else, of entries that an operator gave up."""
        file = self._settings.data / LOSS
        if not file.exists():
            return
        lost = json.loads(file.read_text())

        def act(tx: Transaction) -> Callable[[object], bytes]:
            tx.record({"act": "log.loss-accepted", "principal": "operator", **lost})
            return lambda _: b""

        await self.store.commit(act)
        file.unlink()

    async def _open(self) -> None:
        """Wait until the key-encryption key is open; meanwhile say so on every port."""
        loop, opened = asyncio.get_running_loop(), asyncio.Event()
        self.kek.on_open = lambda: _tell(loop, opened)
        await asyncio.to_thread(self.kek.start)
        if self.kek.opened:
            return
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        servers = await listen(self._settings, self._peers, self._add_sealed)
        structlog.get_logger("privyseald").warning("sealed; run `privyseald unseal`")
        await opened.wait()
        await asyncio.gather(*(server.stop(0) for server in servers))

    def _add_sealed(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        server.add_generic_rpc_handlers((Sealed(),))

    async def stop(self) -> None:
        """Finish what was accepted and stop."""
        for watch in self._watches:
            watch.cancel()
        # What a duty has begun ends before what it needs is stopped.
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(server.stop(5) for server in self._servers))
        if self._gateway is not None:
            await self._gateway.stop()
        await self._attempt("write counts of check-ins", self._check_ins.flush)
        await self.store.close()
        await self.keyholder.stop()
        await asyncio.to_thread(self.log_keyholder.stop)
        self.kek.stop()

    async def _watch_health(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            await self._tell_health()

    async def _do_what_is_due(self) -> None:
        # Beside the health: making keys and signing again can take its time.
        duties = {
            "write counts of refusals": self._refusals.flush,
            "write counts of check-ins": self._check_ins.flush,
            "sweep": self._sweeper.sweep,
            "rotate leaves": self._leaves.rotate,
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
            self._alarm.duty_failed(name, error)

    async def _tell_health(self) -> None:
        """Say honestly what can sign: the whole, and each place where keys are."""
        serving = health_pb2.HealthCheckResponse.SERVING
        down = health_pb2.HealthCheckResponse.NOT_SERVING
        software = serving if self.keyholder.serving else down
        await self._health.set("", down if self.store.broken else software)
        await self._health.set("privyseal.keys.software", software)
        await self._health.set("privyseal.log", down if self.store.broken else serving)
        if self._settings.hsm is not None:
            token = serving if self.keyholder.token_serving else down
            await self._health.set("privyseal.keys.token", token)
        # Sealed again, what runs signs on, and what dies is not replaced.
        await self._health.set("privyseal.kek", serving if self.kek.opened else down)

    def _add_services(self, server: grpc.aio.Server) -> None:
        gate, schema = self._gate, policies_cedar.schema_text()
        builtin = policies_cedar.builtin_text(self._settings.approvals)
        servicers = (
            AppServicer(gate, self._keys),
            KeyServicer(
                gate,
                self._keys,
                self._versions,
                Ceremonies(self.store, self._access),
                import_note=self._import_note,
            ),
            SigningServicer(
                gate,
                self._signing,
                Archives(
                    *(self.store, self._access, self.keyholder), FileSpool(self._settings.data)
                ),
            ),
            ReleaseServicer(gate, self._releases),
            LogServicer(gate, self._audit, self.verifier.vkey()),
            AccessServicer(gate, self._credentials, self._grants, self._workloads),
            ApprovalServicer(gate, self._consent, clock),
            PolicyServicer(gate, self._policies, schema, builtin),
            RotationServicer(gate, self._rotations, self._field),
            NativeServicer(gate, self._builds),
            BackupServicer(gate, self._backups),
        )
        add_services(server, servicers, self._health)


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
        # Sealed, or the start takes long: nothing was answered yet.
        starting.cancel()
        daemon.kek.stop()
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
