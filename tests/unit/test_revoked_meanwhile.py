"""A right that ends between the check and the commit: nothing is done, by any act that writes."""

import dataclasses
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from privyseal.verify.importing import ImportTarget, seal
from privyseal.verify.keys import public_key_sha256
from privyseal.verify.statement import NativeRange
from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.model.approvals import Approval
from privyseald.model.errors import PermissionDenied
from privyseald.model.field import NativeBuild
from privyseald.model.policy import Action, Grant, Role
from privyseald.model.rotation import RotationKind
from privyseald.model.schemes import Algorithm, KeyIdentity, KeyPlace, Scheme
from privyseald.services.backups import Backups
from privyseald.services.ceremonies import Ceremonies, Ceremony
from privyseald.services.consent import Consent
from privyseald.services.credentials import DEFAULT_TTL, Credentials
from privyseald.services.grants import Grants
from privyseald.services.policies import TeamPolicies
from privyseald.services.releases import Artifact
from privyseald.services.rotations import Start

from tests.simulator import APP

pytestmark = pytest.mark.usefixtures("anew")

ARTIFACT = Artifact("https://cdn.example/a.zip", "zip", "", "", "")
TOKEN = {"name": "t", "ttl": DEFAULT_TTL, "roles": [Role.SIGNER], "app": APP}
NEW_KEY = {"app": APP, "key_id": "", "algorithm": None, "place": KeyPlace()}


def asked(world, service, method, *given, **named):
    """Call a service as olivia; return what was made of its answer."""
    made = []
    request = dataclasses.replace(world.request(), encode=lambda a: made.append(a) or b"")
    world.run(getattr(service, method)(world.olivia, request, *given, **named))
    return made[0]


def grants(world):
    return Grants(world.store, world.access, world.clock, lambda name: None)


def credentials(world):
    return Credentials(world.store, world.access, world.clock)


def consent(world):
    return Consent(world.store, world.access, world.clock, needed=1, alarm=world)


def wanted(world):
    subject = f"apps/{APP}/keys/{world.key}/versions/2 after 1d"
    nothing = {"id": "", "requester": "", "beneficiary": "", "created_at": 0, "expires_at": 0}
    return Approval(
        **nothing,
        action=Action.KEY_DESTROY,
        app=APP,
        subject=subject,
        reason="test",
        needed=1,
        uses=1,
        seconds=3600,
    )


def of_oscar(world):
    """An approval that oscar asks for, so that olivia may decide on it."""
    world.standby()
    made = []
    request = dataclasses.replace(
        world.request("certificate:oscar"), encode=lambda a: made.append(a) or b""
    )
    world.run(consent(world).request(world.oscar, request, wanted(world)))
    return made[0].id


def released(world):
    """Publish a release; return its counter."""
    world.publish()
    return 1


def token(world):
    """Make a token; return its id."""
    return asked(world, credentials(world), "create_token", **TOKEN)[0].id


def build(world):
    trusted = hashlib.sha256(world.version(1).public_key).digest()
    return NativeBuild(APP, "", "android", "1.0", "1", world.plugin, (trusted,), 0)


def prepared(world):
    """Start a rotation that can go on; return its id."""
    started = world.start()
    world.register("android-2.0.0-20", 1, 2)
    return started.id


def another(world):
    """Make a key that no device needs; return its one version's name."""
    asked(world, world.keys, "create_key", **NEW_KEY, scheme=Scheme.EXPO_V1)
    return APP, "expo-v1", 1


def another_key(world):
    """Seal a private key for the keyholder; return what it is to become, and the sealed key."""
    scheme, algorithm = Scheme.MINISIGN, Algorithm.ED25519
    private = ed25519.Ed25519PrivateKey.generate()
    pkcs8 = private.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    digest = public_key_sha256(private.public_key())
    target = ImportTarget(APP, str(scheme), str(scheme), str(algorithm), digest)
    recipient = world.keyholder.software.import_key.public_key().public_bytes_raw()
    identity = KeyIdentity(APP, str(scheme), 1, scheme, algorithm, digest)
    return [identity, seal(pkcs8, target, recipient)]


class OneArchive:
    """Makes backups of nothing."""

    sha256, size = b"b" * 32, 6

    def __init__(self):
        self.discarded = 0

    async def make(self):
        return self

    async def pieces(self):
        yield b"backup"

    def discard(self):
        self.discarded += 1


class Collected:
    """Makes a backup and returns what was yielded of it."""

    def __init__(self, world):
        self.archive = OneArchive()
        self.backups = Backups(world.store, world.access, self.archive)

    async def create(self, caller, request):
        try:
            return [piece async for piece in self.backups.create(caller, request)]
        finally:
            assert self.archive.discarded == 1


