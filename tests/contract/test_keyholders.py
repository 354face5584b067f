"""What every keyholder promises, whether its keys are in software or in a token."""

import asyncio
import hashlib
import os
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from privyseal.verify import schemes
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.importing import ImportTarget, seal
from privyseal.verify.keys import load_public_key, public_key_sha256
from privyseal.verify.statement import PAYLOAD_TYPE, Statement, pae
from privyseald.keyholder import wire
from privyseald.keyholder.keystore import SoftwareKeystore, verify_message, verify_rsa_digest
from privyseald.keyholder.keystores import HsmSettings
from privyseald.keyholder.schemes import SIGN
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.keyholder.v1 import keyholder_pb2 as kpb
from privyseald.model.errors import FailedPrecondition, InvalidArgument, Unavailable
from privyseald.model.schemes import (
    ALGORITHMS,
    Algorithm,
    KeyIdentity,
    KeyPlace,
    Scheme,
    WrappedKey,
)

from tests import opencryptoki, spy
from tests.conftest import custodian
from tests.opencryptoki import OpenCryptoki
from tests.softhsm import SoftHsm

STATEMENT = Statement(
    app="a",
    version="1",
    counter=1,
    bundle_sha256=b"b" * 32,
    bundle_length=10,
    manifest_sha256=b"m" * 32,
    native_ranges=(),
    source_commit="",
    signed_at=1,
    log_origin="log",
)
EXPO = Expo(
    (
        ExpoUpdate("android", "1.0.0", "index.hbc", b"l" * 32, ()),
        ExpoUpdate(
            *("ios", "1.0.0", "ios.hbc", b"i" * 32),
            (ExpoAsset("assets/a", "image/png", ".png", b"a" * 32),),
        ),
    )
)
WHOLE = replace(STATEMENT, bundle_blake2b=b"k" * 64, codepush_sha256=b"c" * 32, expo=EXPO)
BUNDLE_SCHEMES = [s for s in SIGN if s is not Scheme.STATEMENT_V1]
STATEMENT_ALGORITHMS = [Algorithm.ED25519, Algorithm.P256, Algorithm.RSA_2048]


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    return SoftHsm(tmp_path_factory.mktemp("softhsm"))


# What each place declares that it does not do; everything else it must.
DECLARED = {
    "software": set(),
    "softhsm": {Algorithm.ML_DSA_65},
    "opencryptoki": {Algorithm.ML_DSA_65, Algorithm.P256, Algorithm.ED25519},
}


@pytest.fixture(scope="module", params=DECLARED)
def keyholder(request, softhsm, tmp_path_factory):
    """Run coroutines with a keyholder, and say where new keys go."""
    folder = tmp_path_factory.mktemp(request.param)
    token = other = None
    if request.param == "softhsm":
        os.environ.update(softhsm.env)
        token = HsmSettings(
            softhsm.module, softhsm.label, str(folder), pin_file=str(softhsm.pin_file)
        )
    if request.param == "opencryptoki":
        other = OpenCryptoki(folder)
        os.environ.update(spy.environment(opencryptoki.MODULE, folder / "spy.txt"))
        token = HsmSettings(spy.spy(), other.label, str(folder), pin_file=str(other.pin_file))
    place = KeyPlace(token=token is not None)

    def run(scenario):
        async def with_pool():
            pool = KeyholderPool(source, 1, token=token is not None)
            pool.folder, pool.declared = folder, DECLARED[request.param]
            await pool.start()
            try:
                return await scenario(pool, place)
            finally:
                await pool.stop()

        return asyncio.run(with_pool())

    with custodian(folder, token) as source:
        yield run
    if other is not None:
        other.close()
    for name in ("SOFTHSM2_CONF", "PKCS11SPY", "PKCS11SPY_OUTPUT"):
        os.environ.pop(name, None)


async def make(pool, place, named):
    """Make a key where it should go; what a token declares not to do, it refuses in words."""
    if place.token and named.algorithm in pool.declared:
        with pytest.raises(FailedPrecondition, match=r"in software only|the token has no"):
            await pool.generate(named, place)
        place = KeyPlace()
    return await pool.generate(named, place)


def identity(scheme, algorithm, app="a"):
    return KeyIdentity(app, str(scheme), 1, scheme, algorithm)


