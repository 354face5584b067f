"""What the keyholder itself refuses, whatever the daemon's own process asks: each rule alone."""

import hashlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from privyseal.verify import backup, expo, importing
from privyseal.verify.importing import ImportTarget, seal
from privyseal.verify.keys import spki_der
from privyseal.verify.statement import Statement
from privyseald.keyholder import wire
from privyseald.keyholder.keystore import SoftwareKeystore, _new_private_key
from privyseald.keyholder.keystores import Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.keyholder.worker import LOG_APP, Worker
from privyseald.model import fields
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme

STATEMENT = Statement(
    app="a",
    version="1",
    counter=1,
    bundle_sha256=hashlib.sha256(b"archive").digest(),
    bundle_length=7,
    manifest_sha256=bytes(32),
    native_ranges=(),
    source_commit="",
    signed_at=1_800_000_000,
    log_origin="log",
)


@pytest.fixture(scope="module")
def keeper():
    return Keeper()


class Keeper:
    """A worker with software keys, and the keys that tests take."""

    def __init__(self):
        self.software = SoftwareKeystore(bytes(32))
        self.worker = Worker(Keystores(self.software))
        self.log = self.key(LOG_APP, "checkpoint", 1, Scheme.STATEMENT_V1)
        self.statement = self.key("a", "statement-v1", 1, Scheme.STATEMENT_V1)
        self.sparkle = self.key("a", "sparkle-ed25519", 1, Scheme.SPARKLE_ED25519)

    def key(self, app, key, version, scheme, algorithm=Algorithm.ED25519):
        return self.software.generate(KeyIdentity(app, key, version, scheme, algorithm))

    def refuses(self, **call):
        """Ask, and return what the refusal says."""
        response = self.worker.answer(pb.Request(id=7, **call))
        assert response.WhichOneof("result") == "failure", response
        assert response.failure.kind == pb.Failure.KIND_REFUSED, response.failure
        return response.failure.message

    def does(self, **call):
        response = self.worker.answer(pb.Request(id=7, **call))
        assert response.WhichOneof("result") != "failure", response.failure
        return response


def of(made):
    return wire.key_to_wire(made.wrapped)


def imported(keeper, app, scheme, algorithm, private):
    spki = spki_der(private.public_key())
    pkcs8 = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    digest = hashlib.sha256(spki).digest()
    identity = KeyIdentity(app, "k", 1, scheme, algorithm, digest)
    target = ImportTarget(app, "k", scheme, algorithm, digest)
    public = keeper.software.import_key.public_key().public_bytes_raw()
    return pb.ImportKey(
        identity=wire.identity_to_wire(identity), sealed_private_key=seal(pkcs8, target, public)
    )


def test_no_key_of_the_logs_is_imported(keeper):
    private = _new_private_key(Algorithm.ED25519)
    call = imported(keeper, LOG_APP, Scheme.STATEMENT_V1, Algorithm.ED25519, private)
    assert "cannot use" in keeper.refuses(import_key=call)
    keeper.does(import_key=imported(keeper, "a", Scheme.MINISIGN, Algorithm.ED25519, private))


def test_no_key_is_imported_for_a_scheme_that_cannot_use_it(keeper):
    private = _new_private_key(Algorithm.P256)
    call = imported(keeper, "a", Scheme.MINISIGN, Algorithm.P256, private)
    assert "cannot use" in keeper.refuses(import_key=call)


@pytest.mark.parametrize("changed", ["app", "key", "scheme", "algorithm", "public_key_sha256"])
def test_what_was_sealed_for_one_key_opens_for_no_other(changed):
    private = Keeper().software.import_key
    public = private.public_key().public_bytes_raw()
    target = ImportTarget("a", "k", "minisign", "ed25519", bytes(32))
    other = replace(target, **{changed: bytes([1]) * 32 if "sha256" in changed else "other"})
    sealed = seal(b"key", target, public)
    assert importing.unseal(sealed, target, private) == b"key"
    with pytest.raises(importing.VerificationError):
        importing.unseal(sealed, other, private)


