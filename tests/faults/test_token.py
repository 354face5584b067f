"""A token behind the daemon: its keys, its failures, and what is never asked of it."""

import os
import re
import signal
import time
import uuid
from pathlib import Path

import pytest

from tests.conftest import Daemon
from tests.softhsm import MODULE, SoftHsm


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    return SoftHsm(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def vault(tmp_path, softhsm):
    """A daemon on the token, through a spy that writes down every call."""
    spy = next(Path("/usr/lib").rglob("pkcs11-spy.so"))
    running = Daemon(tmp_path / "data")
    running.settings += "approvals = 0\n"
    running.settings += softhsm.settings().replace(MODULE, str(spy))
    running.init()
    running.spied = tmp_path / "spy.txt"
    running.env |= {
        **softhsm.env,
        "PKCS11SPY": MODULE,
        "PKCS11SPY_OUTPUT": str(running.spied),
    }
    running.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


def new_app(daemon, tmp_path, *more):
    app = "app-" + uuid.uuid4().hex[:8]
    made = tmp_path / f"{app}.pem"
    daemon.ok("app", "create", "--app-id", app, "--in-token", "--statement-key", made)
    daemon.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / f"{app}-capawesome.pem", *more),
    )
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def publish(daemon, app, www, tmp_path):
    return daemon.run(
        *("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--receipt", tmp_path / "receipt.json", "--channel", "production", "--json"),
    )


def back_within(daemon, app, www, tmp_path, seconds):
    """Publish until it works; return how long that took, and what was said until then."""
    said = []
    start = time.monotonic()
    while True:
        done = publish(daemon, app, www, tmp_path)
        if done.code == 0:
            return time.monotonic() - start, said
        said.append(done.err)
        assert time.monotonic() - start < seconds, said


def test_keys_are_made_in_the_token_and_sign(vault, softhsm, www, tmp_path):
    app = new_app(vault, tmp_path, "--in-token")
    made = publish(vault, app, www, tmp_path)
    assert made.code == 0, made.err
    keys = ("--public-key", tmp_path / f"{app}.pem", "--log-key", vault.data / "log.vkey")
    bundle = made.json["artifactUrl"].removeprefix("file://")
    assert vault.ok("verify", bundle, "--receipt", tmp_path / "receipt.json", *keys)
    shown = vault.ok("key", "show", f"apps/{app}/keys/capawesome-v1/versions/1")["protection"]
    assert shown["backend"] == "pkcs11"
    assert shown["uri"].startswith("pkcs11:token=updates;serial=")
    assert (shown["sensitive"], shown["extractable"]) == ("true", "false")
    assert shown["origin"] == "generated in the token"
    listed = softhsm.tool("--list-objects", "--type", "privkey")
    assert f"apps/{app}/keys/capawesome-v1/versions/1" in listed
    # Nobody asked for what must not leave.
    calls = vault.spied.read_text()
    assert "C_Sign" in calls
    assert "C_WrapKey" not in calls
    assert not re.search(r"CKA_(VALUE|PRIVATE_EXPONENT|PRIME_1)\b", calls)


def test_whose_key_it_is_that_is_adopted_two_people_decide(vault, softhsm, tmp_path):
    vault.stop()
    file = vault.data / "privyseald.toml"
    file.write_text(file.read_text().replace("approvals = 0\n", ""))
    vault.start()
    app = "app-" + uuid.uuid4().hex[:8]
    vault.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "s.pem")
    words = ("live-update", "generate-signing-key", "--app-id", app, "--public", tmp_path / "x.pem")
    told = vault.run(*words, "--token-uri", "pkcs11:object=corporate-codesign")
    assert told.code == 1
    assert "asks for the consent of others" in told.err
    assert "key.import" in told.err
    # What does not fit is refused before a keyholder hears of it.
    workers = len(vault.log_text().split("keyholder ready"))
    long = vault.run(*words, "--token-uri", "pkcs11:object=" + "x" * 100_000)
    assert long.code == 1
    assert "512 characters" in long.err
    assert len(vault.log_text().split("keyholder ready")) == workers