@pytest.mark.parametrize("algorithm", STATEMENT_ALGORITHMS)
def test_a_release_is_signed_and_verifies(keyholder, algorithm):
    async def scenario(pool, place):
        statement = await make(pool, place, identity(Scheme.STATEMENT_V1, algorithm))
        scheme = await make(pool, place, identity(Scheme.CAPAWESOME_V1, Algorithm.RSA_2048))
        signed = await pool.sign_release(STATEMENT, statement.wrapped, [scheme.wrapped])
        return statement, scheme, *signed

    statement, scheme, payload, signatures = keyholder(scenario)
    assert payload == STATEMENT.build()
    public = load_public_key(statement.public_key)
    verify_message(public, signatures[0], pae(PAYLOAD_TYPE, payload))
    verify_rsa_digest(load_public_key(scheme.public_key), signatures[1], b"b" * 32)
    with pytest.raises(InvalidSignature):
        verify_message(public, signatures[0], payload)


@pytest.mark.parametrize("scheme", BUNDLE_SCHEMES)
def test_each_scheme_signs_what_its_verifier_verifies(keyholder, scheme):
    async def scenario(pool, place):
        statement = await make(pool, place, identity(Scheme.STATEMENT_V1, Algorithm.ED25519))
        key = await make(pool, place, identity(scheme, ALGORITHMS[scheme][0]))
        return key, *await pool.sign_release(WHOLE, statement.wrapped, [key.wrapped])

    key, payload, (_, signature) = keyholder(scenario)
    public = load_public_key(key.public_key)
    schemes.verify(scheme, public, signature, WHOLE, payload)
    changed = replace(
        WHOLE, bundle_sha256=b"x" * 32, bundle_blake2b=b"x" * 64, codepush_sha256=b"x" * 32
    )
    with pytest.raises(VerificationError):
        schemes.verify(scheme, public, signature, changed, changed.build())
    for other in set(BUNDLE_SCHEMES) - {scheme}:
        with pytest.raises(VerificationError):
            schemes.verify(other, public, signature, WHOLE, payload)


@pytest.mark.parametrize("scheme", [s for s in BUNDLE_SCHEMES if ALGORITHMS[s][0].rsa_bits])
def test_no_digest_info_passes_for_a_digest(keyholder, scheme):
    """A DigestInfo of 51 bytes, signed bare, would be a signature of another scheme."""
    info = bytes.fromhex("3031300d060960864801650304020105000420") + b"b" * 32

    async def scenario(pool, place):
        statement = await make(pool, place, identity(Scheme.STATEMENT_V1, Algorithm.ED25519))
        key = await make(pool, place, identity(scheme, ALGORITHMS[scheme][0]))
        for field in ("bundle_sha256", "codepush_sha256", "manifest_sha256", "bundle_blake2b"):
            for value in (info, b"b" * 31, b"b" * 33, b"b" * 65):
                content = replace(WHOLE, **{field: value})
                with pytest.raises(FailedPrecondition):
                    await pool.sign_release(content, statement.wrapped, [key.wrapped])

    keyholder(scenario)


async def pieces(archive, size=1000):
    for at in range(0, len(archive), size):
        yield archive[at : at + size]


def test_an_archive_is_signed_as_it_is(keyholder):
    archive = os.urandom(3_000_000)
    content = replace(
        STATEMENT, bundle_sha256=hashlib.sha256(archive).digest(), bundle_length=len(archive)
    )

    async def scenario(pool, place):
        key = await make(pool, place, identity(Scheme.SPARKLE_ED25519, Algorithm.ED25519))
        stranger = await pool.generate(
            identity(Scheme.SPARKLE_ED25519, Algorithm.ED25519, "b"), KeyPlace()
        )
        other = await pool.generate(identity(Scheme.MINISIGN, Algorithm.ED25519), KeyPlace())

        async def sign(content, *keys, data=archive):
            wrapped = [k.wrapped for k in keys]
            return await pool.sign_archive(content, wrapped, pieces(data, 500_000))

        for bad in (archive[:-1], archive + b"x", b"x" * len(archive), b""):
            with pytest.raises(InvalidArgument, match="not the one that was signed"):
                await sign(content, key, data=bad)

        async def endless():
            while True:
                yield bytes(500_000)

        with pytest.raises(InvalidArgument, match="not the one that was signed"):
            await asyncio.wait_for(pool.sign_archive(content, [key.wrapped], endless()), 10)
        for wrong in (stranger, other):
            with pytest.raises(FailedPrecondition):
                await sign(content, key, wrong)
        # The keyholder itself compares, whatever the daemon thinks.
        for changed in (replace(content, bundle_sha256=b"x" * 32), content):
            call = kpb.SignArchive(
                content=wire.content_to_wire(changed), key=wire.key_to_wire(key.wrapped)
            )
            with pytest.raises(FailedPrecondition):
                await pool._call(kpb.Request(sign_archive=call))
        # Not together with the others, which have the digest alone.
        statement = await pool.generate(
            identity(Scheme.STATEMENT_V1, Algorithm.ED25519), KeyPlace()
        )
        with pytest.raises(FailedPrecondition):
            await pool.sign_release(STATEMENT, statement.wrapped, [key.wrapped])
        return key, await sign(content, key)

    key, (signature,) = keyholder(scenario)
    public = load_public_key(key.public_key)
    public.verify(signature, archive)
    schemes.verify_archive("sparkle-ed25519", public, signature, archive)
    with pytest.raises(VerificationError):
        schemes.verify_archive("sparkle-ed25519", public, signature, archive + b"x")


