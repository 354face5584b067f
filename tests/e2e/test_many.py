"""Many releases in one call, and in a stream."""

import asyncio
import os
import uuid

import grpc
import pytest
from google.rpc import code_pb2
from privyseal.v1 import signing_service_pb2 as pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc
from privyseal.verify.note import NoteVerifier
from privyseal.verify.receipt import verify_receipt


@pytest.fixture
def app(daemon, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    return app


def release(app, version, **changes):
    values = {
        "parent": f"apps/{app}",
        "version": version,
        "bundle_sha256": os.urandom(32),
        "bundle_length": 1,
        "manifest_sha256": b"m" * 32,
        "request_id": str(uuid.uuid4()),
    }
    return pb.SignReleaseRequest(**{**values, **changes})


def with_stub(daemon, scenario, token=None):
    """Run a coroutine with the signing service, as the admin or with an API token."""

    async def run():
        ca = (daemon.data / "tls/ca.pem").read_bytes()
        admin = daemon.data / "admin"
        if token:
            credentials = grpc.composite_channel_credentials(
                grpc.ssl_channel_credentials(ca), grpc.access_token_call_credentials(token)
            )
            port = daemon.ports[0]
        else:
            pair = ((admin / name).read_bytes() for name in ("client.key", "client.pem"))
            credentials = grpc.ssl_channel_credentials(ca, *pair)
            port = daemon.ports[1]
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as to:
            return await scenario(signing_grpc.SigningServiceStub(to))

    return asyncio.run(run())


def check(daemon, results):
    log = NoteVerifier.parse((daemon.data / "log.vkey").read_text())
    return [verify_receipt(r.signed.receipt, log=log).statement.version for r in results]


def test_a_hundred_releases_are_signed_and_each_has_its_receipt(daemon, app):
    batch = pb.SignReleasesRequest(releases=[release(app, f"1.{n}") for n in range(100)])

    async def scenario(stub):
        first = await stub.SignReleases(batch)
        return first, await stub.SignReleases(batch)

    first, again = with_stub(daemon, scenario)

    assert check(daemon, first.results) == [f"1.{n}" for n in range(100)]
    assert [r.signed.counter for r in first.results] == [r.signed.counter for r in again.results]
    assert len({r.signed.counter for r in first.results}) == 100


def test_one_that_is_refused_keeps_no_other_from_being_signed(daemon, app):
    wrong = {
        1: release(app, "b", bundle_sha256=b"short"),
        3: release(app, "a"),
        4: release("not-there", "e"),
    }
    batch = [wrong.get(n) or release(app, "abcdef"[n]) for n in range(6)]

    async def scenario(stub):
        return await stub.SignReleases(pb.SignReleasesRequest(releases=batch))

    results = with_stub(daemon, scenario).results

    codes = {n: r.error.code for n, r in enumerate(results) if r.HasField("error")}
    assert codes[1] == code_pb2.INVALID_ARGUMENT
    assert "bundle_sha256" in results[1].error.message or "32 bytes" in results[1].error.message
    # Two of one version are one act too many; which of them is first is the store's to say.
    assert codes.get(3, codes.get(0)) in {code_pb2.ALREADY_EXISTS, code_pb2.UNAVAILABLE}
    assert codes[4] == code_pb2.NOT_FOUND
    assert check(daemon, [results[2], results[5]]) == ["c", "f"]


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_its_bounds(daemon, app, count):
    async def scenario(stub):
        batch = [release(app, str(n)) for n in range(count)]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.SignReleases(pb.SignReleasesRequest(releases=batch))
        return error.value

    error = with_stub(daemon, scenario)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1 to 100" in error.details()


def test_a_stream_answers_in_order_and_a_refusal_does_not_end_it(daemon, app):
    async def requests():
        for n in range(250):
            yield release(app, f"2.{n}", **({"bundle_length": 0} if n == 7 else {}))

    async def scenario(stub):
        return [result async for result in stub.StreamReleases(requests())]

    results = with_stub(daemon, scenario)

    assert results[7].error.code == code_pb2.INVALID_ARGUMENT
    signed = [r for r in results if r.HasField("signed")]
    assert check(daemon, signed) == [f"2.{n}" for n in range(250) if n != 7]


def test_a_stream_that_is_abandoned_leaves_the_daemon_as_it_was(daemon, app):
    async def endless():
        for n in range(100_000):
            yield release(app, f"3.{n}")

    async def scenario(stub):
        for _ in range(20):
            call = stub.StreamReleases(endless())
            async for _ in call:
                break
            call.cancel()
        return await stub.SignRelease(release(app, "last"), timeout=10)

    assert with_stub(daemon, scenario).counter
    assert "Traceback" not in daemon.log_text()


def test_a_revoked_token_signs_nothing_more_in_its_stream(daemon, app):
    token = daemon.token(app, "signer")
    signed, ten = [], asyncio.Event()

    async def requests():
        for n in range(10):
            yield release(app, f"4.{n}")
        await ten.wait()
        await asyncio.to_thread(daemon.ok, "access", "revoke-token", token["NAME"])
        for n in range(10, 200):
            yield release(app, f"4.{n}")

    async def scenario(stub):
        codes = []
        try:
            async for result in stub.StreamReleases(requests()):
                if result.HasField("signed"):
                    signed.append(result)
                    if len(signed) == 10:
                        ten.set()
                else:
                    codes.append(result.error.code)
        except grpc.aio.AioRpcError as error:
            # What gRPC's own client says if it was writing just when the server ended the stream.
            if error.details() != "Internal error from Core":
                codes.append(error.code().value[0])
        return codes

    codes = with_stub(daemon, scenario, token=token["PRIVYSEAL_TOKEN"])

    assert len(signed) == 10
    assert set(codes) <= {code_pb2.UNAUTHENTICATED}
