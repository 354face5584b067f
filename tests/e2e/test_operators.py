"""What operators do at night: in the wrong order, as root, twice, or with the wrong file."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from privyseald.data_dir import InUseError, hand_over, hold

from tests.conftest import Daemon
from tests.e2e.test_kek import (
    PASSPHRASE,
    new_app,
    rewrap,
    secret,
    signs,
    start_sealed,
    wait_for,
)


@pytest.fixture
def vault(tmp_path):
    running = Daemon(tmp_path / "data")
    running.init()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def test_daemons_hold_the_directory_together_and_operators_alone(tmp_path):
    first, second = hold(tmp_path, alone=False), hold(tmp_path, alone=False)
    with pytest.raises(InUseError, match="stop that first"):
        hold(tmp_path, alone=True)
    os.close(first)
    os.close(second)
    alone = hold(tmp_path, alone=True)
    with pytest.raises(InUseError, match="being changed"):
        hold(tmp_path, alone=False)
    os.close(alone)


def test_a_loss_is_accepted_while_no_daemon_runs(vault):
    vault.start()
    done = vault.command("accept-loss", "--entries", 7)
    assert done.code == 1
    assert "a daemon uses it; stop that first" in done.err
    vault.stop()
    done = vault.command("accept-loss", "--entries", 7)
    assert "nothing is lost" in done.err


def test_a_log_keeps_its_name(vault, www, tmp_path):
    vault.start()
    new_app(vault, tmp_path)
    vault.stop()
    right = vault.env
    for name, told in (
        ("other/log", "its name never changes"),
        ("my log", "none of them a blank or a +"),
        ("log+x", "none of them a blank or a +"),
        ("a\u2003b", "none of them a blank or a +"),
    ):
        vault.env = {**right, "PRIVYSEALD_LOG_ORIGIN": name}
        vault.spawn()
        assert vault.process.wait(20) == 1
        vault.log.close()
        assert told in vault.log_text()
    vault.env = right
    vault.start()
    assert signs(vault, www, tmp_path).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes what is another's")
def test_what_root_writes_is_the_daemons(vault):
    for path in (vault.data, *vault.data.rglob("*")):
        os.chown(path, 12345, 12345)
    rewrap(vault, "passphrase", "--new-secret-file", secret(vault.data.parent, PASSPHRASE))
    rewrap(vault, "file", "--secret-file", secret(vault.data.parent, PASSPHRASE))
    status = (vault.data / "kek").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 12345, 0o600)
    (vault.data / "new").write_text("x")
    hand_over(vault.data / "new")
    assert (vault.data / "new").stat().st_uid == 12345


def test_shares_of_before_open_nothing_also_if_it_was_sealed_anew_while_sealed(vault, tmp_path):
    def shares(*more):
        made = rewrap(vault, "shares", *more).out.splitlines()
        return [secret(tmp_path, line.partition(": ")[2]) for line in made if line]

    old = shares()
    start_sealed(vault)
    assert "1 of 2 shares" in vault.command("unseal", "--secret-file", old[0]).out
    new = shares("--secret-file", old[0], "--secret-file", old[1])
    refused = vault.command("unseal", "--secret-file", old[1])
    assert "another set" in refused.err
    assert "1 of 2 shares" in vault.command("unseal", "--secret-file", new[0]).out
    assert vault.command("unseal", "--secret-file", new[1]).out == "open\n"


def test_how_it_is_sealed_is_told_of_a_data_directory_alone(vault, tmp_path):
    assert "as it is" in vault.command("kek", "show").out
    typo = vault.command("kek", "show", "--data", tmp_path / "typo")
    assert typo.code == 1
    assert "no key-encryption key" in typo.err
    plain = (vault.data / "kek").read_bytes()
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    # As a rewrap leaves it that is killed between the two.
    (vault.data / "kek").write_bytes(plain)
    told = vault.command("kek", "show")
    assert told.code == 1
    assert "has it as it is, too" in told.err


def test_an_interrupted_init_is_no_data_directory(tmp_path):
    data = tmp_path / "data"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "privyseald.main"]
    process = subprocess.Popen([*command, "init", "--data", data], env=env, stderr=subprocess.PIPE)
    while not (data / "tls").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for verb, told in (("serve", "an interrupted one left"), ("init", "interrupted `init` left")):
        done = subprocess.run(
            [*command, verb, "--data", data], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1
        assert told in done.stderr


def test_a_loss_is_told_once_however_often_the_daemon_is_started(vault, tmp_path):
    vault.start()
    new_app(vault, tmp_path)
    vault.stop()
    lost = {"lostEntries": 99, "lostRoot": "", "entries": 8}
    for _ in range(3):
        # As after a start that could not go on: it is there still.
        (vault.data / "accepted-loss.json").write_text(json.dumps(lost))
        vault.start()
        vault.stop()
    vault.start()
    assert [e["act"] for e in vault.entries()].count("log.loss-accepted") == 1
    assert not (vault.data / "accepted-loss.json").exists()


def test_why_it_is_sealed_is_in_the_log(vault, tmp_path):
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    start_sealed(vault)
    wait_for(lambda: '"waits_for": "passphrase' in vault.log_text(), vault)


def test_all_that_somebody_may_is_listed_and_nothing_of_others(daemon):
    app = f"app-{time.monotonic_ns()}"
    daemon.ok("app", "create", "--app-id", app)
    given = set()
    for name, where, role in (
        ("ada", app, "signer"),
        ("ada", "-", "auditor"),
        ("adam", app, "signer"),
        ("adam", "-", "auditor"),
    ):
        made = daemon.ok(
            *("grant", "create", "--principal", f"certificate:{name}", "--role", role),
            *("--app-id", where),
        )
        given |= {made["grant"]} if name == "ada" else set()
    listed = daemon.ok("grant", "list", "--principal", "certificate:ada")["grants"]
    assert {row["grant"] for row in listed} == given
    everybody = daemon.ok("grant", "list")["grants"]
    assert {f"apps/{app}", "apps/-"} <= {row["resource"] for row in everybody}
    assert {r["resource"] for r in daemon.ok("grant", "list", "--app-id", app)["grants"]} == {
        f"apps/{app}",
        "apps/-",
    }