def test_a_token_key_that_was_made_here_is_never_adopted(softhsm, tmp_path):
    """What signs raw bytes for one key would sign anything for the other, also by the same name."""
    os.environ.update(softhsm.env)
    token = HsmSettings(
        softhsm.module, softhsm.label, str(tmp_path), pin_file=str(softhsm.pin_file)
    )
    victim = identity(Scheme.STATEMENT_V1, Algorithm.ED25519, "victim")

    async def scenario():
        pool = KeyholderPool(source, 1, token=True)
        await pool.start()
        try:
            await pool.generate(victim, KeyPlace(token=True))
            address = f"pkcs11:object={victim.name}"
            minisign = replace(victim, scheme=Scheme.MINISIGN)
            evil = identity(Scheme.STATEMENT_V1, Algorithm.ED25519, "evil")
            for taken in (victim, minisign, evil, replace(evil, scheme=Scheme.MINISIGN)):
                with pytest.raises(FailedPrecondition, match="was made here"):
                    await pool.generate(taken, KeyPlace(token=True, uri=address))
            archive = replace(victim, scheme=Scheme.SPARKLE_ED25519)
            with pytest.raises(FailedPrecondition, match="is not taken for this"):
                await pool.generate(archive, KeyPlace(token=True, uri=address))
            log = identity(Scheme.STATEMENT_V1, Algorithm.ED25519, "_log")
            with pytest.raises(FailedPrecondition, match="log's key"):
                await pool.generate(log, KeyPlace(token=True, uri="pkcs11:object=corporate"))
        finally:
            await pool.stop()

    with custodian(tmp_path, token) as source:
        asyncio.run(scenario())


def test_a_key_is_bound_to_its_app_scheme_and_version(keyholder):
    async def scenario(pool, place):
        made = await make(pool, place, identity(Scheme.STATEMENT_V1, Algorithm.ED25519))
        scheme = await make(pool, place, identity(Scheme.CAPAWESOME_V1, Algorithm.RSA_2048))
        other = await make(pool, place, identity(Scheme.STATEMENT_V1, Algorithm.ED25519, "b"))
        key = made.wrapped
        bad = {
            "another app's key": (other.wrapped, []),
            "another scheme's key": (scheme.wrapped, []),
            "a statement key as a scheme's": (key, [key]),
            "another app's name on the row": (
                WrappedKey(replace(other.wrapped.identity, app="a"), other.wrapped.blob),
                [],
            ),
            "another version": (WrappedKey(replace(key.identity, version=2), key.blob), []),
            "another key's blob": (WrappedKey(key.identity, other.wrapped.blob), []),
            "a changed blob": (WrappedKey(key.identity, key.blob[:-1] + b"\0"), []),
            "another format": (
                WrappedKey(key.identity, bytes([3 - key.blob[0]]) + key.blob[1:]),
                [],
            ),
            "no blob": (WrappedKey(key.identity, b""), []),
        }
        pids = dict(pool.pids)
        for name, (statement_key, scheme_keys) in bad.items():
            with pytest.raises(FailedPrecondition):
                assert not await pool.sign_release(STATEMENT, statement_key, scheme_keys), name
        for changed in (
            {"bundle_sha256": b"b" * 33},
            {"bundle_sha256": b"b" * 31},
            {"manifest_sha256": b""},
            {"bundle_length": 0},
            {"counter": 0},
            {"app": "c"},
        ):
            with pytest.raises(FailedPrecondition):
                await pool.sign_release(replace(STATEMENT, **changed), key, [])
        assert (await pool.sign_release(STATEMENT, key, []))[1]
        assert pool.pids == pids, "refused, and not died of"

    keyholder(scenario)


