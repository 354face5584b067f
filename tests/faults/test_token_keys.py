"""Keys in a token behind the daemon: made, adopted, refused, and never read."""

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from privyseal.connection import Connection, load_profile
from privyseal.v1 import app_service_pb2 as app_pb

from tests import spy
from tests.softhsm import SoftHsm
from tests.token_app import new_app, publish


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
    assert spy.nothing_private_was_asked_for(calls) > 100


READS = """
import pkcs11
token = pkcs11.lib({module!r}).get_token(token_label={label!r})
with token.open(user_pin={pin!r}, rw=True) as session:
    key = session.generate_key(
        pkcs11.KeyType.AES, 256,
        template={{pkcs11.Attribute.EXTRACTABLE: True, pkcs11.Attribute.SENSITIVE: False}},
    )
    {act}
"""


@pytest.mark.parametrize("act", ["key[pkcs11.Attribute.VALUE]", "key.wrap_key(key)"])
def test_the_spy_sees_what_must_not_be(tmp_path, act):
    softhsm = SoftHsm(tmp_path / "hsm")
    code = READS.format(module=softhsm.module, label=softhsm.label, pin=softhsm.pin, act=act)
    env = {**os.environ, **softhsm.env}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
    spy.LOGS.remove(softhsm.spied)
    with pytest.raises(AssertionError):
        spy.nothing_private_was_asked_for(softhsm.spied.read_text())


def test_what_is_refused_leaves_no_key_in_the_token(vault, softhsm, tmp_path):
    """Whoever may create apps could fill the token with keys of which nobody knows."""
    app = new_app(vault, tmp_path, "--in-token")

    def keys():
        return softhsm.tool("--list-objects", "--type", "privkey").count("Private Key Object")

    before = keys()
    again = vault.run("app", "create", "--app-id", app, "--in-token")
    assert (again.code, "exists" in again.err) == (1, True)
    assert keys() == before
    # Asked for twice at once, as by a client whose answer was lost: one key, one answer.
    request = app_pb.CreateAppRequest(
        app_id="twice-" + uuid.uuid4().hex[:6], in_token=True, request_id=str(uuid.uuid4())
    )
    with (
        Connection(load_profile(str(vault.data / "admin/profile.toml"), "")) as to,
        ThreadPoolExecutor(4) as callers,
    ):
        calls = [callers.submit(to.call, to.apps.CreateApp, request) for _ in range(4)]
        answers = {call.result().SerializeToString() for call in calls}
    assert len(answers) == 1
    assert keys() == before + 1


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
    app = new_app(
        *(vault, tmp_path, "--token-uri"),
        f"pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;object={name};type=private",
    )
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
        (f"pkcs11:model=other;object={name}", "another token"),
        (f"pkcs11:manufacturer=other;object={name}", "another token"),
        (f"pkcs11:object={name}?pin-value=1234", "must not have a query"),
        ("file:///etc/passwd", "must begin with pkcs11:"),
    ):
        other = "app-" + uuid.uuid4().hex[:8]
        vault.ok("app", "create", "--app-id", other)
        words = ("live-update", "generate-signing-key", "--app-id", other, "--token-uri", uri)
        done = vault.run(*words, "--public", tmp_path / f"{other}.pem")
        assert done.code == 1
        assert told in done.err
