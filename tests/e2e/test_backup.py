"""A backup, everything lost, restored; and an old backup that signs nothing."""

import base64
import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
import uuid

import pytest
from privyseal.verify import backup as format_
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier
from privyseald.adapters.checkpoint_file import CheckpointFile
from privyseald.keyholder.backup import SealedKek, open_with_shares, seal_for
from privyseald.keyholder.custody import Custody
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.kek import KekError

from tests import zygote
from tests.conftest import Daemon, Result

OFFICERS = ("ada", "ben", "cleo")


@pytest.fixture
def team(tmp_path):
    """A daemon whose backups two of three officers open; its last checkpoint lies elsewhere."""
    running = Daemon(tmp_path / "data")
    running.folder = tmp_path
    lines = []
    for officer in OFFICERS:
        made = running_client("backup", "new-recipient", "--private", tmp_path / f"{officer}.pem")
        assert made.code == 0, made.err
        lines.append(made.out.strip())
    running.settings += (
        f'last_checkpoint = "{tmp_path / "outside"}"\n'
        f"[backup]\nrecipients = {json.dumps(lines)}\nthreshold = 2\n"
    )
    running.init()
    running.start()
    running.olivia = running.person("olivia", "security-officer", "auditor")
    running.anna = running.person("anna", "approver")
    running.ok("app", "create", "--app-id", "042a1261", "--statement-key", tmp_path / "st.pem")
    yield running
    if running.process.poll() is None:
        running.stop()


def running_client(*arguments) -> Result:
    return Result(*zygote.run("client", [str(a) for a in arguments], env=os.environ))


def daemon_command(env, *arguments) -> Result:
    return Result(*zygote.run("daemon", [str(a) for a in arguments], env=env))


def publish(team, www) -> Result:
    flags = ("--app-id", "042a1261", "--build-dir", www, "--storage", team.folder / "store")
    receipt = team.folder / f"receipt-{uuid.uuid4().hex}.json"
    version = uuid.uuid4().hex
    return team.run("publish", *flags, "--receipt", receipt, "--version", version)


def back_up(team):
    target = team.folder / f"{uuid.uuid4().hex}.backup"
    refused = team.run("backup", "create", "--out", target, **team.olivia)
    assert refused.code == 1
    words = shlex.split(refused.err.partition("ask with: privyseal ")[2])
    asked = team.ok(*words, "--reason", "nightly", **team.olivia)["approval"]
    team.ok("approval", "approve", asked, **team.anna)
    team.ok("backup", "create", "--out", target, **team.olivia)
    return target


def restore(team, backup, *officers, data=None) -> Result:
    shares = []
    for officer in officers:
        file = team.folder / f"{officer}-{uuid.uuid4().hex}.share"
        opened = running_client(
            *("backup", "open-share", backup, "--private", team.folder / f"{officer}.pem"),
            *("--out", file),
        )
        assert opened.code == 0, opened.err
        shares += ["--share-file", file]
    keys = ("--log-key", team.folder / "log.vkey")
    return daemon_command(team.env, "restore", backup, "--data", data or team.data, *keys, *shares)


def told_to_mend(daemon):
    """Return what the doctor says when it has heard that nothing is signed."""
    end = time.monotonic() + 20
    while "MEND  signing" not in (told := daemon.run("doctor")).out:
        # The daemon looks at its health now and then.
        assert time.monotonic() < end, told.out
    return told


def test_everything_is_lost_and_comes_back_from_a_backup(team, www):
    assert publish(team, www).code == 0
    backup = back_up(team)
    shutil.copy(team.data / "log.vkey", team.folder / "log.vkey")
    shutil.copytree(team.data / "admin", team.folder / "admin")
    checked = running_client("backup", "verify", backup, "--log-key", team.folder / "log.vkey")
    assert checked.code == 0, checked.err
    assert "opens with 2 of 3 recipients" in checked.out
    assert [e["act"] for e in team.entries()][-1] == "backup.create"
    before = team.ok("key", "list", "--app-id", "042a1261")["keyVersions"]
    assert not list(team.data.glob("backup-*"))
    team.stop()
    secret = (team.data / "kek").read_bytes()
    assert secret not in backup.read_bytes()
    shutil.rmtree(team.data)

    alone = restore(team, backup, "ada")
    assert alone.code == 1
    assert "it takes 2" in alone.err
    assert not team.data.exists()
    made = restore(team, backup, "cleo", "ada")
    assert made.code == 0, made.err
    assert "1 software keys opened" in made.out
    assert (team.data / "kek").read_bytes() == secret
    again = restore(team, backup, "ben", "ada")
    assert again.code == 1
    assert "exists" in again.err

    # What was signed after the backup is in no database any more: nothing is signed.
    shutil.copytree(team.folder / "admin", team.data / "admin")
    team.start()
    refused = publish(team, www)
    assert refused.code == 1
    assert "the database is an old copy" in refused.err
    assert "accept-loss" in refused.err
    assert team.ok("key", "list", "--app-id", "042a1261")["keyVersions"] == before
    team.stop()

    outside = CheckpointFile(
        team.folder / "outside", NoteVerifier.parse((team.data / "log.vkey").read_text())
    )
    lost = outside.read().size
    wrong = daemon_command(team.env, "accept-loss", "--entries", lost + 1)
    assert wrong.code == 1
    assert f"{lost} entries were signed" in wrong.err
    accepted = daemon_command(team.env, "accept-loss", "--entries", lost)
    assert accepted.code == 0, accepted.err
    team.start()
    assert publish(team, www).code == 0
    told = [e for e in team.entries() if e["act"] == "log.loss-accepted"]
    assert [t["lostEntries"] for t in told] == [lost]
    assert told[0]["entries"] < lost
    verified = team.run("log", "verify", "--log-key", team.data / "log.vkey")
    assert verified.code == 0, verified.err
    team.stop()
    nothing = daemon_command(team.env, "accept-loss", "--entries", outside.read().size)
    assert "nothing is lost" in nothing.err


