"""Certificates: what the keyholder issues, for whom, and for when."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from privyseal.cli.common import embedded_text
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.verify.errors import VerificationError
from privyseal.verify.importing import ImportTarget, seal
from privyseal.verify.keys import public_key_sha256, spki_pem
from privyseald.keyholder import certificates, wire
from privyseald.keyholder.certificates import Validity
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore
from privyseald.keyholder.keystores import Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as kpb
from privyseald.keyholder.worker import Worker
from privyseald.model.schemes import ALGORITHMS, Algorithm, KeyIdentity, Scheme

from tests.expo_world import DAY


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


def test_a_root_issues_for_keys_and_a_leaf_for_nobody():
    keystore = SoftwareKeystore(b"k" * 32)
    key, root = party(keystore, Scheme.EXPO_ROOT_V1)
    _, leaf = party(keystore, Scheme.EXPO_V1)
    signer, validity = keystore.open(key), Validity(0, 90 * DAY)
    top, end = (
        x509.load_der_x509_certificate(certificates.issue(subject, root, signer, validity, 0))
        for subject in (root, leaf)
    )
    basic = top.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    # Nobody whom it issues for issues for others.
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    usage = top.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not usage.digital_signature
    with pytest.raises(x509.ExtensionNotFound):
        end.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = end.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
