"""Expo: what is signed for its devices, and what they are served."""

import json
import re
from dataclasses import replace

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from privyseal.verify import expo
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.note import Checkpoint
from privyseal.verify.receipt import Receipt, SchemeSignature
from privyseal.verify.statement import Statement
from privyseald.model import expo_content
from privyseald.model.errors import InvalidArgument
from privyseald.model.schemes import Scheme

from tests.expo_world import ExpoWorld, multipart
from tests.simulator import APP, EXPO


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
    for key_id, told in (
        ("my key", "my key"),
        ("root/1:2", "root/1:2"),
        (r"a\"b", r"a\"b"),
        (r"a\b", "root"),
        ("a\tb", "root"),
    ):
        answer = world.fetch(expo_expect_signature=f'sig, keyid="{key_id}", alg="x"')
        header = multipart(*answer[1:])["manifest"][0]["expo-signature"]
        assert f'keyid="{told}", alg=' in header


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("multipart/mixed,application/expo+json,application/json", "multipart/mixed"),
        ("Multipart/Mixed", "multipart/mixed"),
        ("*/*", "multipart/mixed"),
        ("multipart/mixed;q=0, application/expo+json", "application/expo+json"),
        ("multipart/mixed; q=0.000,application/json", "application/json"),
        ("application/expo+json;q=0.5", "application/expo+json"),
        ("multipart/mixed;q=0.001", "multipart/mixed"),
    ],
)
def test_a_device_gets_what_it_takes(world, accept, media):
    world.embed(world.leaf())
    world.publish()
    status, headers, _ = world.fetch(accept=accept)
    assert (status, headers["content-type"].partition(";")[0]) == (200, media)


def test_an_update_with_a_chain_is_not_given_without_it(world):
    root = world.root()
    world.leaf()
    world.embed(root)
    world.publish()
    assert world.fetch()[0] == 200
    status, headers, _ = world.fetch(accept="application/expo+json")
    assert status == 406
    assert "expo-signature" not in headers


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


def test_the_newest_version_is_what_an_artifact_is_made_with():
    """The primary stands first, and what only old binaries need comes after it."""
    signed = tuple(
        SchemeSignature(scheme, "rsa-2048", f"apps/a/keys/{scheme}/versions/{n}", b"", b"")
        for scheme, n in (("statement-v1", 1), ("expo-v1", 10), ("expo-v1", 9))
    )
    receipt = Receipt(STATEMENT, signed, {}, 0, Checkpoint("log", 1, b"r" * 32), b"")
    assert receipt.newest("expo-v1").key_version.endswith("/10")
    with pytest.raises(VerificationError, match="no signature for minisign"):
        receipt.newest("minisign")