def test_a_key_that_is_in_the_token_is_adopted(vault, softhsm, www, tmp_path):
    name = uuid.uuid4().hex[:8]
    softhsm.tool(*("--keypairgen", "--key-type", "rsa:2048", "--label", name, "--id", name))
    app = new_app(vault, tmp_path, "--token-uri", f"pkcs11:object={name}")
    assert publish(vault, app, www, tmp_path).code == 0
    shown = vault.ok("key", "show", f"apps/{app}/keys/capawesome-v1/versions/1")["protection"]
    assert f"object={name}" in shown["uri"]

    leaky = uuid.uuid4().hex[:8]
    softhsm.tool(
        *(
            "--keypairgen",
            "--key-type",
            "rsa:2048",
            "--label",
            leaky,
            "--id",
            leaky,
            "--extractable",
        )
    )
    for uri, told in (
        (f"pkcs11:object={leaky}", "would give the private key away"),
        ("pkcs11:object=nobody", "there is no private key"),
        (f"pkcs11:token=other;object={name}", "another token"),
        (f"pkcs11:object={name}?pin-value=1234", "must not have a query"),
        ("file:///etc/passwd", "must begin with pkcs11:"),
    ):
        other = "app-" + uuid.uuid4().hex[:8]
        vault.ok("app", "create", "--app-id", other)
        words = ("live-update", "generate-signing-key", "--app-id", other, "--token-uri", uri)
        done = vault.run(*words, "--public", tmp_path / f"{other}.pem")
        assert done.code == 1
        assert told in done.err


def test_a_token_that_was_removed_and_returned_signs_again(vault, softhsm, www, tmp_path):
    app = new_app(vault, tmp_path)  # statement key in the token, the other in software
    assert publish(vault, app, www, tmp_path).code == 0
    for _ in range(3):
        softhsm.remove()
        os.kill(keyholders(vault)[0], signal.SIGKILL)
        time.sleep(2)
        (www / "index.html").write_text(uuid.uuid4().hex)
        done = publish(vault, app, www, tmp_path)
        softhsm.put_back()
        took, said = back_within(vault, app, www, tmp_path, 10)
        assert took < 5, said
        for text in [done.err, *said]:
            assert not text or "try again" in text, text
    vault.ok("log", "verify", "--log-key", vault.data / "log.vkey")


def keyholders(daemon):
    """Return those that use the token."""
    return daemon.keyholders(b"module")


def test_killed_and_hung_keyholders_come_back(vault, www, tmp_path):
    app = new_app(vault, tmp_path, "--in-token")
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL):
        for pid in keyholders(vault):
            os.kill(pid, number)
        (www / "index.html").write_text(uuid.uuid4().hex)
        took, said = back_within(vault, app, www, tmp_path, 10)
        assert took < 5, said
        assert all("try again" in text for text in said)


def test_a_wrong_pin_is_tried_once_whatever_happens(vault, softhsm, www, tmp_path):
    app = new_app(vault, tmp_path)
    assert publish(vault, app, www, tmp_path).code == 0
    assert vault.stop() == 0
    old = softhsm.pin
    softhsm.change_pin("9876")
    before = vault.spied.read_text().count("C_Login")
    try:
        for _ in range(2):
            vault.start()
            time.sleep(4)
            for pid in keyholders(vault):
                os.kill(pid, signal.SIGKILL)
            time.sleep(2)
            (www / "index.html").write_text(uuid.uuid4().hex)
            done = publish(vault, app, www, tmp_path)
            assert done.code == 1
            assert "refused its PIN" in done.err
            assert vault.stop() == 0
        assert vault.spied.read_text().count("C_Login") == before + 1, "one try in all"

        vault.start()
        softhsm.pin_file.write_text("9876\n")
        import subprocess
        import sys

        login = [sys.executable, "-m", "privyseald.main", "token-login"]
        subprocess.run(login, env=vault.env, check=True, timeout=30)
        took, _ = back_within(vault, app, www, tmp_path, 10)
        assert took < 5
    finally:
        softhsm.change_pin(old)
        softhsm.pin_file.write_text(old + "\n")


def test_health_is_told_honestly(vault, softhsm):
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    ca = (vault.data / "tls/ca.pem").read_bytes()
    to = grpc.secure_channel(vault.tokens, grpc.ssl_channel_credentials(ca))
    stub = health_pb2_grpc.HealthStub(to)

    def told(part):
        request = health_pb2.HealthCheckRequest(service=part)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(stub.Check(request).status)

    def becomes(part, wanted):
        for _ in range(50):
            if told(part) == wanted:
                return True
            time.sleep(0.1)
        return False

    assert becomes("privyseal.keys.token", "SERVING")
    softhsm.remove()
    for pid in keyholders(vault):
        os.kill(pid, signal.SIGKILL)
    assert becomes("privyseal.keys.token", "NOT_SERVING")
    softhsm.put_back()
    assert becomes("privyseal.keys.token", "SERVING")
    assert becomes("privyseal.keys.software", "SERVING")
    assert becomes("", "SERVING")
    to.close()
