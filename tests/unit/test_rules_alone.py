"""Rules that other rules would hide: each is tried where nothing else refuses the same thing."""

import dataclasses
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from privyseal.verify.keys import spki_der
from privyseal.verify.statement import NativeRange, Statement
from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.keyholder import aws_kek
from privyseald.keyholder import kek as keks
from privyseald.keyholder.keystore import KeyUnusableError, load_private_key
from privyseald.model.approvals import Approval
from privyseald.model.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
)
from privyseald.model.policy import Action, Grant, Role
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme
from privyseald.services.consent import Consent
from privyseald.services.policies import TeamPolicies
from privyseald.services.workloads import MAX_DIGESTS, Workloads

from tests.expo_world import ExpoWorld
from tests.simulator import APP

KEK = bytes(range(32))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_could_read_is_not_taken(tmp_path, mode):
    file = tmp_path / "kek"
    file.write_bytes(KEK)
    file.chmod(0o600)
    assert keks.read_kek_file(file) == KEK
    file.chmod(mode)
    with pytest.raises(PermissionError, match="read by others"):
        keks.read_kek_file(file)


@pytest.mark.parametrize("member", ["provider", "params"])
def test_a_sealed_key_is_bound_to_how_it_was_sealed(member):
    record = keks.seal_with("shares", {"threshold": 3}, bytes(32), KEK)
    assert record.open_with(bytes(32)) == KEK
    changed = {"provider": "token", "params": {"threshold": 1}}[member]
    with pytest.raises(keks.KekError, match="does not open"):
        dataclasses.replace(record, **{member: changed}).open_with(bytes(32))


def test_what_a_service_opened_is_compared_with_the_key(monkeypatch):
    """AWS KMS decrypts what its key has encrypted, whoever put it there."""
    record = keks.KekRecord("aws-kms", keks.check_of(KEK), {"keyId": "k"}, b"sealed")
    asked = []

    class Kms:
        plain = KEK

        def decrypt(self, **call):
            asked.append(call)
            return {"Plaintext": self.plain}

    monkeypatch.setattr(aws_kek, "_client", lambda _region: Kms())
    assert aws_kek.open_with_aws(record) == KEK
    assert asked[0]["EncryptionContext"] == {"privyseal": "kek", "check": record.check}
    Kms.plain = bytes(32)
    with pytest.raises(keks.KekError, match="not this daemon's"):
        aws_kek.open_with_aws(record)


def test_an_elliptic_key_of_another_curve_is_no_p256():
    private = ec.generate_private_key(ec.SECP384R1())
    digest = hashlib.sha256(spki_der(private.public_key())).digest()
    identity = KeyIdentity("a", "k", 1, Scheme.STATEMENT_V1, Algorithm.P256, digest)
    encoded = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(KeyUnusableError):
        load_private_key(identity, encoded)


@pytest.mark.parametrize(
    "changed",
    [
        {"native_ranges": (NativeRange("android", "2.0.0"),)},
        {"source_commit": "0123456789"},
        {"bundle_sha256": b"o" * 32},
        {"bundle_length": 99},
        {"manifest_sha256": b"o" * 32},
    ],
)
def test_a_version_is_signed_for_one_thing(world, changed):
    wanted = Statement(
        app=APP,
        version="1",
        counter=0,
        bundle_sha256=b"b" * 32,
        bundle_length=1,
        manifest_sha256=b"m" * 32,
        native_ranges=(),
        source_commit="",
        signed_at=0,
        log_origin="",
    )
    world.run(world.signing.sign(world.olivia, world.request(), wanted))
    world.run(world.signing.sign(world.olivia, world.request(), wanted))
    other = dataclasses.replace(wanted, **changed)
    with pytest.raises(AlreadyExists):
        world.run(world.signing.sign(world.olivia, world.request(), other))


def test_a_key_that_exists_gets_no_certificate_of_a_root(tmp_path):
    world = ExpoWorld(tmp_path, scheme=Scheme.STATEMENT_V1)
    try:
        world.root()
        makes = world.versions._makes
        identity = KeyIdentity(APP, "expo-v1", 1, Scheme.EXPO_V1, Algorithm.RSA_2048)
        assert world.run(makes.terms(identity)).issuer
        with pytest.raises(FailedPrecondition):
            world.run(makes.terms(identity, exists=True))
    finally:
        world.close()


def consent(world, needed):
    return Consent(world.store, world.access, world.clock, needed=needed, alarm=world)


def wanted(**more):
    return Approval(
        id="",
        action=Action.KEY_DESTROY,
        app=APP,
        requester="",
        beneficiary="",
        reason="test",
        created_at=0,
        expires_at=0,
        **{"subject": "x", "needed": 0, "uses": 0, "seconds": 0, **more},
    )


@pytest.mark.parametrize(("asked", "needs"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_who_asks_cannot_need_fewer_than_the_daemon_wants(world, asked, needs):
    made = []
    request = dataclasses.replace(world.request(), encode=lambda a: made.append(a) or b"")
    world.run(consent(world, 2).request(world.olivia, request, wanted(needed=asked)))
    assert made[0].needed == needs


def test_a_request_is_rejected_by_who_asked_or_may_consent_and_nobody_else(world):
    made = []
    request = dataclasses.replace(world.request(), encode=lambda a: made.append(a) or b"")
    world.run(consent(world, 1).request(world.olivia, request, wanted()))

    def act(tx):
        tx.grants.add(Grant("g", "certificate:ada", Role.AUDITOR, APP, world.now))
        return lambda _: b""

    world.run(world.store.commit(act))
    ada = world.run(world.access.by_certificate("certificate:ada", "2a"))
    with pytest.raises(PermissionDenied):
        world.run(consent(world, 1).reject(ada, world.request(), made[0].id))
    world.run(consent(world, 1).reject(world.olivia, world.request(), made[0].id))


def test_policies_that_others_replaced_meanwhile_stay(world):
    team = TeamPolicies(
        *(world.store, world.access, CedarPolicies(0), world.clock), try_out=lambda _: None
    )
    text = '@id("a") forbid (principal, action, resource) when { false };'
    world.run(team.apply(world.olivia, world.request(), text, 0))
    with pytest.raises(FailedPrecondition) as caught:
        world.run(team.apply(world.olivia, world.request(), text, 0))
    assert caught.value.reason == "POLICY_CHANGED"
    world.run(team.apply(world.olivia, world.request(), text, 1))


def test_a_session_names_so_many_bundles_at_most(world):
    class Nobody:
        issuers = ()

        async def verify(self, token, now):
            raise AssertionError("asked though there are too many")

    workloads = Workloads(world.store, world.access, Nobody(), world.clock, None)
    digests = [bytes([n]) * 32 for n in range(MAX_DIGESTS + 1)]
    with pytest.raises(InvalidArgument, match="at most"):
        world.run(workloads.exchange("token", APP, digests))


def test_json_of_kek_without_a_version_is_malformed():
    text = json.loads(keks.seal_with("shares", {}, bytes(32), KEK).text())
    del text["version"]
    with pytest.raises(keks.KekError, match="malformed"):
        keks.KekRecord.parse(json.dumps(text))
    with pytest.raises(keks.KekError, match="newer version"):
        keks.KekRecord.parse(json.dumps({**text, "version": 2}))
