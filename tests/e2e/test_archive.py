"""Archives that are signed as they are: what comes in, and what is refused."""

import asyncio
import hashlib
import threading
import time
import uuid
from pathlib import Path

import grpc
import pytest
from privyseal.connection import Connection, Profile, load_profile
from privyseal.errors import ClientError
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import release_service_pb2 as release_pb
from privyseal.v1 import signing_service_pb2 as pb
from privyseal.v1 import types_pb2
from privyseal.verify import schemes
from privyseal.verify.keys import load_public_key
from privyseal.verify.note import NoteVerifier
from privyseal.verify.receipt import verify_receipt
from privyseald.adapters.spool import FileSpool
from privyseald.model.errors import InvalidArgument, ResourceExhausted, Unavailable
from privyseald.rpc import signing_servicer

ARCHIVE = bytes(range(256)) * 8000


@pytest.fixture(scope="module")
def to(daemon):
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as connection:
        yield connection


def make_app(daemon, to, scheme=types_pb2.SCHEME_SPARKLE_ED25519):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app)
    if scheme:
        to.call(to.keys.CreateKey, key_pb.CreateKeyRequest(parent=f"apps/{app}", scheme=scheme))
    return app


def release(app, archive=ARCHIVE, version="1"):
    return pb.SignReleaseRequest(
        parent=f"apps/{app}",
        version=version,
        bundle_sha256=hashlib.sha256(archive).digest(),
        bundle_length=len(archive),
        manifest_sha256=b"m" * 32,
    )


def messages(request, archive=ARCHIVE, size=100_000):
    yield pb.SignArchiveRequest(release=request)
    for at in range(0, len(archive), size):
        yield pb.SignArchiveRequest(piece=archive[at : at + size])


def send(to, request, archive=ARCHIVE, size=100_000):
    wanted = pb.SignReleaseRequest()
    wanted.CopyFrom(request)
    return to.send(to.signing.SignArchive, wanted, messages(wanted, archive, size), 60)


def test_the_receipt_gets_the_archives_signature_and_the_log_tells(daemon, to):
    app = make_app(daemon, to)
    request = release(app)
    signed = to.call(to.signing.SignRelease, request)
    assert signed.archive_wanted
    assert len(signed.signatures) == 1

    made = send(to, request)

    (signature,) = made.signatures
    log = NoteVerifier.parse((daemon.data / "log.vkey").read_text())
    receipt = verify_receipt(made.receipt, log=log)
    found = receipt.signature("sparkle-ed25519")
    key = load_public_key(found.public_key)
    schemes.verify_archive("sparkle-ed25519", key, found.signature, ARCHIVE)
    assert signature.signature == found.signature
    assert signature.key_version == f"apps/{app}/keys/sparkle-ed25519/versions/1"
    assert receipt.leaf["signatures"][-1]["keyVersion"] == signature.key_version
    again = send(to, request, b"nothing of it is needed")
    assert (len(again.signatures), again.receipt) == (0, made.receipt)
    request.request_id = ""
    assert not to.call(to.signing.SignRelease, request).archive_wanted


def test_the_same_request_id_asks_for_one_thing(daemon, to):
    app = make_app(daemon, to)
    request = release(app)
    to.call(to.signing.SignRelease, request)
    with pytest.raises(grpc.RpcError) as error:
        to.signing.SignArchive(messages(request), metadata=to._metadata, timeout=30)
    assert error.value.code() is grpc.StatusCode.ALREADY_EXISTS
    wanted = release(app)
    wanted.request_id = str(uuid.uuid4())
    first, second = (
        to.signing.SignArchive(messages(wanted), metadata=to._metadata, timeout=30)
        for _ in range(2)
    )
    assert first.signatures
    assert first == second


