"""`log verify`: whatever is changed behind the daemon's back is found."""

import contextlib
import sqlite3

import pytest
from privyseal.log_replay import Replay
from privyseald.model.policy import Role

from tests.conftest import Daemon


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    running = Daemon(folder / "data")
    running.settings += "approvals = 0\n"
    running.init()
    running.start()
    www = folder / "www"
    www.mkdir()
    (www / "index.html").write_text("x")
    running.ok("app", "create", "--app-id", "shop", "--statement-key", folder / "statement.pem")
    running.ok("app", "create", "--app-id", "other")
    running.ok(
        *("live-update", "generate-signing-key", "--app-id", "shop", "--scheme", "minisign"),
        *("--public", folder / "minisign.pub"),
    )
    running.ok("key", "create-standby", "--app-id", "shop", "--key", "minisign")
    for channel in ("production", "beta", "old"):
        running.ok("live-update", "create-channel", "--app-id", "shop", "--name", channel)
    running.ok("live-update", "delete-channel", "--app-id", "shop", "--name", "old")
    publish = ("publish", "--app-id", "shop", "--build-dir", www, "--storage", folder / "store")
    for version in ("1", "2", "3"):
        (www / "index.html").write_text(version)
        running.ok(*publish, "--version", version, "--channel", "production")
    narrow = ("--build-id", "2", "--android-min", "1.2", "--ios-max", "7")
    running.ok("live-update", "set-native-versions", "--app-id", "shop", *narrow)
    gone = ("--build-id", "1", "--reason", "broken")
    running.ok("live-update", "withdraw-release", "--app-id", "shop", *gone)
    for verb in ("suspend", "resume"):
        name = "apps/shop/keys/minisign/versions/1"
        running.ok("key", verb, name, "--reason", "a try")
    running.person("audrey", "auditor")
    yield running
    assert running.stop() == 0


def verify(daemon, **env):
    return daemon.run("log", "verify", "--log-key", daemon.data / "log.vkey", **env)


def change(daemon, *statements):
    with contextlib.closing(sqlite3.connect(daemon.data / "privyseal.db")) as database:
        for statement in statements:
            assert database.execute(statement).rowcount, statement
        database.commit()


def test_an_untouched_daemon_verifies(audited):
    done = verify(audited)
    assert done.code == 0, done.err
    assert "3), channels and grants are what the log tells" in done.out
    made = [leaf for leaf in audited.entries() if leaf["principal"] == "operator"]
    assert {leaf["to"] for leaf in made} == {"certificate:admin"}
    assert sorted(leaf["role"] for leaf in made) == sorted(Role)
    audrey = {"PRIVYSEAL_PROFILE": str(audited.data / "audrey/profile.toml")}
    told = verify(audited, **audrey)
    assert told.code == 0, told.err
    assert "grants were not compared" in told.out


_MALLORY = """
INSERT INTO grants (id, principal, role, app, created_at, conditions, expires_at, break_glass)
VALUES ('0123456789abcdef', 'certificate:mallory', 'signer', '-', 1, '[]', 0, 0)
"""
_SECRET = """
INSERT INTO channels SELECT app, 'secret', counter, log_index, created_at
FROM channels WHERE id = 'beta'
"""
_STANDBY = "UPDATE key_versions SET state = '{}' WHERE key = 'minisign' AND version = 2"
_LEAF = "UPDATE log_leaves SET leaf = {} WHERE idx = 2"


