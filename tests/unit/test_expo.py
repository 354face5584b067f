"""Expo: certificates, the daemon's rotation of leaf keys, and what devices are served."""

import hashlib
import json
import re
from dataclasses import replace
from email.parser import BytesParser

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from hypothesis import given
from hypothesis import strategies as st
from privyseal.verify import expo
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.statement import Statement
from privyseald.gateway import expo as gateway
from privyseald.keyholder import certificates
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore
from privyseald.model import expo_content
from privyseald.model.errors import FailedPrecondition, InvalidArgument
from privyseald.model.field import NativeBuild
from privyseald.model.schemes import Algorithm, KeyIdentity, KeyPlace, Scheme
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
        answer = self.run(gateway.latest(self.resolver, Request(scope), float(self.now)))
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
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", manifest["createdAt"])
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
    assert certificates.issue(leaf, root, signer, 0, 90 * DAY)
    assert certificates.issue(leaf, leaf, own, 0, 365 * 25 * DAY)
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
            certificates.issue(subject, issuer, signer, 0, ends)


def test_a_certificate_of_after_2049_is_read_by_others():
    keystore = SoftwareKeystore(b"k" * 32)
    key, root = party(keystore, Scheme.EXPO_ROOT_V1)
    ends = 2_600_000_000
    made = certificates.issue(root, root, keystore.open(key), ends - 29 * 365 * DAY, ends)
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
    assert hashlib.sha256(made.content_sha256()).digest()
