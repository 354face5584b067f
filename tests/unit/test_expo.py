"""Expo: certificates, the daemon's rotation of leaf keys, and what devices are served."""

import json
import re
from dataclasses import replace
from email.parser import BytesParser

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st
from privyseal.cli.common import embedded_text
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.verify import expo
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.importing import ImportTarget, seal
from privyseal.verify.keys import public_key_sha256, spki_pem
from privyseal.verify.statement import Statement
from privyseald.gateway.expo import ExpoUpdates
from privyseald.keyholder import certificates, wire
from privyseald.keyholder.certificates import Validity
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore
from privyseald.keyholder.keystores import Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as kpb
from privyseald.keyholder.worker import Worker
from privyseald.model import expo_content
from privyseald.model.errors import DomainError, FailedPrecondition, InvalidArgument, Unavailable
from privyseald.model.field import NativeBuild
from privyseald.model.schemes import ALGORITHMS, Algorithm, KeyIdentity, KeyPlace, Scheme
from starlette.requests import Request

from tests.simulator import APP, EXPO, World

BUILD = "android-1.0.0-10"
DAY = 86_400


class ExpoWorld(World):
    """A world whose devices are Expo's: they have a certificate, and a clock."""

    def root(self):
        create = self.keys.create_key
        return self.do(
            create(
                *(self.olivia, self.request()),
                app=APP,
                key_id="",
                scheme=Scheme.EXPO_ROOT_V1,
                algorithm=None,
                place=KeyPlace(),
            )
        ).versions[0]

    def leaf(self):
        create = self.keys.create_key
        return self.do(
            create(
                *(self.olivia, self.request()),
                app=APP,
                key_id="",
                scheme=Scheme.EXPO_V1,
                algorithm=None,
                place=KeyPlace(),
            )
        ).versions[0]

    def embed(self, version, build=BUILD):
        platform, name, code = build.split("-")
        made = NativeBuild(
            APP, "", platform, name, code, "expo", (version.public_key_sha256,), registered_at=0
        )
        self.do(
            self.builds.register(
                *(self.olivia, self.request(), made), allow_unknown=False, already_shipped=False
            )
        )

    def fetch(self, **headers):
        """Ask as a device; return status, body or parts, and headers."""
        sent = {
            "accept": "multipart/mixed,application/expo+json,application/json",
            "expo-platform": "android",
            "expo-protocol-version": "1",
            "expo-runtime-version": "1.0.0",
            "expo-channel-name": "production",
            "expo-expect-signature": 'sig, keyid="main", alg="rsa-v1_5-sha256"',
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/apps/{APP}/expo",
            "query_string": b"",
            "path_params": {"app": APP},
            "headers": [(k.encode(), v.encode()) for k, v in sent.items() if v],
        }
        answer = self.run(ExpoUpdates(self.resolver).latest(Request(scope), float(self.now)))
        return answer.status_code, dict(answer.headers), answer.body

    def updates_with(self, certificate: bytes, **headers) -> bool:
        """Update as a device that embeds a certificate, as expo-updates' code signing does."""
        status, told, body = self.fetch(**headers)
        if status == 204:
            return False
        parts = multipart(told, body)
        headers_of, manifest = parts["manifest"]
        embedded = x509.load_der_x509_certificate(certificate)
        key = embedded
        if "certificate_chain" in parts:
            key = x509.load_pem_x509_certificate(parts["certificate_chain"][1])
            key.verify_directly_issued_by(embedded)
        for each in {key, embedded}:
            begins, ends = each.not_valid_before_utc, each.not_valid_after_utc
            if not begins.timestamp() <= self.now <= ends.timestamp():
                return False
        given = dict(re.findall(r'(\w+)="([^"]*)"', headers_of["expo-signature"]))
        assert given["keyid"] == "main"
        assert given["alg"] == "rsa-v1_5-sha256"
        import base64

        key.public_key().verify(
            base64.b64decode(given["sig"]), manifest, padding.PKCS1v15(), hashes.SHA256()
        )
        return True


