import dataclasses
import os
import pickle
import weakref

import pytest
from cryptography.exceptions import InvalidSignature
from privyseal.verify.keys import load_public_key, verify_signature
from privyseal.verify.statement import NativeRange, Statement
from privyseald.keyholder import wire
from privyseald.keyholder.keystore import KeyUnusableError, SoftwareKeystore
from privyseald.keyholder.keystores import Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.keyholder.worker import Worker
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme, WrappedKey

from tests.simulator import EXPO

KEK = os.urandom(32)


def identity(**changes):
    base = KeyIdentity("app-a", "statement-v1", 1, Scheme.STATEMENT_V1, Algorithm.ED25519)
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_each_algorithm_signs_and_survives_a_restart(algorithm):
    made = SoftwareKeystore(KEK).generate(identity(algorithm=algorithm))

    signature = SoftwareKeystore(KEK).open(made.wrapped).sign(b"message")

    verify_signature(load_public_key(made.public_key), signature, b"message")


@pytest.mark.parametrize(
    "change",
    [
        {"app": "app-b"},
        {"key": "other"},
        {"version": 2},
        {"scheme": Scheme.CAPAWESOME_V1},
        {"algorithm": Algorithm.P256},
        {"public_key_sha256": b"\x00" * 32},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_blob_on_another_row_does_not_open(change):
    store = SoftwareKeystore(KEK)
    made = store.generate(identity()).wrapped
    store.open(made)

    with pytest.raises(KeyUnusableError):
        store.open(WrappedKey(dataclasses.replace(made.identity, **change), made.blob))


def test_any_changed_byte_is_noticed():
    made = SoftwareKeystore(KEK).generate(identity()).wrapped
    for position in range(len(made.blob)):
        blob = bytearray(made.blob)
        blob[position] ^= 1
        with pytest.raises(KeyUnusableError):
            SoftwareKeystore(KEK).open(WrappedKey(made.identity, bytes(blob)))


def test_another_key_encryption_key_does_not_open_it():
    made = SoftwareKeystore(KEK).generate(identity()).wrapped
    with pytest.raises(KeyUnusableError):
        SoftwareKeystore(os.urandom(32)).open(made)


def test_a_loaded_key_shows_and_gives_nothing():
    store = SoftwareKeystore(KEK)
    loaded = store.open(store.generate(identity()).wrapped)
    assert repr(loaded) == "<LoadedKey>"
    with pytest.raises(TypeError):
        pickle.dumps(loaded)


def sign(worker, key, *scheme_keys, **changes):
    content = Statement("app-a", "1", 1, b"1" * 32, 5, b"2" * 32, (), "", 1, "log")
    call = pb.SignRelease(
        content=wire.content_to_wire(dataclasses.replace(content, **changes)),
        statement_key=wire.key_to_wire(key),
        scheme_keys=[wire.key_to_wire(k) for k in scheme_keys],
    )
    return worker.answer(pb.Request(id=7, sign_release=call))


def test_the_keyholder_itself_refuses_what_it_must_not_sign():
    store = SoftwareKeystore(KEK)
    worker = Worker(store)
    own = store.generate(identity()).wrapped
    foreign = store.generate(identity(app="app-b")).wrapped
    rsa = store.generate(
        identity(key="c", scheme=Scheme.CAPAWESOME_V1, algorithm=Algorithm.RSA_2048)
    ).wrapped

    assert sign(worker, own, rsa).WhichOneof("result") == "signed_release"
    for response in (
        sign(worker, foreign),
        sign(worker, rsa),
        sign(worker, own, own),
        sign(worker, own, bundle_sha256=b"1" * 31),
        sign(worker, own, bundle_sha256=b"1" * 51),
        sign(worker, own, manifest_sha256=b""),
        sign(worker, own, bundle_length=0),
        sign(worker, own, counter=0),
        worker.answer(pb.Request(id=7)),
        worker.answer(
            pb.Request(
                id=7,
                sign_checkpoint=pb.SignCheckpoint(
                    key=wire.key_to_wire(own), origin="log", size=1, root=b"1" * 32
                ),
            )
        ),
    ):
        assert response.id == 7
        assert response.failure.kind == pb.Failure.KIND_REFUSED


@pytest.mark.parametrize(
    "changed",
    [
        {"app": "x/y"},
        {"app": ""},
        {"app": "x\n"},
        {"key": "k/versions/1"},
        {"key": "K"},
        {"version": 0},
    ],
)
def test_no_key_is_made_under_a_name_that_could_be_read_as_another(changed):
    """Who takes over the daemon names them: a token's labels are made of the names."""
    worker = Worker(SoftwareKeystore(KEK))
    named = wire.identity_to_wire(identity(**changed))
    for call in (
        {"generate_key": pb.GenerateKey(identity=named)},
        {"import_key": pb.ImportKey(identity=named)},
    ):
        assert worker.answer(pb.Request(**call)).failure.kind == pb.Failure.KIND_REFUSED


def test_the_logs_key_signs_no_release():
    from privyseald.keyholder.worker import LOG_APP

    store = SoftwareKeystore(KEK)
    key = store.generate(identity(app=LOG_APP)).wrapped
    told = sign(Worker(store), key, app=LOG_APP).failure
    assert told.kind == pb.Failure.KIND_REFUSED


def test_no_caller_can_create_the_app_that_the_logs_key_belongs_to():
    from privyseald.keyholder.worker import LOG_APP
    from privyseald.model import fields
    from privyseald.model.errors import InvalidArgument

    with pytest.raises(InvalidArgument):
        fields.app_id(LOG_APP)


@pytest.mark.parametrize("length", [0, 1, 15, 17, 31, 33, 51, 256])
def test_bare_rsa_signs_a_digest_or_a_session_key_and_nothing_else(length):
    """51 bytes are a DigestInfo of SHA-256: signed bare, a signature of any message."""
    key = SoftwareKeystore(KEK).generate(
        identity(scheme=Scheme.CAPGO_V2, algorithm=Algorithm.RSA_2048)
    )
    opened = SoftwareKeystore(KEK).open(key.wrapped)
    assert opened.sign_rsa_bare(b"d" * 32)
    assert opened.sign_rsa_bare(b"k" * 16)
    with pytest.raises(KeyUnusableError, match="only 16 or 32 bytes"):
        opened.sign_rsa_bare(b"x" * length)


def test_a_key_that_signs_wrongly_is_not_opened(monkeypatch):
    """A trial signature tells when a key is loaded, and not first when a release waits."""
    store = SoftwareKeystore(KEK)
    made = store.generate(identity(algorithm=Algorithm.P256))

    def fail(*_):
        raise InvalidSignature

    with monkeypatch.context() as broken:
        broken.setattr("privyseald.keyholder.keystore.verify_message", fail)
        with pytest.raises(InvalidSignature):
            store.open(made.wrapped)
    assert store.open(made.wrapped).sign(b"message")


def test_a_destroyed_key_is_in_no_memory_any_more():
    store = SoftwareKeystore(KEK)
    made = store.generate(identity())
    loaded = weakref.ref(store.open(made.wrapped))
    assert store.open(made.wrapped) is loaded()
    Keystores(store).destroy(made.wrapped)
    assert loaded() is None


def test_all_of_a_release_goes_to_the_keyholder():
    """What the way there left out would be signed as if nobody had said it."""
    whole = Statement(
        app="a",
        version="1.2.3",
        counter=7,
        bundle_sha256=b"b" * 32,
        bundle_length=99,
        manifest_sha256=b"m" * 32,
        native_ranges=(NativeRange("android", "1", "2", "3"), NativeRange("ios", "4", "5", "6")),
        source_commit="abcdef1",
        signed_at=1_800_000_000,
        log_origin="example.com/log",
        bundle_blake2b=b"2" * 64,
        codepush_sha256=b"c" * 32,
        expo=EXPO,
    )
    empty = Statement("", "", 0, b"", 0, b"", (), "", 0, "")
    for field in dataclasses.fields(Statement):
        assert getattr(whole, field.name) != getattr(empty, field.name), "it says all"
    sent = wire.content_to_wire(whole).SerializeToString()
    assert wire.content_from_wire(pb.ReleaseContent.FromString(sent)) == whole