def test_a_restored_directory_signs_nothing_before_somebody_says_what_was_signed(team, www):
    """Without a checkpoint elsewhere nothing tells of what came after the backup."""
    assert publish(team, www).code == 0
    backup = back_up(team)
    shutil.copy(team.data / "log.vkey", team.folder / "log.vkey")
    shutil.copytree(team.data / "admin", team.folder / "admin")
    assert publish(team, www).code == 0
    entries = len(team.entries())
    assert team.run("doctor").code == 0
    team.stop()
    shutil.rmtree(team.data)
    (team.folder / "outside").unlink()
    team.env.pop("PRIVYSEALD_LAST_CHECKPOINT", None)
    made = restore(team, backup, "cleo", "ada")
    assert made.code == 0, made.err
    assert "Do it again before you sign" in made.out
    shutil.copytree(team.folder / "admin", team.data / "admin")

    team.start()
    refused = publish(team, www)
    assert refused.code == 1
    assert "was restored from a backup" in refused.err
    assert told_to_mend(team).code == 1
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{team.gateway}/healthz", timeout=10)
    error.value.close()
    assert error.value.code == 503
    team.stop()

    few = daemon_command(team.env, "accept-loss", "--entries", 3)
    assert few.code == 1
    assert "the backup alone has" in few.err
    accepted = daemon_command(team.env, "accept-loss", "--entries", entries)
    assert accepted.code == 0, accepted.err
    team.start()
    assert publish(team, www).code == 0
    assert team.run("doctor").code == 0
    (told,) = [e for e in team.entries() if e["act"] == "log.loss-accepted"]
    assert told["lostEntries"] == entries
    assert told["entries"] < entries


def test_a_database_put_back_while_the_daemon_stands_is_noticed(team, www, tmp_path):
    team.stop()
    old = tmp_path / "old.db"
    shutil.copy(team.data / "privyseal.db", old)
    team.start()
    assert publish(team, www).code == 0
    team.stop()
    for leftover in team.data.glob("privyseal.db-*"):
        leftover.unlink()
    shutil.copy(old, team.data / "privyseal.db")
    team.start()
    assert "old copy" in publish(team, www).err

    team.stop()
    # A log of the same size and other content is no better.
    (team.data / "privyseal.db").unlink()
    shutil.copy(old, team.data / "privyseal.db")
    kept = team.folder / "outside"
    for path in (kept, *team.data.glob("privyseal.db-*")):
        away = path.rename(path.with_name(path.name + ".away"))
        assert away.exists()
    team.start()
    for _ in range(4):
        assert publish(team, www).code == 0
    team.stop()
    kept.with_name("outside.away").rename(kept)
    team.start()
    assert "another log" in publish(team, www).err


def test_a_log_whose_nodes_do_not_make_its_root_is_not_signed_on(team, www):
    """Whatever was signed over a damaged tree would contradict the checkpoints before it."""
    assert publish(team, www).code == 0
    for change, rows in (
        ("UPDATE log_nodes SET hash = zeroblob(32) WHERE level = ?", "max(level)"),
        ("DELETE FROM log_nodes WHERE level = ?", "max(level)"),
    ):
        team.stop()
        good = (team.data / "privyseal.db").read_bytes()
        with contextlib.closing(sqlite3.connect(team.data / "privyseal.db")) as database:
            (level,) = database.execute(f"SELECT {rows} FROM log_nodes").fetchone()
            database.execute(change, (level,))
            database.commit()
        team.start()
        refused = publish(team, www)
        assert refused.code == 1
        assert "do not make the root" in refused.err
        assert told_to_mend(team).code == 1
        team.stop()
        (team.data / "privyseal.db").write_bytes(good)
        team.start()
        assert publish(team, www).code == 0