BAD = {
    "another archive": ({"archive": ARCHIVE[:-1] + b"x"}, "not the one that was signed"),
    "a shorter one": ({"archive": ARCHIVE[:-1]}, "not the one that was signed"),
    "a longer one": ({"archive": ARCHIVE + b"x"}, "not the one that was signed"),
    "nothing": ({"archive": b""}, "not the one that was signed"),
    "too much at once": ({"size": 600_000}, "must be 1 to 524,288 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_the_archive_is_refused(daemon, to, what):
    app = make_app(daemon, to)
    request = release(app)
    to.call(to.signing.SignRelease, request)
    given, message = BAD[what]
    with pytest.raises(ClientError, match=message):
        send(to, request, **given)
    assert send(to, request).signatures, "and the archive itself is signed after all"


def test_what_was_not_signed_or_otherwise_has_no_archive(daemon, to):
    app = make_app(daemon, to)
    with pytest.raises(ClientError, match="call SignRelease first"):
        send(to, release(app))
    to.call(to.signing.SignRelease, release(app))
    with pytest.raises(ClientError, match="is not what was signed under this version"):
        send(to, release(app, b"another"), b"another")
    with pytest.raises(ClientError, match="is not signed yet"):
        send(to, release("nobody"))
    plain = make_app(daemon, to, 0)
    assert not to.call(to.signing.SignRelease, release(plain)).archive_wanted
    with pytest.raises(ClientError, match="has no key that signs archives"):
        send(to, release(plain))


def test_a_stream_begins_with_the_release_and_its_caller_has_the_right(daemon, to):
    app = make_app(daemon, to)
    to.call(to.signing.SignRelease, release(app))
    for stream in ([], [pb.SignArchiveRequest(piece=b"x")], [pb.SignArchiveRequest()]):
        with pytest.raises(grpc.RpcError) as error:
            to.signing.SignArchive(iter(stream), metadata=to._metadata, timeout=30)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    given = daemon.token(app, "releaser")
    profile = Profile(daemon.tokens, Path(given["PRIVYSEAL_CA"]), token=given["PRIVYSEAL_TOKEN"])
    with Connection(profile) as other, pytest.raises(ClientError, match="has no grant"):
        send(other, release(app))


def test_a_suspended_key_signs_no_archive(daemon, to):
    app = make_app(daemon, to)
    to.call(to.signing.SignRelease, release(app))
    name = f"apps/{app}/keys/sparkle-ed25519/versions/1"
    daemon.ok("key", "suspend", name, "--reason", "test")
    with pytest.raises(ClientError, match="is not active"):
        send(to, release(app))
    daemon.ok("key", "resume", name, "--reason", "test")
    assert send(to, release(app)).signatures


def test_a_stream_that_stands_still_ends(monkeypatch):
    async def still():
        yield pb.SignArchiveRequest(piece=b"x")
        await asyncio.sleep(60)

    async def read():
        return [piece async for piece in signing_servicer._pieces(still())]

    monkeypatch.setattr(signing_servicer, "PIECE_WAIT", 0.05)
    with pytest.raises(Unavailable, match="nothing came of the archive"):
        asyncio.run(read())


def test_a_withdrawn_release_has_no_archive_any_more(daemon, to):
    app = make_app(daemon, to)
    to.call(to.signing.SignRelease, release(app))
    register = release_pb.RegisterReleaseRequest(
        parent=f"apps/{app}",
        version="1",
        artifact_url="https://cdn.example/x.zip",
        artifact_type=release_pb.ARTIFACT_TYPE_ZIP,
    )
    made = to.call(to.releases.RegisterRelease, register).release
    withdraw = release_pb.WithdrawReleaseRequest(name=made.name, reason="test")
    to.call(to.releases.WithdrawRelease, withdraw)
    with pytest.raises(ClientError, match="was withdrawn"):
        send(to, release(app))


def test_the_spool_has_so_many_slots_and_keeps_nothing(tmp_path):
    spool = FileSpool(tmp_path, slots=1)

    async def pieces(*given):
        for piece in given:
            yield piece

    async def scenario():
        async with spool.hold(pieces(b"ab", b"c"), 3) as archive:
            assert b"".join([piece async for piece in archive]) == b"abc"
            with pytest.raises(ResourceExhausted):
                async with spool.hold(pieces(b"x"), 1):
                    pass
        with pytest.raises(InvalidArgument):
            async with spool.hold(pieces(b"ab", b"cd"), 3):
                pass
        async with spool.hold(pieces(), 3) as archive:
            assert [piece async for piece in archive] == []

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_who_sends_nothing_keeps_nobody_waiting_for_long(daemon, to):
    """The next archive waits for its turn, which a stream that stands still loses."""
    app = make_app(daemon, to)
    to.call(to.signing.SignRelease, release(app))
    stands = threading.Event()
    wanted = release(app)
    wanted.request_id = str(uuid.uuid4())

    def stream():
        yield pb.SignArchiveRequest(release=wanted)
        yield pb.SignArchiveRequest(piece=ARCHIVE[:1000])
        stands.wait(60)

    still = to.signing.SignArchive.future(stream(), metadata=to._metadata, timeout=50)
    try:
        began = time.monotonic()
        assert send(to, release(app)).signatures
        assert time.monotonic() - began < 45
        with pytest.raises(grpc.RpcError) as error:
            still.result()
        assert "nothing came of the archive" in error.value.details()
    finally:
        stands.set()
