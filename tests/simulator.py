"""A daemon's services in one process, on a clock of their own, and devices that verify.

The store, the log, the policies, the services, the keyholder's worker and the gateway's
resolver are the real ones; only processes, sockets and the time are left out. A device is
its embedded public keys and the code that its plugin verifies with.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.statement import NativeRange, Statement
from privyseald.adapters.clock import Steps
from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.adapters.store_sql import SqlStore
from privyseald.gateway.check_ins import CheckInCounter
from privyseald.gateway.follow import Follower
from privyseald.gateway.resolve import NoUpdate, Resolver
from privyseald.model import rotation
from privyseald.model.errors import explain
from privyseald.model.field import NativeBuild
from privyseald.model.native import NativeVersion
from privyseald.model.rotation import RotationKind
from privyseald.model.schemes import Algorithm, KeyPlace, Scheme
from privyseald.ports import Request
from privyseald.services.access import Access
from privyseald.services.certificates import CertifiedKeys
from privyseald.services.channels import Channels
from privyseald.services.field_status import FieldStatus
from privyseald.services.keys import Keys
from privyseald.services.leaves import Leaves
from privyseald.services.native import NativeBuilds
from privyseald.services.refusals import Refusals
from privyseald.services.releases import Artifact, Releases
from privyseald.services.renewal import Renewal
from privyseald.services.rotations import Rotations, Start
from privyseald.services.signing import Signing
from privyseald.services.sweeping import Sweeper
from privyseald.services.versions import Versions

from tests.in_process import (
    ORIGIN,
    VERIFIER,
    Device,
    Forgetful,
    InProcess,
    empty_database,
    sign_checkpoint,
)

APP = "app"
GATEWAY = "https://updates.example"
DAY = 86_400
START = 20_000 * DAY
EXPO = Expo(
    tuple(
        ExpoUpdate(
            *(platform, "1.0.0", f"{platform}.hbc", b"l" * 32),
            (ExpoAsset("assets/0123abcd", "image/png", ".png", b"a" * 32),),
        )
        for platform in ("android", "ios")
    )
)


@dataclass
class World:
    """Everything, with verbs for tests; each runs to its end."""

    folder: Path
    scheme: Scheme = Scheme.CAPAWESOME_V1
    algorithm: Algorithm | None = None
    plugin: str = "capawesome"
    approvals: int = 0
    now: int = START
    clock_leeway: int = 10**9
    devices: dict[str, Device] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.keyholder = InProcess(lambda: self.now)
        self.verifier = VERIFIER
        shutil.copy(empty_database(), self.folder / "world.db")
        self.url = f"sqlite:///{self.folder / 'world.db'}"
        self.open()
        self.key = str(self.scheme)
        self.run(
            self.keys.create_app(
                *(self.olivia, self.request()),
                app=APP,
                display_name="",
                algorithm=None,
                place=KeyPlace(),
            )
        )
        if self.scheme is not Scheme.STATEMENT_V1:
            self.run(
                self.keys.create_key(
                    *(self.olivia, self.request()),
                    app=APP,
                    key_id="",
                    scheme=self.scheme,
                    algorithm=self.algorithm,
                    place=KeyPlace(),
                )
            )
        create = self.channels.create
        self.run(create(self.olivia, self.request(), app=APP, channel="production"))

    def open(self) -> None:
        """Make the services anew, as after a crash: only the database is kept."""
        clock = self.clock
        self.kept = Forgetful()
        self.store = SqlStore(
            self.url,
            clock=clock,
            sign_checkpoint=sign_checkpoint,
            origin=ORIGIN,
            kept=self.kept,
            steps=Steps(self.clock_leeway, lambda: self.now),
        )
        policies = CedarPolicies(self.approvals)
        refusals = Refusals(self.store, clock)
        self.access = Access(self.store, policies, clock, refusals)
        parts = (self.store, self.access, self.keyholder, clock)
        self.renewal = Renewal(self.store, self.keyholder)
        makes = CertifiedKeys(self.store, self.keyholder, clock, self, pauses=(0,))
        self.keys = Keys(self.store, self.access, makes, clock)
        self.versions = Versions(self.store, self.access, makes, clock)
        self.rotations = Rotations(*parts, versions=self.versions, renewal=self.renewal)
        self.field = FieldStatus(self.store, self.access, clock)
        self.builds = NativeBuilds(self.store, self.access, clock, self.renewal.cover)
        self.signing = Signing(*parts, origin=ORIGIN, gateway=GATEWAY)
        self.releases = Releases(
            *(self.store, self.access, clock, self.verifier),
            artifacts=f"{GATEWAY}/artifacts/",
        )
        self.channels = Channels(self.store, self.access, clock, cover=self.renewal.cover)
        self.sweeper = Sweeper(self.store, self.keyholder, clock, self)
        self.alarms: list[str] = []
        self.undone: list[tuple[str, str, str]] = []
        self.leaf_keys = Leaves(
            *(self.store, self.keyholder, clock), makes=makes, renewal=self.renewal, alarm=self
        )
        self.counter = CheckInCounter(self.store, clock)
        follower = Follower(self.store, self.verifier, self.kept)
        self.resolver = Resolver(self.store, self.verifier, follower, self.counter)
        self.olivia, self.oscar = (
            self.run(self.access.by_certificate(f"certificate:{name}", "1f"))
            for name in ("olivia", "oscar")
        )

    def crash(self) -> None:
        """Lose everything but the database."""
        self.run(self.store.close())
        self.open()

    def close(self) -> None:
        self.run(self.store.close())
        self.loop.close()

    def clock(self) -> int:
        return self.now

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def request(self, principal: str = "certificate:olivia") -> Request:
        def encode(value):
            self.answer = value
            return b"x"

        unique = uuid.uuid4()
        return Request(principal, str(unique), unique.bytes, encode)

    def do(self, coroutine):
        """Run a mutation and return what its answer is made of."""
        self.answer = None
        self.run(coroutine)
        return self.answer

    # What people do.

    def view(self, query):
        return self.run(self.store.read(query))

    def key_record(self):
        return self.view(lambda view: view.keys.get(APP, self.key))

    def version(self, number: int):
        return self.key_record().version(number)

    def states(self) -> dict[int, str]:
        return {v.version: str(v.state) for v in self.key_record().versions}

    def standby(self):
        return self.do(
            self.versions.create(
                *(self.olivia, self.request()),
                app=APP,
                key_id=self.key,
                algorithm=None,
                place=KeyPlace(),
            )
        )

    def register(
        self,
        build: str,
        *trusts: int,
        plugin: str = "",
        unknown: bytes = b"",
        shipped: bool = False,
    ):
        """Register a build such as `android-1.2.0-12` that embeds versions of the key."""
        platform, name, code = build.split("-")
        keys = [self.version(number).public_key for number in trusts]
        keys += [unknown] if unknown else []
        made = NativeBuild(
            *(APP, "", platform, name, code, plugin or self.plugin),
            tuple(sorted(hashlib.sha256(k).digest() for k in keys)),
            0,
        )
        answer = self.do(
            self.builds.register(
                *(self.olivia, self.request(), made),
                allow_unknown=bool(unknown),
                already_shipped=shipped,
            )
        )
        self.devices[build] = Device(build, platform, name, code, tuple(keys))
        return answer

    def end(self, build: str, *, force: bool = False):
        return self.do(
            self.builds.end(self.olivia, self.request(), APP, build, reason="test", force=force)
        )

    def publish(
        self,
        *,
        ranges: tuple[NativeRange, ...] = (),
        register: bool = True,
        deploy: bool = True,
    ) -> str:
        """Sign, register and deploy a release; return its version."""
        version = uuid.uuid4().hex
        bundle = hashlib.sha256(version.encode()).digest()
        wanted = Statement(
            app=APP,
            version=version,
            counter=0,
            bundle_sha256=bundle,
            bundle_length=1,
            manifest_sha256=bundle,
            native_ranges=ranges,
            source_commit="",
            signed_at=0,
            log_origin="",
            bundle_blake2b=hashlib.blake2b(version.encode()).digest(),
            expo=EXPO,
        )
        self.run(self.signing.sign(self.olivia, self.request(), wanted))
        if register:
            record = self.register_release(version)
            if deploy:
                self.deploy(record.counter)
        return version

    def register_release(self, version: str):
        artifact = Artifact(f"https://cdn.example/{version}.zip", "zip", "", "", "")
        return self.do(
            self.releases.register(
                self.olivia, self.request(), app=APP, version=version, artifact=artifact
            )
        )

    def deploy(self, counter: int) -> None:
        self.do(
            self.channels.deploy(
                *(self.olivia, self.request()),
                app=APP,
                counter=counter,
                channels=["production"],
            )
        )

    def start(
        self, *, emergency: bool = False, old: int = 0, new: int = 0, since: int = 0, who=None
    ):
        kind = RotationKind.EMERGENCY if emergency else RotationKind.PLANNED
        return self.do(
            self.rotations.start(
                *(who or self.olivia, self.request()),
                Start(
                    *(APP, self.key, kind, "test"),
                    old=(old or self.key_record().primary) if emergency else 0,
                    new=new,
                    since=since,
                ),
            )
        )

    def rotation(self):
        found = self.view(lambda view: view.rotations.list(APP, self.key))
        return rotation.current(found)

    def advance(self, *, force: bool = False, expected=None, who=None, found=None):
        found = found or self.rotation()
        return self.do(
            self.rotations.advance(
                *(who or self.olivia, self.request((who or self.olivia).principal)),
                name=(APP, self.key, found.id),
                expected=expected,
                force=force,
            )
        )

    def abort(self):
        found = self.rotation()
        return self.do(
            self.rotations.abort(
                *(self.olivia, self.request()),
                name=(APP, self.key, found.id),
                reason="test",
            )
        )

    def status(self):
        return self.run(self.field.of(self.olivia, APP, self.key))

    def change(self, verb: str, number: int, **more):
        method = getattr(self.versions, verb)
        name = (APP, self.key, number)
        return self.do(method(self.olivia, self.request(), name, **more))

    def sweep(self) -> None:
        self.run(self.sweeper.sweep())
        self.run(self.leaf_keys.rotate())

    def certificate_ends(self, key: str, ends: int, error: str) -> None:
        """Take an alarm, as the port has it."""
        self.alarms.append(key)

    def duty_failed(self, duty: str, error: Exception, of: str = "") -> None:
        """Take an alarm, as the port has it."""
        self.undone.append((duty, of, explain(error)))

    def days(self, count: float) -> None:
        self.now += int(count * DAY)

    # What devices do.

    def ask(self, build: str):
        """Ask as a device; return what is served, or None."""
        device = self.devices[build]
        native = NativeVersion(device.platform, device.version_name, device.version_code)
        served = self.run(self.resolver.channel(APP, "production", native))
        if isinstance(served, NoUpdate) or not served.compatible:
            return None
        return served

    def updates(self, build: str) -> bool:
        """Ask, verify with what the binary embeds, and install; False if that is refused."""
        served = self.ask(build)
        if served is None:
            return False
        signature = served.signature(str(self.scheme))
        if signature is None:
            return False
        device = self.devices[build]
        if not device.accepts(signature, served.receipt.statement.bundle_sha256):
            return False
        device.installed = served.snapshot
        return True

    def flush(self) -> None:
        self.run(self.counter.flush())

    def check_in(self, build: str, times: int = 1) -> None:
        """Have devices of a build ask many times, without verifying each."""
        for _ in range(times):
            self.ask(build)
        self.flush()

    def leaves(self, *acts: str) -> list[dict]:
        found = self.view(lambda view: view.log.leaves(0, 1_000_000))
        leaves = [json.loads(leaf) for _, leaf, _ in found]
        return [leaf for leaf in leaves if leaf["act"] in acts] if acts else leaves