def test_a_key_of_a_killed_process_signs_in_the_next(keyholder):
    async def scenario(pool, place):
        made = await make(pool, place, identity(Scheme.STATEMENT_V1, Algorithm.P256))
        os.kill(pool.pids[0], 9)
        for _ in range(100):
            try:
                return await pool.sign_release(STATEMENT, made.wrapped, [])
            except Unavailable:
                await asyncio.sleep(0.1)
        raise AssertionError("the keyholder did not come back")

    assert keyholder(scenario)[1]


def test_a_scheme_does_not_take_a_key_it_cannot_use(keyholder):
    async def scenario(pool, place):
        with pytest.raises(FailedPrecondition):
            await pool.generate(identity(Scheme.CAPAWESOME_V1, Algorithm.ED25519), place)

    keyholder(scenario)


def test_a_token_key_needs_a_token(tmp_path):
    async def scenario():
        pool = KeyholderPool(source, 1)
        await pool.start()
        try:
            with pytest.raises(FailedPrecondition, match="no \\[hsm\\] settings"):
                await pool.generate(
                    identity(Scheme.STATEMENT_V1, Algorithm.P256), KeyPlace(token=True)
                )
        finally:
            await pool.stop()

    with custodian(tmp_path) as source:
        asyncio.run(scenario())


PEM_ENCODING = (serialization.Encoding.DER, serialization.PrivateFormat.PKCS8)


def existing(algorithm):
    """Return a private key as PKCS #8 DER, and its public key."""
    if algorithm.rsa_bits:
        key = rsa.generate_private_key(65537, algorithm.rsa_bits)
    elif algorithm is Algorithm.P256:
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(*PEM_ENCODING, serialization.NoEncryption()), key.public_key()


def target_of(named):
    return ImportTarget(
        named.app, named.key, named.scheme, named.algorithm, named.public_key_sha256
    )


@pytest.mark.parametrize("algorithm", STATEMENT_ALGORITHMS)
def test_an_existing_key_is_imported_and_signs(keyholder, algorithm):
    pkcs8, public = existing(algorithm)
    named = replace(
        identity(Scheme.STATEMENT_V1, algorithm), public_key_sha256=public_key_sha256(public)
    )
    other_pkcs8, _ = existing(algorithm)

    async def scenario(pool, place):
        import_key = SoftwareKeystore((pool.folder / "kek").read_bytes()).import_key
        open_key = import_key.public_key().public_bytes_raw()

        def take(named, sealed):
            return pool.import_key(named, sealed, token=place.token)

        sealed = seal(pkcs8, target_of(named), open_key)
        assert pkcs8[-24:] not in sealed
        bad = {
            "for another app": (replace(named, app="b"), sealed),
            "for another key": (replace(named, key="other"), sealed),
            "for another digest": (replace(named, public_key_sha256=b"x" * 32), sealed),
            "changed": (named, sealed[:-1] + bytes([sealed[-1] ^ 1])),
            "nothing": (named, b""),
            "another private key": (named, seal(other_pkcs8, target_of(named), open_key)),
            "no private key": (named, seal(b"hello" * 20, target_of(named), open_key)),
            "for another keyholder": (
                named,
                seal(
                    pkcs8,
                    target_of(named),
                    SoftwareKeystore(os.urandom(32)).import_key.public_key().public_bytes_raw(),
                ),
            ),
        }
        wrong = replace(named, algorithm=next(a for a in STATEMENT_ALGORITHMS if a != algorithm))
        bad["another algorithm"] = (wrong, seal(pkcs8, target_of(wrong), open_key))
        for name, arguments in bad.items():
            with pytest.raises(FailedPrecondition):
                assert not await take(*arguments), name
        if place.token and algorithm in pool.declared:
            with pytest.raises(FailedPrecondition, match="the token has no"):
                await take(named, sealed)
            made = await pool.import_key(named, sealed, token=False)
        else:
            made = await take(named, sealed)
        assert made.protection["origin"] == "imported"
        return made, *await pool.sign_release(STATEMENT, made.wrapped, [])

    made, payload, (signature,) = keyholder(scenario)
    verify_message(public, signature, pae(PAYLOAD_TYPE, payload))
    assert made.wrapped.identity == named