# What is there before, and what is done with it.
ACTS = {
    "grants.create": lambda w: (
        *(grants(w), "create"),
        [Grant("g", "certificate:ada", Role.SIGNER, APP, w.now)],
    ),
    "grants.revoke": lambda w: (grants(w), "revoke", ["oscar-signer"]),
    "credentials.create_token": lambda w: (credentials(w), "create_token", [], TOKEN),
    "credentials.deny": lambda w: (
        *(credentials(w), "deny_certificate", []),
        {"serial": "2a", "reason": "lost"},
    ),
    "consent.request": lambda w: (w.standby() and consent(w), "request", [wanted(w)]),
    "consent.approve": lambda w: (consent(w), "approve", [of_oscar(w)]),
    "consent.reject": lambda w: (consent(w), "reject", [of_oscar(w)]),
    "policies.apply": lambda w: (
        TeamPolicies(w.store, w.access, CedarPolicies(0), w.clock, try_out=lambda text: None),
        *("apply", ["", 0]),
    ),
    "keys.create_app": lambda w: (
        *(w.keys, "create_app", []),
        {"app": "another", "display_name": "", "algorithm": None, "place": KeyPlace()},
    ),
    "keys.create_key": lambda w: (
        *(w.keys, "create_key", []),
        {**NEW_KEY, "scheme": Scheme.MINISIGN},
    ),
    "keys.import_key": lambda w: (w.keys, "import_key", another_key(w), {"token": False}),
    "backups.create": lambda w: (Collected(w), "create", []),
    "ceremonies.record": lambda w: (
        *(Ceremonies(w.store, w.access), "record"),
        [APP, Ceremony("t", ["Olivia"], b"f" * 32, b"t" * 32, [(APP, w.key, 1)])],
    ),
    "versions.create": lambda w: (
        *(w.versions, "create", []),
        {**NEW_KEY, "key_id": w.key},
    ),
    "versions.suspend": lambda w: (
        *(w.versions, "suspend", [(APP, w.key, 1)]),
        {"reason": "test"},
    ),
    "versions.compromise": lambda w: (
        *(w.versions, "compromise", [(APP, w.key, 1)]),
        {"since": 0, "evidence": "test"},
    ),
    "versions.set_cryptoperiod": lambda w: (w.versions, "set_cryptoperiod", [APP, w.key, 30]),
    "versions.deactivate": lambda w: (
        *(w.versions, "deactivate", [(APP, w.key, w.standby() and 2)]),
        {"reason": "test", "force": False},
    ),
    "versions.deactivate of the last": lambda w: (
        *(w.versions, "deactivate", [another(w)]),
        {"reason": "test", "force": False},
    ),
    "releases.register": lambda w: (
        *(w.releases, "register", []),
        {"app": APP, "version": w.publish(register=False), "artifact": ARTIFACT},
    ),
    "releases.set_native_versions": lambda w: (
        *(w.releases, "set_native_versions", []),
        {
            "app": APP,
            "counter": released(w),
            "ranges": (NativeRange("android", "1", "2", ""),),
        },
    ),
    "releases.withdraw": lambda w: (
        *(w.releases, "withdraw", []),
        {"app": APP, "counter": released(w), "reason": "test"},
    ),
    "channels.create": lambda w: (
        *(w.channels, "create", []),
        {"app": APP, "channel": "beta"},
    ),
    "channels.delete": lambda w: (
        *(w.channels, "delete", []),
        {"app": APP, "channel": "production"},
    ),
    "channels.deploy": lambda w: (
        *(w.channels, "deploy", []),
        {"app": APP, "counter": released(w), "channels": ["production"]},
    ),
    "credentials.revoke_token": lambda w: (credentials(w), "revoke_token", [token(w)]),
    "rotations.start": lambda w: (
        *(w.rotations, "start"),
        [Start(APP, w.key, RotationKind.PLANNED, "test", old=0, new=0, since=0)],
    ),
    "rotations.advance": lambda w: (
        *(w.rotations, "advance", []),
        {"name": (APP, w.key, prepared(w)), "expected": None, "force": False},
    ),
    "rotations.abort": lambda w: (
        *(w.rotations, "abort", []),
        {"name": (APP, w.key, w.start().id), "reason": "test"},
    ),
    "builds.register": lambda w: (
        *(w.builds, "register", [build(w)]),
        {"allow_unknown": False, "already_shipped": False},
    ),
    "builds.end": lambda w: (
        *(w.builds, "end", [APP, w.register("android-1.2.0-12", 1).id]),
        {"reason": "test", "force": True},
    ),
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("revoked", [False, True], ids=["kept", "revoked"])
def test_who_lost_the_right_meanwhile_does_nothing(world, monkeypatch, act, revoked):
    service, method, given, named = (*ACTS[act](world), {})[:4]
    commit = world.store.commit
    mine = [grant.id for grant in world.olivia.grants]
    assert mine

    def take_away(tx):
        for grant in mine:
            tx.grants.remove(grant)
        return lambda _: b""

    async def later(*arguments, **more):
        monkeypatch.setattr(world.store, "commit", commit)
        if revoked:
            await commit(take_away)
        return await commit(*arguments, **more)

    monkeypatch.setattr(world.store, "commit", later)
    before = world.leaves()
    if not revoked:
        asked(world, service, method, *given, **named)
        assert world.leaves() != before
        return
    with pytest.raises(PermissionDenied):
        asked(world, service, method, *given, **named)
    assert [leaf for leaf in world.leaves()[len(before) :] if leaf.get("act") != "refusal"] == []