def multipart(headers, body):
    """Return the parts of an answer by name, as another MIME parser reads them."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + body)
    return {
        part.get_param("name", header="content-disposition"): (
            dict(part.items()),
            part.get_payload(decode=True),
        )
        for part in message.get_payload()
    }


@pytest.fixture
def world(tmp_path):
    made = ExpoWorld(tmp_path, scheme=Scheme.STATEMENT_V1)
    yield made
    made.close()


def test_an_app_certificate_is_what_expo_wants_and_its_devices_update(world):
    leaf = world.leaf()
    certificate = x509.load_der_x509_certificate(leaf.certificate)
    certificate.verify_directly_issued_by(certificate)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    purpose = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert purpose.critical
    assert list(purpose.value) == [x509.oid.ExtendedKeyUsageOID.CODE_SIGNING]
    assert certificate.serial_number.bit_length() > 100
    world.embed(leaf)
    assert world.fetch()[0] == 204, "nothing is there"
    world.publish()
    assert world.updates_with(leaf.certificate)
    world.days(20 * 365)
    assert world.updates_with(leaf.certificate)
    world.days(6 * 365)
    assert not world.updates_with(leaf.certificate), "devices read the clock"


def test_the_manifest_is_the_protocols(world):
    world.leaf()
    world.publish()
    _, headers, body = world.fetch()
    parts = multipart(headers, body)
    manifest = json.loads(parts["manifest"][1])
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", manifest["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.001Z", manifest["createdAt"])
    assert manifest["runtimeVersion"] == "1.0.0"
    assert manifest["launchAsset"]["contentType"] == "application/javascript"
    (asset,) = manifest["assets"]
    assert asset["key"] == "0123abcd"
    assert asset["fileExtension"] == ".png"
    assert asset["hash"] == "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE"
    assert asset["url"].startswith("https://updates.example/apps/app/snapshots/1-")
    assert asset["url"].endswith("/assets/0123abcd")
    assert json.loads(parts["extensions"][1]) == {"assetRequestHeaders": {}}
    assert headers["expo-protocol-version"] == "1"
    assert headers["expo-sfv-version"] == "0"
    current = world.fetch(expo_current_update_id=manifest["id"].upper())
    assert current[0] == 204, "it is there already"
    assert world.fetch(expo_runtime_version="1.0.1")[0] == 204
    assert world.fetch(expo_channel_name="other")[0] == 204
    assert world.fetch(expo_protocol_version="0")[0] == 406
    with pytest.raises(ValueError, match="expo-platform"):
        world.fetch(expo_platform="windows")
    plain = world.fetch(accept="application/expo+json")
    assert plain[2] == parts["manifest"][1]
    assert plain[1]["expo-signature"] == parts["manifest"][0]["expo-signature"]
    unsigned = world.fetch(expo_expect_signature="")
    assert "expo-signature" not in multipart(unsigned[1], unsigned[2])["manifest"][0]
    ios = multipart(*world.fetch(expo_platform="ios")[1:])["manifest"][1]
    assert json.loads(ios)["id"] != manifest["id"]
    injected = world.fetch(expo_expect_signature='sig, keyid="a\\"b", alg="x"')
    assert 'keyid="root"' in multipart(*injected[1:])["manifest"][0]["expo-signature"]


def test_leaves_of_a_root_are_rotated_and_devices_never_notice(world):
    root = world.root()
    first = world.leaf()
    assert first.anchor_sha256 == root.public_key_sha256
    world.key = "expo-v1"
    world.embed(root)
    world.publish()
    for day in range(400):
        world.days(1)
        world.sweep()
        assert world.updates_with(root.certificate), f"day {day}"
        active = [n for n, state in world.states().items() if state == "active"]
        assert len(active) == 1, "what is not needed does not sign"
    assert len(world.states()) == 7
    assert world.alarms == []
    leaf = world.version(world.key_record().primary)
    certificate = x509.load_der_x509_certificate(leaf.certificate)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= (
        __import__("datetime").timedelta(days=91)
    )
    told = world.leaves("key.promote")
    assert len(told) == 6
    assert all(leaf["successor"] for leaf in told)
    embedded = x509.load_der_x509_certificate(root.certificate)
    constraints = embedded.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value.ca
    assert constraints.value.path_length == 0


def test_who_cannot_rotate_is_told_of_once_a_day_and_it_goes_on_later(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    world.days(61)
    for _ in range(3):
        world.sweep()
    assert world.alarms == ["apps/app/keys/expo-v1"]
    world.days(1)
    world.sweep()
    assert len(world.alarms) == 2
    world.change("resume", 1, reason="test")
    world.days(0.1)
    world.sweep()
    world.days(40)
    assert world.updates_with(root.certificate)


def test_a_rotation_that_people_began_comes_first(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "expo-v1"
    world.start()
    world.days(61)
    world.sweep()
    assert world.key_record().primary == 1
    assert world.alarms
    for _ in range(4):
        world.advance()
    assert world.states() == {1: "deactivated", 2: "active"}
    assert world.updates_with(root.certificate)


def test_a_suspended_root_issues_nothing_and_one_that_was_given_up_is_left(world):
    world.root()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    with pytest.raises(FailedPrecondition, match="issues no certificate"):
        world.leaf()
    world.change("compromise", 1, since=0, evidence="test")
    assert world.leaf().anchor_sha256 == b""


def test_a_root_signs_no_release_and_keeps_none_from_being_signed(world):
    world.root()
    world.leaf()
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    world.publish()
    signed = world.view(lambda view: view.releases.signed(APP, counter=1))
    assert "expo-root-v1" not in signed.signers


def test_a_changed_certificate_in_the_database_is_not_served(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    import sqlite3

    with sqlite3.connect(world.folder / "world.db") as database:
        database.execute("UPDATE key_versions SET certificate = x'00' WHERE key = 'expo-v1'")
    with pytest.raises(VerificationError, match="another certificate"):
        world.fetch()


def test_what_cannot_be_rotated_makes_no_key_pairs(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)
    made = world.keyholder.generated
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert world.keyholder.generated == made
    world.change("resume", 1, reason="test")
    world.start(emergency=True)
    made = world.keyholder.generated
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert world.keyholder.generated == made, "the new root is not in those binaries"


def test_a_key_pair_that_does_not_become_one_is_destroyed(world, monkeypatch):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)

    async def down(*_):
        raise Unavailable("the store cannot be written now", reason="STORE_DOWN")

    with monkeypatch.context() as broken:
        broken.setattr(world.store, "commit", down)
        world.sweep()
    assert world.keyholder.destroyed == ["apps/app/keys/expo-v1/versions/2"]
    assert world.alarms


@pytest.mark.parametrize("verb", ["suspend", "compromise"])
def test_a_root_that_is_stopped_meanwhile_has_issued_nothing(world, monkeypatch, verb):
    """The certificate is made, the root is stopped, and only then comes the commit."""
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)
    real, meanwhile = world.store.commit, []
    more = {"reason": "test"} if verb == "suspend" else {"since": 0, "evidence": "test"}

    async def commit(*given):
        if not meanwhile:
            meanwhile.append(1)
            name = (APP, "expo-root-v1", 1)
            await getattr(world.versions, verb)(world.olivia, world.request(), name, **more)
        return await real(*given)

    monkeypatch.setattr(world.store, "commit", commit)
    world.sweep()
    world.key = "expo-v1"
    assert meanwhile
    assert world.states() == {1: "active"}
    if verb == "compromise":
        return
    world.key = "expo-root-v1"
    world.change("resume", 1, reason="test")
    meanwhile.clear()
    world.key = "expo-v1"
    with pytest.raises(DomainError):
        world.standby()


def test_a_root_that_binaries_embed_is_not_destroyed_unseen(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.key = "expo-root-v1"
    world.change("suspend", 1, reason="test")
    with pytest.raises(FailedPrecondition, match=r"android-1\.0\.0-10") as error:
        world.change("destroy", 1, reason="test", delay=0, force=False)
    assert error.value.reason == "BUILDS_DEPEND"
    (standing,) = world.status().standings
    assert standing.build.id == BUILD
    assert standing.embedded == (1,)
    with pytest.raises(FailedPrecondition, match="is a root") as error:
        world.start()
    assert error.value.reason == "ROOT_NOT_ROTATED"


def test_deployed_releases_that_lack_the_new_signature_are_told_of(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.key = "statement-v1"
    world.change("suspend", 1, reason="test")
    world.days(61)
    world.sweep()
    world.key = "expo-v1"
    assert world.key_record().primary == 2, "the key itself was rotated"
    assert world.alarms == ["apps/app/keys/expo-v1"]
    assert world.states()[1] == "active", "devices still need it"
    world.key = "statement-v1"
    world.change("resume", 1, reason="test")
    world.days(1)
    world.sweep()
    world.key = "expo-v1"
    assert world.states() == {1: "deactivated", 2: "active"}
    world.days(10)
    world.sweep()
    assert len(world.alarms) == 1


def test_what_cannot_be_read_is_told_of_and_keeps_no_other_key_waiting(world, monkeypatch):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    world.days(61)

    async def cover(*_):
        raise VerificationError("statement is not well-formed JSON")

    with monkeypatch.context() as broken:
        broken.setattr(world.renewal, "cover", cover)
        world.sweep()
    assert world.alarms == ["apps/app/keys/expo-v1"]


def test_a_release_of_another_kind_keeps_no_old_leaf_alive(world):
    root = world.root()
    # Signed before there was an expo-v1 key, so that its statement has no update.
    world.publish()
    world.leaf()
    world.embed(root)
    world.key = "expo-v1"
    for _ in range(130):
        world.days(1)
        world.sweep()
    assert sorted(world.states().values()) == ["active", "deactivated", "deactivated"]


def test_a_root_that_ends_soon_makes_no_leaf_after_leaf(world):
    import sqlite3

    world.root()
    world.leaf()
    with sqlite3.connect(world.folder / "world.db") as database:
        ends = world.now + 70 * DAY
        database.execute("UPDATE key_versions SET certificate_ends = ?", (ends,))
    world.key = "expo-v1"
    world.days(45)
    for _ in range(48):
        world.days(1 / 24)
        world.sweep()
    assert len(world.states()) == 1
    assert world.alarms


def test_a_leaf_is_not_what_binaries_embed(world):
    world.root()
    leaf = world.leaf()
    with pytest.raises(FailedPrecondition) as error:
        world.embed(leaf)
    assert error.value.reason == "LEAF_EMBEDDED"


def test_what_is_signed_in_one_second_is_in_order(world):
    world.leaf()
    created = []
    for _ in range(3):
        world.publish()
        _, headers, body = world.fetch()
        created.append(json.loads(multipart(headers, body)["manifest"][1])["createdAt"])
    assert created == sorted(set(created))


def test_a_receipt_that_is_being_made_is_not_added_to(world):
    """Two that add signatures in one transaction: the second would undo the first."""
    world.publish()

    def act(tx):
        found = tx.releases.signed(APP, counter=1)
        tx.releases.sign_again(found)
        for again in (
            tx.releases.signed(APP, counter=1),
            tx.releases.signed(APP, version=found.version),
        ):
            assert again.receipt == b""
        tx.releases.set_receipt(APP, found.version, found.receipt)
        return lambda _: b"done"

    assert world.run(world.store.commit(act)) == b"done"
    assert world.view(lambda view: view.releases.signed(APP, counter=1)).receipt


def terms(now, begins=0, ends=90 * DAY, issuer=None):
    message = kpb.CertificateTerms(begins=now + begins, ends=now + ends)
    if issuer is not None:
        message.issuer.CopyFrom(wire.key_to_wire(issuer.wrapped))
        message.issuer_public_key = issuer.public_key
    return message


def test_a_root_vouches_only_for_what_is_made_now():
    """Whoever has the daemon for a moment gets no power over devices that lasts."""
    now = 1_000_000_000
    keystore = SoftwareKeystore(b"k" * 32)
    worker = Worker(Keystores(keystore), lambda: now)
    root = keystore.generate(
        KeyIdentity("a", "expo-root-v1", 1, Scheme.EXPO_ROOT_V1, Algorithm.RSA_2048)
    )
    identity = KeyIdentity("a", "expo-v1", 1, Scheme.EXPO_V1, Algorithm.RSA_2048)

    def generate(certificate):
        call = kpb.GenerateKey(identity=wire.identity_to_wire(identity), certificate=certificate)
        return worker.answer(kpb.Request(generate_key=call))

    assert generate(terms(now, issuer=root)).generated_key.certificate
    for bad in ({"begins": 3 * DAY}, {"begins": -3 * DAY}, {"begins": 10**8, "ends": 10**8 + DAY}):
        failure = generate(terms(now, issuer=root, **bad)).failure
        assert "at another time than now" in failure.message
    own = rsa.generate_private_key(65537, 2048)
    pkcs8 = own.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    named = replace(identity, public_key_sha256=public_key_sha256(own.public_key()))
    target = ImportTarget("a", "expo-v1", "expo-v1", "rsa-2048", named.public_key_sha256)
    sealed = seal(pkcs8, target, keystore.import_key.public_key().public_bytes_raw())
    for issuer, why in ((root, "vouches for no key"), (None, "")):
        call = kpb.ImportKey(
            identity=wire.identity_to_wire(named),
            sealed_private_key=sealed,
            certificate=terms(now, issuer=issuer),
        )
        answer = worker.answer(kpb.Request(import_key=call))
        assert why in answer.failure.message
    assert answer.generated_key.certificate, "a self-signed one is nobody's word"
    for scheme in (Scheme.EXPO_V1, Scheme.SPARKLE_ED25519):
        algorithm = ALGORITHMS[scheme][0]
        taken = KeyIdentity("a", str(scheme), 1, scheme, algorithm)
        call = kpb.GenerateKey(
            identity=wire.identity_to_wire(taken),
            adopt_uri="pkcs11:object=x",
            certificate=terms(now, issuer=root) if scheme is Scheme.EXPO_V1 else None,
        )
        failure = worker.answer(kpb.Request(generate_key=call)).failure
        assert "not taken for this" in failure.message


def test_a_certificate_of_another_key_is_not_handed_out():
    keystore = SoftwareKeystore(b"k" * 32)
    key, root = party(keystore, Scheme.EXPO_ROOT_V1)
    _, other = party(keystore, Scheme.EXPO_ROOT_V1, version=2)
    made = certificates.issue(root, root, keystore.open(key), Validity(0, 90 * DAY), 0)
    for public, certificate in ((other.public_key, made), (root.public_key, b"junk")):
        version = key_pb.KeyVersion(public_key=spki_pem(public), certificate=certificate)
        with pytest.raises(VerificationError, match="another key"):
            embedded_text("expo-root-v1", version)
    version = key_pb.KeyVersion(public_key=spki_pem(root.public_key), certificate=made)
    assert "BEGIN CERTIFICATE" in embedded_text("expo-root-v1", version)


def party(keystore, scheme, app="a", version=1):
    made = keystore.generate(KeyIdentity(app, str(scheme), version, scheme, Algorithm.RSA_2048))
    return made.wrapped, certificates.Party(made.wrapped.identity, made.public_key)


def test_the_keyholder_issues_certificates_for_nobody_else():
    keystore = SoftwareKeystore(b"k" * 32)
    root_key, root = party(keystore, Scheme.EXPO_ROOT_V1)
    leaf_key, leaf = party(keystore, Scheme.EXPO_V1)
    _, other_app = party(keystore, Scheme.EXPO_V1, "b")
    _, another = party(keystore, Scheme.CAPAWESOME_V1)
    _, next_leaf = party(keystore, Scheme.EXPO_V1, version=2)
    signer, own = keystore.open(root_key), keystore.open(leaf_key)
    assert certificates.issue(leaf, root, signer, Validity(0, 90 * DAY), 0)
    assert certificates.issue(leaf, leaf, own, Validity(0, 365 * 25 * DAY), 0)
    for subject, issuer, ends in (
        (other_app, root, 90 * DAY),
        (another, another, 90 * DAY),
        (another, root, 90 * DAY),
        (root, leaf, 90 * DAY),
        (next_leaf, leaf, 90 * DAY),
        (leaf, root, 401 * DAY),
        (leaf, leaf, 366 * 31 * DAY),
        (leaf, root, 0),
        (replace(leaf, public_key=next_leaf.public_key), root, 90 * DAY),
        (leaf, replace(root, public_key=leaf.public_key), 90 * DAY),
    ):
        with pytest.raises(KeyUnusableError):
            certificates.issue(subject, issuer, signer, Validity(0, ends), 0)


def test_a_certificate_of_after_2049_is_read_by_others():
    keystore = SoftwareKeystore(b"k" * 32)
    key, root = party(keystore, Scheme.EXPO_ROOT_V1)
    ends = 2_600_000_000
    begins = ends - 29 * 365 * DAY
    made = certificates.issue(root, root, keystore.open(key), Validity(begins, ends), begins)
    read = x509.load_der_x509_certificate(made)
    assert read.not_valid_after_utc.timestamp() == ends
    assert (
        read.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        == root.public_key
    )


STATEMENT = Statement(
    *("a", "1", 1, b"b" * 32, 10, b"m" * 32, (), "", 1, "log"),
)
NAMES = st.text(alphabet="abc/._-é", min_size=1, max_size=20)
UPDATES = st.builds(
    ExpoUpdate,
    st.just("android"),
    st.text(max_size=20),
    NAMES,
    st.binary(min_size=32, max_size=32),
    st.lists(
        st.builds(
            ExpoAsset, NAMES, st.text(max_size=10), NAMES, st.binary(min_size=32, max_size=32)
        ),
        max_size=3,
    ).map(tuple),
)


@given(UPDATES, st.sampled_from([b"", b'{"name":"x"}']))
def test_a_statement_holds_what_is_signed_for_expo(update, config):
    value = replace(STATEMENT, expo=Expo((update,), config, "https://x.example"))
    assert Statement.parse(value.build()) == value
    body = json.loads(expo.manifest(value, "android"))
    assert body["runtimeVersion"] == update.runtime_version
    assert len(body["assets"]) == len(update.assets)


GOOD = EXPO.updates[0]
BAD = {
    "no update": Expo(()),
    "two of a platform": Expo((GOOD, GOOD)),
    "another platform": Expo((replace(GOOD, platform="windows"),)),
    "no runtime version": Expo((replace(GOOD, runtime_version=""),)),
    "a digest of another length": Expo((replace(GOOD, launch_sha256=b"x" * 51),)),
    "a path that climbs": Expo((replace(GOOD, launch_path="../x"),)),
    "no key": Expo((replace(GOOD, launch_path="assets/"),)),
    "a key with a NUL": Expo((replace(GOOD, launch_path="a\0b"),)),
    "one key twice": Expo((replace(GOOD, assets=(*GOOD.assets, *GOOD.assets)),)),
    "an asset without digest": Expo(
        (replace(GOOD, assets=(replace(GOOD.assets[0], sha256=b""),)),)
    ),
    "a type that ends a header": Expo(
        (replace(GOOD, assets=(replace(GOOD.assets[0], content_type="a/b\r\nx: y"),)),)
    ),
    "an extension that climbs": Expo(
        (replace(GOOD, assets=(replace(GOOD.assets[0], extension="/../x"),)),)
    ),
    "a configuration that is no object": Expo((GOOD,), b"[]"),
    "fractions": Expo((GOOD,), b'{"a":1.5}'),
    "deep": Expo((GOOD,), b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "too long": Expo((GOOD,), b'{"a":"' + b"x" * 300_000 + b'"}'),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_content_is_refused_and_named(what):
    with pytest.raises(InvalidArgument, match="expo"):
        expo_content.check(BAD[what])


def test_good_content_is_brought_into_its_one_form():
    given_config = Expo(tuple(reversed(EXPO.updates)), b'{ "b": 1, "a": "\xc3\xa4" }')
    made = expo_content.check(given_config)
    assert made.updates == EXPO.updates
    assert made.config == b'{"a":"\xc3\xa4","b":1}'
    assert len(made.content_sha256) == 32
