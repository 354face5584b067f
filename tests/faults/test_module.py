"""A module that fails in each way that modules do: service is back when it does not any more."""

import subprocess
import time
import uuid
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from privyseal.connection import Connection, load_profile
from privyseal.v1 import signing_service_pb2 as pb

from tests.conftest import Daemon
from tests.interop.conftest import need
from tests.softhsm import SoftHsm


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A daemon on a token whose module fails as a file says; software and token apps."""
    need("gcc")
    folder = tmp_path_factory.mktemp("module")
    module, fault = folder / "module.so", folder / "fault"
    source = Path(__file__).with_name("module.c")
    flags = ("-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1")
    subprocess.run(["gcc", *flags, "-o", module, source, "-ldl"], check=True, timeout=60)
    softhsm = SoftHsm(folder / "softhsm")
    running = Daemon(folder / "data")
    running.settings += softhsm.settings().replace(softhsm.module, str(module))
    running.init()
    running.env |= softhsm.env
    # One process with the token: when it has failed twice, none that ever signed is left.
    running.env |= {"PRIVYSEALD_KEYHOLDERS": "1"}
    running.env |= {"PKCS11REAL": softhsm.module, "PKCS11FAULT": str(fault)}
    running.fault, running.softhsm = fault, softhsm
    running.start()
    running.ok("app", "create", "--app-id", "token", "--in-token")
    running.ok("app", "create", "--app-id", "software")
    yield running
    assert running.stop() == 0


@pytest.fixture
def sign(shared):
    with Connection(load_profile(str(shared.data / "admin/profile.toml"))) as to:

        def once(app):
            request = pb.SignReleaseRequest(
                parent=f"apps/{app}",
                version=uuid.uuid4().hex,
                bundle_sha256=b"b" * 32,
                bundle_length=1,
                manifest_sha256=b"m" * 32,
                request_id=str(uuid.uuid4()),
            )
            return to.signing.SignRelease(request, timeout=15)

        shared.fault.write_text("")
        yield once
        shared.fault.write_text("")


def serves(daemon, part):
    ca = (daemon.data / "tls/ca.pem").read_bytes()
    with grpc.secure_channel(daemon.tokens, grpc.ssl_channel_credentials(ca)) as channel:
        asked = health_pb2.HealthCheckRequest(service=part)
        return health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5).status == 1


def logins(daemon):
    return daemon.softhsm.spied.read_text(errors="replace")


@pytest.mark.parametrize("fault", ["device", "general", "closed", "logout", "hang"])
def test_service_is_back_when_the_fault_is_gone(shared, sign, fault):
    assert sign("token").signatures
    before = len(logins(shared))
    shared.fault.write_text(fault)
    told, slowest = set(), 0.0
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            sign("token")
        slowest = max(slowest, time.monotonic() - began)
        told.add(refused.value.code().name)
        assert "try again" in refused.value.details()
        began = time.monotonic()
        assert sign("software").signatures
        assert time.monotonic() - began < 1, "keys in software have nothing to do with it"
        time.sleep(0.8)
    assert told == {"UNAVAILABLE"}
    assert slowest < 6, "who waits for a token that hangs is told in time"
    time.sleep(1.2)
    assert serves(shared, "privyseal.keys.software")
    assert not serves(shared, "privyseal.keys.token"), "a login is no signature"

    shared.fault.write_text("")
    mended = time.monotonic()
    while True:
        try:
            assert sign("token").signatures
            break
        except grpc.RpcError as error:
            late = time.monotonic() - mended > 5
            assert not late, error.details()  # noqa: PT017 - others may come
            time.sleep(0.05)
    assert "CKR_PIN_INCORRECT" not in logins(shared)[before:]
    end = time.monotonic() + 3
    while not serves(shared, "privyseal.keys.token"):
        assert time.monotonic() < end
        time.sleep(0.1)