@pytest.mark.parametrize("origin", ["", "a\nb", "\n", backup.TITLE, importing.TITLE + " and more"])
@pytest.mark.parametrize("what", ["sign_checkpoint", "sign_import_key", "sign_backup"])
def test_no_note_of_the_log_passes_for_another(keeper, origin, what):
    call = {
        "sign_checkpoint": pb.SignCheckpoint(root=bytes(32), size=1),
        "sign_import_key": pb.SignImportKey(),
        "sign_backup": pb.SignBackup(sha256=bytes(32)),
    }[what]
    call.origin = origin
    call.key.CopyFrom(of(keeper.log))
    assert "name is malformed" in keeper.refuses(**{what: call})
    call.origin = "log"
    keeper.does(**{what: call})


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_root_is_a_digest(keeper, length):
    call = pb.SignCheckpoint(key=of(keeper.log), origin="log", size=1, root=bytes(length))
    assert "malformed" in keeper.refuses(sign_checkpoint=call)
    told = pb.SignBackup(key=of(keeper.log), origin="log", sha256=bytes(length))
    assert "not 32 bytes" in keeper.refuses(sign_backup=told)


def successor(old, new):
    return pb.SignSuccessor(
        key=of(old), new_key=of(new), new_public_key=new.public_key, time=1_800_000_000
    )


def test_a_key_vouches_for_a_later_version_of_its_own_alone(keeper):
    old = keeper.key("a", "minisign", 1, Scheme.MINISIGN)
    keeper.does(sign_successor=successor(old, keeper.key("a", "minisign", 2, Scheme.MINISIGN)))
    for other in (
        keeper.key("b", "minisign", 2, Scheme.MINISIGN),
        keeper.key("a", "other", 2, Scheme.MINISIGN),
        keeper.key("a", "minisign", 2, Scheme.STATEMENT_V1),
        keeper.key("a", "minisign", 1, Scheme.MINISIGN),
    ):
        assert "later version of the same key" in keeper.refuses(
            sign_successor=successor(old, other)
        )


def test_a_key_vouches_for_none_that_the_keyholder_did_not_make(keeper):
    """Whoever has the daemon has another's public key vouched for, under a name of its choice."""
    old = keeper.key("a", "minisign", 1, Scheme.MINISIGN)
    new = keeper.key("a", "minisign", 2, Scheme.MINISIGN)
    theirs = keeper.key("b", "minisign", 2, Scheme.MINISIGN)
    call = successor(old, new)
    call.new_public_key = theirs.public_key
    assert "not the new version's" in keeper.refuses(sign_successor=call)
    # With the name changed so that it fits, the key that is named does not open any more.
    call.new_key.identity.public_key_sha256 = hashlib.sha256(theirs.public_key).digest()
    response = keeper.worker.answer(pb.Request(id=7, sign_successor=call))
    assert response.failure.kind == pb.Failure.KIND_KEY_UNUSABLE
    call.new_public_key = b"no key at all"
    call.new_key.identity.public_key_sha256 = hashlib.sha256(call.new_public_key).digest()
    assert "malformed" in keeper.refuses(sign_successor=call)


def test_a_key_of_a_kind_that_its_scheme_cannot_use_signs_nothing(keeper):
    """Its wrapping is right; only no daemon makes such a key."""
    wrong = keeper.key("a", "capawesome-v1", 1, Scheme.CAPAWESOME_V1, Algorithm.ED25519)
    call = release(keeper, wrong)
    assert "cannot use this algorithm" in keeper.refuses(sign_release=call)


def test_the_logs_key_vouches_for_none_and_is_not_destroyed(keeper):
    next_one = keeper.key(LOG_APP, "checkpoint", 2, Scheme.STATEMENT_V1)
    assert "later version" in keeper.refuses(sign_successor=successor(keeper.log, next_one))
    told = keeper.refuses(destroy_key=pb.DestroyKey(key=of(keeper.log)))
    assert "not destroyed" in told


def release(keeper, *keys, content=STATEMENT):
    return pb.SignRelease(
        content=wire.content_to_wire(content),
        statement_key=of(keeper.statement),
        scheme_keys=[of(key) for key in keys],
    )


def test_a_release_is_signed_by_keys_of_its_app_alone(keeper):
    second = keeper.key("a", "statement-v1", 2, Scheme.STATEMENT_V1)
    keeper.does(sign_release=release(keeper, second))
    for stranger in (
        keeper.key("b", "statement-v1", 2, Scheme.STATEMENT_V1),
        keeper.key("b", "capawesome-v1", 1, Scheme.CAPAWESOME_V1, Algorithm.RSA_2048),
    ):
        assert "another app" in keeper.refuses(sign_release=release(keeper, stranger))