def test_a_custodian_seals_its_key_for_no_recipients_but_its_own(tmp_path):
    """Who has taken over the daemon's process can ask it for anything."""
    from cryptography.hazmat.primitives.asymmetric import x25519

    mine, thief = (x25519.X25519PrivateKey.generate() for _ in range(2))
    (tmp_path / "kek").write_bytes(os.urandom(32))
    (tmp_path / "kek").chmod(0o600)
    public = mine.public_key().public_bytes_raw()
    custody = Custody(CustodySettings(str(tmp_path), recipients=(public.hex(),), threshold=1))
    custody.start()
    try:
        ours, theirs = os.pipe()
        asked = {
            "op": "backup",
            "id": "a" * 32,
            "threshold": 1,
            "recipients": [base64.b64encode(thief.public_key().public_bytes_raw()).decode()],
        }
        custody._ask(asked, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as pipe:
            made = SealedKek.from_json(pipe.read())
    finally:
        custody.stop()
    header = format_.Header(
        "a" * 32,
        "x",
        1,
        "note",
        1,
        (format_.Recipient(public, made.shares[0]),),
        made.kek,
        made.check,
    )
    with pytest.raises(VerificationError):
        header.open_share(thief)
    shares = [header.open_share(mine)]
    assert open_with_shares(header, shares)[0] == (tmp_path / "kek").read_bytes()


def test_a_checkpoint_that_cannot_be_kept_stops_signing(team, www):
    kept = team.folder / "outside"
    kept.unlink()
    kept.mkdir()
    (kept / "x").touch()
    refused = publish(team, www)
    assert refused.code == 1
    assert "cannot be kept outside the database" in refused.err
    shutil.rmtree(kept)
    assert publish(team, www).code == 0
    assert kept.is_file()


def test_who_may_not_gets_no_backup(team):
    target = team.folder / "b"
    refused = team.run("backup", "create", "--out", target, **team.anna)
    assert refused.code == 1
    assert not target.exists()
    assert not target.with_name("b.part").exists()


def test_a_daemon_without_recipients_makes_none(tmp_path):
    daemon = Daemon(tmp_path / "data", "approvals = 0\n")
    daemon.init()
    daemon.start()
    refused = daemon.run("backup", "create", "--out", tmp_path / "b")
    assert refused.code == 1
    assert "no [backup] recipients" in refused.err
    daemon.stop()
    (daemon.data / "privyseald.toml").write_text(
        '[backup]\nrecipients = ["nobody"]\nthreshold = 1\n'
    )
    told = daemon_command(daemon.env, "serve")
    assert told.code == 1
    assert "a recipient is privyseal-recipient-v1:" in told.err


def test_no_changed_backup_is_taken(team, tmp_path):
    backup = back_up(team)
    verifier = NoteVerifier.parse((team.data / "log.vkey").read_text())
    good = backup.read_bytes()
    step = len(good) // 150
    changed = tmp_path / "changed"
    for at in [*range(0, len(good), step), len(good) - 1]:
        changed.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with changed.open("rb") as file, pytest.raises(VerificationError):
            format_.verify(file, verifier)
    for end in range(0, len(good) - 1, step):
        changed.write_bytes(good[:end])
        with changed.open("rb") as file, pytest.raises(VerificationError):
            format_.verify(file, verifier)


@pytest.mark.parametrize(("threshold", "people"), [(1, 1), (1, 3), (2, 2), (3, 5)])
def test_a_quorum_opens_and_fewer_do_not(threshold, people):
    from cryptography.hazmat.primitives.asymmetric import x25519

    keys = [x25519.X25519PrivateKey.generate() for _ in range(people)]
    public = [key.public_key().public_bytes_raw() for key in keys]
    kek = os.urandom(32)

    def header(backup):
        made = seal_for(kek, backup, threshold, public)
        recipients = tuple(map(format_.Recipient, public, made.shares))
        return made, format_.Header(
            backup, "test", 1, "note", threshold, recipients, made.kek, made.check
        )

    made, mine = header("a" * 32)
    _, other = header("b" * 32)
    shares = [mine.open_share(key) for key in keys]
    assert open_with_shares(mine, shares[-threshold:]) == (kek, mine.body_key(made.body))
    if threshold > 1:
        with pytest.raises(KekError, match="it takes"):
            open_with_shares(mine, [shares[0]] * threshold)
    with pytest.raises(KekError, match="not of this backup"):
        open_with_shares(mine, [other.open_share(key) for key in keys])
    with pytest.raises(VerificationError, match="no recipient"):
        mine.open_share(x25519.X25519PrivateKey.generate())
    assert format_.Header.parse(mine.line()) == mine