@pytest.mark.parametrize(
    ("done", "undone", "told"),
    [
        (
            "UPDATE key_versions SET state = 'suspended' WHERE key = 'minisign' AND version = 1",
            "UPDATE key_versions SET state = 'active' WHERE key = 'minisign' AND version = 1",
            "keys/minisign/versions/1 the daemon says: suspended",
        ),
        (
            _STANDBY.format("active"),
            _STANDBY.format("pre-activation"),
            "versions/2 the daemon says: active",
        ),
        (
            "UPDATE keys SET primary_version = 2 WHERE id = 'minisign'",
            "UPDATE keys SET primary_version = 1 WHERE id = 'minisign'",
            "keys/minisign the daemon says: primary apps/shop/keys/minisign/versions/2",
        ),
        (_MALLORY, "DELETE FROM grants WHERE principal = 'certificate:mallory'", "does not tell"),
        (
            "UPDATE channels SET counter = 2 WHERE id = 'production'",
            "UPDATE channels SET counter = 3 WHERE id = 'production'",
            "channels/production the daemon says: apps/shop/releases/2",
        ),
        (
            _SECRET,
            "DELETE FROM channels WHERE id = 'secret'",
            "does not tell of apps/shop/channels/secret",
        ),
        (
            "UPDATE releases SET artifact_url = 'https://evil.example/x' WHERE counter = 2",
            "UPDATE releases SET artifact_url = (SELECT * FROM kept) WHERE counter = 2",
            "releases/2 the daemon says: https://evil.example/x",
        ),
        (
            "UPDATE releases SET withdrawn_at = 0 WHERE counter = 1",
            "UPDATE releases SET withdrawn_at = 1 WHERE counter = 1",
            "apps/shop/releases/1 the daemon says",
        ),
        (
            "UPDATE releases SET app = 'other' WHERE counter = 2",
            "UPDATE releases SET app = 'shop' WHERE counter = 2",
            "nothing was signed that apps/other/releases/2 could be",
        ),
        (
            "UPDATE log_nodes SET hash = zeroblob(32) WHERE level = 1 AND idx = 0",
            "UPDATE log_nodes SET hash = (SELECT hash FROM kept_node) WHERE level = 1 AND idx = 0",
            "inclusion",
        ),
        (
            _LEAF.format("CAST(replace(CAST(leaf AS TEXT), 'admin', 'nobody') AS BLOB)"),
            _LEAF.format("(SELECT leaf FROM kept_leaf)"),
            "do not make the root",
        ),
    ],
)
def test_what_is_changed_behind_its_back_is_found(audited, done, undone, told):
    keep = {
        "kept": "SELECT artifact_url FROM releases WHERE counter = 2",
        "kept_node": "SELECT hash FROM log_nodes WHERE level = 1 AND idx = 0",
        "kept_leaf": "SELECT leaf FROM log_leaves WHERE idx = 2",
    }
    with contextlib.closing(sqlite3.connect(audited.data / "privyseal.db")) as database:
        for name, query in keep.items():
            database.execute(f"CREATE TABLE {name} AS {query}")
        database.commit()
    try:
        change(audited, done)
        found = verify(audited)
        assert found.code != 0, found.out
        assert told in found.err
        change(audited, undone)
    finally:
        with contextlib.closing(sqlite3.connect(audited.data / "privyseal.db")) as database:
            for name in keep:
                database.execute(f"DROP TABLE {name}")
            database.commit()
    assert verify(audited).code == 0


@pytest.mark.parametrize(
    "act",
    [
        {"act": "key.restore", "keyVersion": "apps/a/keys/k/versions/1"},
        {"act": "release.withdraw", "release": "apps/a/releases/1"},
        {"act": "deploy", "channel": "apps/a/channels/c"},
        {"act": "grant.create", "grant": "1"},
        {"act": "release.native-versions", "release": "apps/a/releases/1", "ranges": 7},
        {"no": "act"},
    ],
)
def test_what_a_leaf_tells_must_be_possible(act):
    """The daemon's word is what is verified: a leaf that makes no sense is told of as such."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        Replay().apply(act)


def test_a_log_that_does_not_extend_a_checkpoint_is_refused(audited, tmp_path):
    """The other has the same key: what the log's key signs twice over is what is looked for."""
    other = Daemon(tmp_path / "data")
    other.init()
    other.start()
    try:
        other.ok("app", "create", "--app-id", "x")
        words = ("log", "checkpoint", "--log-key", other.data / "log.vkey")
        other.ok(*words, "--out", tmp_path / "kept")
    finally:
        other.stop()
    key = ("--log-key", audited.data / "log.vkey")
    refused = audited.run("log", "verify", *key, "--against", tmp_path / "kept")
    assert refused.code == 4
    assert "not an extension of the checkpoint" in refused.err