def test_a_statement_is_signed_by_versions_of_one_key_once_each(keeper):
    other = keeper.key("a", "another", 2, Scheme.STATEMENT_V1)
    for key in (other, keeper.statement):
        assert "versions of its own key" in keeper.refuses(sign_release=release(keeper, key))


@pytest.mark.parametrize("where", ["launch", "asset"])
def test_every_digest_of_expos_is_one(keeper, where):
    asset = expo.ExpoAsset("a.png", "image/png", ".png", bytes(31 if where == "asset" else 32))
    update = expo.ExpoUpdate(
        "android", "1", "a.hbc", bytes(33 if where == "launch" else 32), (asset,)
    )
    content = replace(STATEMENT, expo=expo.Expo((update,)))
    assert "Expo asset's digest" in keeper.refuses(sign_release=release(keeper, content=content))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"bundle_sha256": bytes(31)}, "not 32 bytes"),
        ({"manifest_sha256": bytes(33)}, "not 32 bytes"),
        ({"bundle_blake2b": bytes(63)}, "not 64 bytes"),
        ({"codepush_sha256": bytes(31)}, "not 32 bytes"),
        ({"bundle_length": 0}, "out of bounds"),
        ({"bundle_length": fields.MAX_BUNDLE + 1}, "out of bounds"),
        ({"counter": 0}, "out of bounds"),
        ({"app": LOG_APP}, "releases nothing"),
    ],
)
def test_content_out_of_bounds_is_not_signed(keeper, changed, says):
    content = replace(STATEMENT, **changed)
    assert says in keeper.refuses(sign_release=release(keeper, content=content))


def archive(keeper, data, content=STATEMENT, key=None):
    keeper.does(take_archive=pb.TakeArchive(first=True, piece=data))
    call = pb.SignArchive(content=wire.content_to_wire(content), key=of(key or keeper.sparkle))
    return {"sign_archive": call}


def test_an_archive_is_signed_if_it_is_the_releases_to_the_last_byte(keeper):
    keeper.does(**archive(keeper, b"archive"))
    for data in (b"archivE", b"archive!", b"archiv", b""):
        assert "is not the release's" in keeper.refuses(**archive(keeper, data))
    told = keeper.refuses(**archive(keeper, b"archive", key=keeper.statement))
    assert "signs no archive" in told
    stranger = keeper.key("b", "sparkle-ed25519", 1, Scheme.SPARKLE_ED25519)
    assert "another app" in keeper.refuses(**archive(keeper, b"archive", key=stranger))


def test_an_archive_is_so_long_at_most_and_forgotten_if_it_is_longer(keeper, monkeypatch):
    monkeypatch.setattr("privyseald.keyholder.worker.MAX_ARCHIVE", 10)
    keeper.does(take_archive=pb.TakeArchive(first=True, piece=b"archive"))
    assert "too long" in keeper.refuses(take_archive=pb.TakeArchive(piece=b"more"))
    call = pb.SignArchive(content=wire.content_to_wire(STATEMENT), key=of(keeper.sparkle))
    assert "is not the release's" in keeper.refuses(sign_archive=call)


def test_a_call_that_is_none_is_refused(keeper):
    assert "unknown call" in keeper.refuses()


@pytest.mark.parametrize("length", [wire.MAX_FRAME + 1, 2**32 - 1])
def test_a_frame_is_so_long_at_most(length):
    with pytest.raises(ValueError, match="too long"):
        wire.unframe(bytearray(wire.HEADER.pack(length)))
    with pytest.raises(ValueError, match="does not fit"):
        wire.frame(bytes(wire.MAX_FRAME + 1))
    whole = bytes(wire.MAX_FRAME)
    assert wire.unframe(bytearray(wire.frame(whole))) == [whole]


@pytest.mark.parametrize(
    ("app", "key", "scheme", "says"),
    [
        (LOG_APP, "checkpoint", Scheme.STATEMENT_V1, "made by its daemon"),
        ("a", "sparkle-ed25519", Scheme.SPARKLE_ED25519, "not taken for this"),
    ],
)
def test_what_signs_the_log_or_whole_archives_is_adopted_from_nowhere(
    keeper, app, key, scheme, says
):
    identity = KeyIdentity(app, key, 1, scheme, Algorithm.ED25519)
    call = pb.GenerateKey(identity=wire.identity_to_wire(identity), adopt_uri="pkcs11:object=x")
    assert says in keeper.refuses(generate_key=call)
