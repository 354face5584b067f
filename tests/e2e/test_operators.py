"""What operators do at night: in the wrong order, as root, twice, or with the wrong file."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from privyseald.data_dir import InUseError, hand_over, hold

from tests.conftest import Daemon, zygote
from tests.e2e.test_kek import (
    PASSPHRASE,
    health,
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


def test_a_backup_is_of_what_links_lead_to_and_of_nothing_that_cannot_be_restored(vault, tmp_path):
    settings = vault.data / "privyseald.toml"
    real = tmp_path / "real.toml"
    pair = tmp_path / "recipient.pem"
    public = vault.run("backup", "new-recipient", "--private", pair).out.split()[-1]
    existing = settings.read_text() if settings.exists() else ""
    recipients = f'[backup]\nrecipients = ["{public}"]\nthreshold = 1\n'
    real.write_text(f"approvals = 0\n{existing}{recipients}")
    settings.unlink(missing_ok=True)
    settings.symlink_to(real)
    (vault.data / "tls/old").mkdir()
    vault.start()
    archive, share = tmp_path / "b.backup", tmp_path / "ada.share"
    key = ("--log-key", vault.data / "log.vkey")
    vault.ok("backup", "create", "--out", archive)
    vault.ok("backup", "verify", archive, *key)
    vault.ok("backup", "open-share", archive, "--private", pair, "--out", share)
    done = vault.command(
        *("restore", archive, "--data", tmp_path / "again", *key, "--share-file", share)
    )
    assert done.code == 0, done.err
    assert (tmp_path / "again/privyseald.toml").read_text() == real.read_text()


def test_what_cannot_be_written_is_not_said_to_serve(vault, tmp_path):
    """A checkpoint's folder that is gone, and a database that nobody may write."""
    (tmp_path / "elsewhere").mkdir()
    vault.env["PRIVYSEALD_LAST_CHECKPOINT"] = str(tmp_path / "elsewhere/last")
    vault.start()
    new_app(vault, tmp_path)
    assert health(vault) == "SERVING"
    (tmp_path / "elsewhere/last").unlink()
    (tmp_path / "elsewhere").rmdir()
    refused = vault.run("live-update", "create-channel", "--app-id", "042a1261", "--name", "a")
    assert "cannot be kept" in refused.err
    wait_for(lambda: health(vault) == "NOT_SERVING", vault)
    told = vault.run("doctor")
    assert told.code == 1
    assert "cannot be written" in told.out
    (tmp_path / "elsewhere").mkdir()
    wait_for(lambda: health(vault) == "SERVING", vault)
    vault.ok("live-update", "create-channel", "--app-id", "042a1261", "--name", "b")
    vault.stop()
    (tmp_path / "elsewhere/last").rename(tmp_path / "kept")
    (tmp_path / "elsewhere").rmdir()
    vault.start()
    assert health(vault) == "NOT_SERVING"


STARTS = {
    "newer": "of a newer version of Privyseal",
    "nonsense": "must be sqlite:///FILE",
    "ca": "is damaged",
    "certificate": "is not the key of tls/server.pem",
    "settings": "privyseald.toml is no TOML",
    "list": "artifact_sources",
    "url": "must be an http:// or https:// address",
    "keyholders": "greater than or equal to 0",
}


@pytest.mark.parametrize("what", STARTS)
def test_what_keeps_a_daemon_from_starting_is_one_line(vault, what):
    if what == "newer":
        with sqlite3.connect(vault.data / "privyseal.db") as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.close()
    elif what == "ca":
        (vault.data / "tls/ca.pem").write_text("damaged")
    elif what == "certificate":
        (vault.data / "tls/server.key").write_bytes((vault.data / "tls/ca.key").read_bytes())
    elif what == "settings":
        (vault.data / "privyseald.toml").write_text("= 1")
    name, value = {
        "nonsense": ("PRIVYSEALD_DATABASE", "nonsense"),
        "list": ("PRIVYSEALD_ARTIFACT_SOURCES", "https://x"),
        "url": ("PRIVYSEALD_PUBLIC_URL", "not a url"),
        "keyholders": ("PRIVYSEALD_KEYHOLDERS", "-3"),
    }.get(what, ("UNUSED", ""))
    code, _, told = zygote.run("daemon", ["serve"], env={**vault.env, name: value})
    assert code == 1
    (line,) = [line for line in told.splitlines() if not line.startswith("{")]
    assert STARTS[what] in line


def test_a_passphrase_is_what_was_typed_but_for_the_end_of_the_line(vault, tmp_path):
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, " horse battery staple "))
    start_sealed(vault)
    stripped = vault.command("unseal", "--secret-file", secret(tmp_path, "horse battery staple"))
    assert stripped.code == 1
    given = vault.command("unseal", "--secret-file", secret(tmp_path, " horse battery staple "))
    assert given.out == "open\n"


def test_who_lacks_a_role_is_told_so_rather_than_of_consent(daemon, tmp_path):
    daemon.command("issue-certificate", "nobody", "--out", tmp_path / "nobody")
    refused = daemon.run(
        *("backup", "create", "--out", tmp_path / "b"),
        PRIVYSEAL_PROFILE=str(tmp_path / "nobody/profile.toml"),
    )
    assert "has no grant for backup.export" in refused.err
