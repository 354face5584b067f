"""Credentials under attack and under load: each is worth what it should be, and no more."""

import asyncio
import os
import uuid
from collections import Counter

import grpc
import pytest
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import access_service_pb2_grpc as access_grpc
from privyseal.v1 import signing_service_pb2 as pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc

from tests.ci_systems import Issuer
from tests.conftest import Daemon

AUDIENCE = "https://privyseal.test"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    running = Issuer(tmp_path_factory.mktemp("issuer") / "ca")
    yield running
    running.close()


@pytest.fixture(scope="module")
def ci(tmp_path_factory, issuer):
    settings = f'audience = "{AUDIENCE}"\nprincipal_rate = 0\napp_rate = 0\n'
    settings += issuer.settings("github")
    running = Daemon(tmp_path_factory.mktemp("access") / "data", settings)
    running.init()
    running.start()
    yield running
    if running.process.poll() is None:
        running.stop()


def new_app(daemon, folder, app=""):
    app = app or "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", folder / f"{app}.pem")
    return app


def channel(daemon):
    ca = (daemon.data / "tls/ca.pem").read_bytes()
    # A connection of its own: a server takes only so many calls at once on each.
    options = [("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(daemon.tokens, grpc.ssl_channel_credentials(ca), options)


def bearer(secret):
    return (("authorization", f"Bearer {secret}"),)


def sign_request(app, digest=b"d" * 32):
    return pb.SignReleaseRequest(
        parent=f"apps/{app}",
        version=uuid.uuid4().hex,
        bundle_sha256=digest,
        bundle_length=1,
        manifest_sha256=b"m" * 32,
        request_id=str(uuid.uuid4()),
    )


async def exchange_many(daemons, token, app, times):
    """Use one token many times at once; return how often each outcome came."""
    outcomes = Counter()

    async def one(stub):
        request = access_pb.ExchangeTokenRequest(parent=f"apps/{app}", id_token=token)
        try:
            await stub.ExchangeToken(request, timeout=60)
            outcomes["session"] += 1
        except grpc.aio.AioRpcError as error:
            outcomes["used before" if "used before" in error.details() else error.details()] += 1

    channels = [channel(daemon) for daemon in daemons for _ in range(10)]
    stubs = [access_grpc.AccessServiceStub(to) for to in channels]
    await asyncio.gather(*(one(stubs[n % len(stubs)]) for n in range(times)))
    for to in channels:
        await to.close()
    return outcomes


def test_of_a_thousand_uses_of_one_token_one_succeeds(ci, issuer, tmp_path):
    app = new_app(ci, tmp_path)
    ci.ok(
        *("grant", "create", "--app-id", app, "--role", "signer", "--github-repository-id"),
        "456789",
    )
    twin = ci.twin()
    twin.start()
    try:
        token = issuer.token("github", AUDIENCE)
        outcomes = asyncio.run(exchange_many([ci], token, app, 1000))
        assert outcomes == {"session": 1, "used before": 999}

        both = issuer.token("github", AUDIENCE)
        outcomes = asyncio.run(exchange_many([ci, twin], both, app, 1000))
        assert outcomes == {"session": 1, "used before": 999}

        assert ci.stop() == 0
        ci.start()
        for used in (token, both):
            outcomes = asyncio.run(exchange_many([ci, twin], used, app, 20))
            assert outcomes == {"used before": 20}
    finally:
        twin.stop()
    # Whoever floods does not fill the log: what was left out is counted.
    refusals = [e for e in ci.entries() if e.get("reason") == "TOKEN_REPLAYED"]
    assert 100 < len(refusals) < 1000


def test_fifty_principals_on_fifty_apps_sign_on_the_diagonal_alone(ci, tmp_path):
    apps = [new_app(ci, tmp_path) for _ in range(50)]
    secrets = [ci.token(app, "signer")["PRIVYSEAL_TOKEN"] for app in apps]
    before = len(ci.entries())

    async def attempt(stub, secret, app):
        try:
            await stub.SignRelease(sign_request(app), metadata=bearer(secret), timeout=120)
        except grpc.aio.AioRpcError as error:
            return error.code() is not grpc.StatusCode.PERMISSION_DENIED and error
        return True

    async def all_pairs():
        room = asyncio.Semaphore(100)
        async with channel(ci) as to:
            stub = signing_grpc.SigningServiceStub(to)

            async def bounded(pair):
                async with room:
                    return await attempt(stub, *pair)

            return await asyncio.gather(*(bounded(pair) for pair in pairs))

    pairs = [(s, a) for s in secrets for a in apps]
    allowed = asyncio.run(all_pairs())

    diagonal = set(zip(secrets, apps, strict=True))
    assert set(allowed) == {True, False}
    assert {pair for pair, yes in zip(pairs, allowed, strict=True) if yes} == diagonal
    new = ci.entries()[before:]
    assert sum(e["act"] == "release.sign" for e in new) == 50
    refusals = [e for e in new if e["act"] == "refusal"]
    assert len(refusals) == 2450
    assert {e["reason"] for e in refusals} == {"NO_GRANT"}
    assert len({(e["principal"], e["resource"]) for e in refusals}) == 2450
    ci.ok("log", "verify", "--log-key", ci.data / "log.vkey")


async def revoke_under_load(daemon, app, tries):
    """Revoke the grant of a principal that signs all the time, again and again.

    Returns how many signatures arrived, and those that arrived of calls that began after
    the revocation had returned, or whose log entry stands behind the revocation's.
    """
    admin = daemon.data / "admin"
    parts = ("ca.pem", "client.key", "client.pem")
    credentials = grpc.ssl_channel_credentials(*((admin / p).read_bytes() for p in parts))
    port = daemon.ports[1]
    signed, late = 0, []
    async with (
        grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as officer,
        channel(daemon) as jobs,
    ):
        access = access_grpc.AccessServiceStub(officer)
        signing = signing_grpc.SigningServiceStub(jobs)
        made = await access.CreateToken(
            access_pb.CreateTokenRequest(
                display_name="load",
                roles=["ROLE_AUDITOR"],
                resource=f"apps/{app}",
                request_id=str(uuid.uuid4()),
            )
        )
        principal = "token:" + made.token.name.removeprefix("tokens/")
        metadata = bearer(made.secret)
        for _ in range(tries):
            grant = await access.CreateGrant(
                access_pb.CreateGrantRequest(
                    principal=principal,
                    role="ROLE_SIGNER",
                    resource=f"apps/{app}",
                    request_id=str(uuid.uuid4()),
                )
            )
            revoked = asyncio.Event()
            receipts = []

            async def sign(revoked=revoked, receipts=receipts):
                while True:
                    began_after = revoked.is_set()
                    try:
                        answer = await signing.SignRelease(
                            sign_request(app, os.urandom(32)), metadata=metadata, timeout=30
                        )
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                            raise
                        return
                    receipts.append((answer.receipt, began_after))

            load = [asyncio.create_task(sign()) for _ in range(4)]
            await asyncio.sleep(0.005 * (1 + os.urandom(1)[0] / 255))
            await access.RevokeGrant(
                access_pb.RevokeGrantRequest(name=grant.grant.name, request_id=str(uuid.uuid4()))
            )
            revoked.set()
            await asyncio.gather(*load)
            signed += len(receipts)
            late += [receipt for receipt, began_after in receipts if began_after]
    return signed, late


def check_revocations(daemon, tmp_path, tries):
    app = new_app(daemon, tmp_path)
    signed, late = asyncio.run(revoke_under_load(daemon, app, tries))
    assert late == []
    assert signed > tries, "there was load"
    # The log is the order of things: between a revocation and the next grant, no signature.
    may_sign, revocations = False, 0
    for entry in daemon.entries():
        if entry["act"] == "grant.create" and entry["resource"] == f"apps/{app}":
            may_sign = entry["role"] == "signer"
        elif entry["act"] == "grant.revoke":
            may_sign, revocations = False, revocations + 1
        elif entry["act"] == "release.sign" and entry["app"] == app:
            assert may_sign, entry
    assert revocations >= tries
    return signed


def test_nothing_is_signed_after_a_grant_was_revoked(ci, tmp_path):
    check_revocations(ci, tmp_path, 60)


@pytest.mark.long
def test_nothing_is_signed_after_a_grant_was_revoked_in_a_thousand_tries(ci, tmp_path):
    signed = check_revocations(ci, tmp_path, 1000)
    print(f"{signed:,} signatures around 1,000 revocations")
