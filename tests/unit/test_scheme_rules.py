"""What the schemes' own rules say of keys, signatures and names, each broken alone."""

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from privyseal.verify import expo, schemes
from privyseal.verify.errors import VerificationError

from tests.unit.test_formats import statement

ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()
RSA = rsa.generate_private_key(65537, 2048).public_key()


@pytest.mark.parametrize(
    ("key", "length"), [(P256, 64), (RSA, 64), (ED25519, 63), (ED25519, 65), (ED25519, 0)]
)
def test_sparkles_signature_is_ed25519s(key, length):
    signed = statement()
    schemes.verify("sparkle-ed25519", ED25519, bytes(64), signed, signed.build())
    with pytest.raises(VerificationError, match="not Ed25519"):
        schemes.verify("sparkle-ed25519", key, bytes(length), signed, signed.build())


@pytest.mark.parametrize("length", [0, 511, 513, 256])
def test_expo_has_a_signature_for_each_update(length):
    updates = tuple(
        expo.ExpoUpdate(platform, "1", f"{platform}.hbc", bytes(32), ())
        for platform in expo.PLATFORMS
    )
    signed = statement(expo=expo.Expo(updates))
    halves = expo.signatures(signed, b"a" * 256 + b"i" * 256)
    assert halves == {"android": b"a" * 256, "ios": b"i" * 256}
    why = "lacks a signature" if length % 2 else "does not verify"
    with pytest.raises(VerificationError, match=why):
        schemes.verify("expo-v1", RSA, bytes(length), signed, signed.build())
    with pytest.raises(VerificationError, match="no Expo update"):
        expo.signatures(statement(), bytes(512))


def test_codepush_sorts_names_as_javascript_does():
    """By units of UTF-16, in which what is beyond the first plane comes before its end."""
    names = ["\uffee.js", "\U0001f600.js", "a.js", "B.js"]
    order = ["B.js", "a.js", "\U0001f600.js", "\uffee.js"]
    assert order != sorted(names)
    lines = [f"CodePush/{name}:{bytes(32).hex()}" for name in order]
    text = json.dumps(lines, separators=(",", ":"), ensure_ascii=False)
    found = schemes.codepush_package_sha256(dict.fromkeys(names, bytes(32)))
    assert found == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "name", [".codepushrelease", ".DS_Store", "a/.DS_Store", "a/.codepushrelease"]
)
def test_codepush_leaves_its_own_files_and_the_finders_out(name):
    files = {"index.html": bytes(32)}
    assert schemes.codepush_package_sha256({**files, name: bytes(32)}) == (
        schemes.codepush_package_sha256(files)
    )


@pytest.mark.parametrize(
    "name", [".DS_Store.js", "x.DS_Store", ".codepushrelease/a.js", ".ds_store"]
)
def test_codepush_leaves_nothing_else_out(name):
    files = {"index.html": bytes(32)}
    assert schemes.codepush_package_sha256({**files, name: bytes(32)}) != (
        schemes.codepush_package_sha256(files)
    )
