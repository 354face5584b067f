"""A rotation as the team that does it sees it: the command line, a real daemon, real projects."""

import hashlib
import json
import os
import plistlib
import threading
import time
import uuid

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from privyseal.connection import Connection, load_profile
from privyseal.errors import ClientError
from privyseal.v1 import signing_service_pb2 as signing_pb
from privyseal.verify.keys import load_public_key, public_key_sha256, spki_der
from privyseal.verify.successor import Successor, envelope, signing_input

from tests.conftest import Daemon
from tests.softhsm import SoftHsm

CAPACITOR = """
import type {{ CapacitorConfig }} from '@capacitor/cli';
// plugins: {{ LiveUpdate: {{ publicKey: 'not this one' }} }}
const config: CapacitorConfig = {{
  appId: 'com.example.app',
  webDir: 'www', /* publicKey: 'nor this' */
  plugins: {{
    "LiveUpdate": {{
      appId: '042a1261',
      publicKey: '{key}',
      server: {{ nested: true }},
    }},
    Other: {{ publicKey: 'x' }},
  }},
}};
export default config;
"""


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("rotation") / "data", "approvals = 0\n")
    running.init()
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def app(team, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    team.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    team.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / "v1.pem"),
    )
    team.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def project(folder, key, version="1.2.0", code="12"):
    """Write a Capacitor project of both platforms that embeds a key."""
    (folder / "android/app").mkdir(parents=True)
    (folder / "capacitor.config.ts").write_text(CAPACITOR.format(key=key.replace("\n", "")))
    (folder / "android/app/build.gradle").write_text(
        "android {\n    defaultConfig {\n        // versionCode 99\n"
        f'        versionCode {code}\n        versionName "{version}"\n    }}\n}}\n'
    )
    plist = folder / "ios/App/App/Info.plist"
    plist.parent.mkdir(parents=True)
    values = {
        "CFBundleShortVersionString": "$(MARKETING_VERSION)",
        "CFBundleVersion": "$(CURRENT_PROJECT_VERSION)",
    }
    plist.write_bytes(plistlib.dumps(values))
    xcode = folder / "ios/App/App.xcodeproj/project.pbxproj"
    xcode.parent.mkdir(parents=True)
    xcode.write_text(f"MARKETING_VERSION = {version};\nCURRENT_PROJECT_VERSION = {code};\n" * 2)
    return folder


def publish(team, app, www, *more):
    (www / "index.html").write_text(uuid.uuid4().hex)
    return team.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--channel", "production"), *more
    )


def test_the_whole_rotation_on_the_command_line(team, app, www, tmp_path):
    key = f"apps/{app}/keys/capawesome-v1"
    old = project(tmp_path / "old", (tmp_path / "v1.pem").read_text())
    made = team.ok("native", "register", "--app-id", app, "--project", old)["nativeBuilds"]
    assert [b["nativeBuild"].split("/")[-1] for b in made] == [
        "android-1.2.0-12",
        "ios-1.2.0-12",
    ]
    publish(team, app, www)

    started = team.run("rotation", "start", "--app-id", app, "--reason", "yearly")
    assert started.code == 0, started.err
    assert "compile the public key" in started.out
    rotation = team.ok("rotation", "list", "--app-id", app)["rotations"][0]["rotation"]
    waiting = team.run("rotation", "advance", rotation)
    assert waiting.code == 1
    assert "no live native build trusts version 2 yet" in waiting.err

    public = team.ok("key", "show", f"{key}/versions/2")["publicKey"]
    new = project(tmp_path / "new", public, "2.0.0", "20")
    team.ok("native", "register", "--app-id", app, "--project", new)
    for state in ("distributing", "overlap", "promoted"):
        assert team.ok("rotation", "advance", rotation)["state"] == state
    signed = publish(team, app, www)
    assert signed["release"]
    picture = tmp_path / "coverage.svg"
    status = team.run("rotation", "status", "--app-id", app, "--svg", picture)
    assert "android-1.2.0-12" in status.out
    assert "served by version 1" in status.out
    assert "served by version 2" in status.out
    assert picture.read_text().startswith("<svg")
    plan = team.run("rotation", "plan", "--app-id", app)
    assert "strands  android-1.2.0-12, ios-1.2.0-12" in plan.out
    refused = team.run("rotation", "advance", rotation)
    assert "android-1.2.0-12 (0.0%)" in refused.err

    behind = project(tmp_path / "behind", (tmp_path / "v1.pem").read_text(), "2.1.0", "21")
    told = team.run("native", "register", "--app-id", app, "--project", behind)
    assert told.code == 1
    assert "new builds must trust" in told.err

    for build in ("android-1.2.0-12", "ios-1.2.0-12"):
        team.ok("native", "end", f"apps/{app}/nativeBuilds/{build}", "--reason", "forced update")
    assert team.ok("rotation", "advance", rotation, "--expect", "promoted")["state"] == "retired"
    chain = tmp_path / "chain.json"
    team.ok("key", "successors", "--app-id", app, "--out", chain)
    verified = team.ok("key", "verify-successors", chain, "--public-key", tmp_path / "v1.pem")
    assert verified["newestPublicKey"] == public
    other = tmp_path / "statement.pem"
    assert team.run("key", "verify-successors", chain, "--public-key", other).code == 4
    with_log(team, app, chain, tmp_path / "v1.pem", public)
    listed = team.ok("key", "list", "--app-id", app)["keyVersions"]
    states = {v["name"]: v["state"] for v in listed if "capawesome" in v["name"]}
    assert states == {f"{key}/versions/1": "DEACTIVATED", f"{key}/versions/2": "ACTIVE"}
    team.ok("log", "verify", "--log-key", team.data / "log.vkey")


def with_log(team, app, chain, trusted, public):
    """A record that a signer had signed as a digest passes for one, but for the log."""
    words = ("key", "verify-successors", chain, "--public-key", trusted)
    log_key = ("--log-key", team.data / "log.vkey")
    lacks = team.run(*words, *log_key)
    assert (lacks.code, "has no proofs from the log" in lacks.err) == (4, True)
    team.ok("key", "successors", "--app-id", app, *log_key, "--out", chain)
    assert team.ok(*words, *log_key)["newestPublicKey"] == public
    (entry,) = json.loads(chain.read_text())

    thief = ec.generate_private_key(ec.SECP256R1()).public_key()
    trusted = trusted.with_name("v2.pem")
    trusted.write_text(public)
    words = ("key", "verify-successors", chain, "--public-key", trusted)
    old = load_public_key(public.encode())
    forged = Successor(app, "capawesome-v1", 2, 3, public_key_sha256(old), spki_der(thief), 1)
    request = signing_pb.SignReleaseRequest(
        parent=f"apps/{app}",
        version="innocent",
        bundle_sha256=hashlib.sha256(signing_input(forged)).digest(),
        bundle_length=1,
        manifest_sha256=b"m" * 32,
    )
    with Connection(load_profile(str(team.data / "admin/profile.toml"))) as to:
        made = to.call(to.signing.SignRelease, request)
    (signature,) = (s.signature for s in made.signatures if "capawesome" in s.key_version)
    record = json.loads(envelope(forged, signature))
    chain.write_text(json.dumps([record]))
    passed = team.run(*words)
    assert passed.code == 0
    assert "signers of releases can have a record like these made" in passed.err
    for log in (None, entry["log"]):
        chain.write_text(json.dumps([record | ({"log": log} if log else {})]))
        assert team.run(*words, *log_key).code == 4


def test_an_emergency_on_the_command_line(team, app, www, tmp_path):
    standby = tmp_path / "standby.pem"
    made = team.ok("key", "create-standby", "--app-id", app, "--public", standby)
    assert made["keyVersion"].endswith("/versions/2")
    for folder, key, version, code in (
        ("old", "v1.pem", "1.0.0", "10"),
        ("new", "standby.pem", "1.1.0", "11"),
    ):
        place = project(tmp_path / folder, (tmp_path / key).read_text(), version, code)
        team.ok("native", "register", "--app-id", app, "--project", place)
    registered = team.run("native", "register", "--app-id", app, "--project", tmp_path / "new")
    assert "does not sign yet" in registered.err, "nobody ships it unknowing"
    publish(team, app, www)
    time.sleep(1.1)
    start = ("rotation", "start", "--app-id", app, "--reason", "key on a forum")
    for words, told in (
        (("--emergency",), "--emergency needs --old"),
        (("--since", "2026-01-01"), "--since needs --emergency"),
        (("--emergency", "--old", 1, "--since", "yesterday"), "or a day such as"),
    ):
        wrong = team.run(*start, *words)
        assert wrong.code == 2
        assert told in wrong.err
    emergency = (*start, "--emergency", "--old", 1, "--since", "2026-01-01")
    done = team.run(*emergency)
    assert done.code == 0, done.err
    again = team.run(*emergency)
    assert again.code == 1
    assert "is not the primary, which is version 2" in again.err
    assert f"signed with it after its compromise: apps/{app}/releases/1" in done.out
    assert "can be served by the new version: android-1.1.0-11, ios-1.1.0-11" in done.out
    assert "repaired by a store release alone: android-1.0.0-10, ios-1.0.0-10" in done.out
    show = team.ok("key", "show", f"apps/{app}/keys/capawesome-v1/versions/1")
    assert show["state"] == "COMPROMISED"
    assert show["compromiseTime"] == "2026-01-01T00:00:00Z"
    redeploy = ("deploy", "web", "--app-id", app, "--build-id", "1", "--destination", "production")
    told = team.run(*redeploy)
    assert "was withdrawn" in told.err
    assert publish(team, app, www)["release"] != f"apps/{app}/releases/1"
    listed = team.run("live-update", "list-releases", "--app-id", app).out.splitlines()
    assert [line.endswith("withdrawn") for line in listed] == [False, True]
    nothing = team.run("log", "list", "--act", "nosuch", "--app-id", app)
    assert nothing.out == ""
    assert "none of the log's" in nothing.err
    some = team.run("log", "list", "--app-id", app, "--last", 2)
    assert len(some.out.splitlines()) == 2
    assert "the last 2; --last 0 shows all" in some.err
    mine = team.ok("log", "list", "--last", 0, "--principal", "certificate:nobody")
    assert mine["entries"] == []


def test_a_destroyed_version_is_gone_from_the_token(tmp_path):
    softhsm = SoftHsm(tmp_path / "softhsm")
    daemon = Daemon(tmp_path / "data", "approvals = 0\n" + softhsm.settings())
    daemon.init()
    daemon.env |= softhsm.env
    daemon.start()
    try:
        daemon.ok("app", "create", "--app-id", "a")
        daemon.ok(
            *("live-update", "generate-signing-key", "--app-id", "a", "--in-token"),
            *("--public", tmp_path / "v1.pem"),
        )
        daemon.ok("key", "create-standby", "--app-id", "a", "--in-token")
        version = "apps/a/keys/capawesome-v1/versions/2"
        assert version in softhsm.tool("--list-objects", "--type", "privkey")
        daemon.ok("key", "destroy", version, "--reason", "test", "--after", "1s")
        end = time.monotonic() + 20
        while daemon.ok("key", "show", version)["state"] != "DESTROYED":
            assert time.monotonic() < end, daemon.log_text()
            time.sleep(0.3)
        left = softhsm.tool("--list-objects", "--type", "privkey")
        assert version not in left
        assert "versions/1" in left
    finally:
        daemon.stop()


def rotations_under_load(team, app, www, folder, count):
    """Rotate again and again while releases are signed; return what was refused meanwhile."""
    from privyseal.connection import Connection, load_profile
    from privyseal.v1 import signing_service_pb2 as pb

    refused, signed, stop = [], [], threading.Event()

    def load():
        with Connection(load_profile(str(team.data / "admin/profile.toml"))) as to:
            while not stop.is_set():
                request = pb.SignReleaseRequest(
                    parent=f"apps/{app}",
                    version=uuid.uuid4().hex,
                    bundle_sha256=os.urandom(32),
                    bundle_length=1,
                    manifest_sha256=b"m" * 32,
                    bundle_blake2b=os.urandom(64),
                )
                try:
                    to.call(to.signing.SignRelease, request)
                    signed.append(1)
                except ClientError as error:
                    refused.append(str(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        register = ("native", "register", "--app-id", app, "--platform", "android")
        for number in range(2, count + 2):
            made = team.ok(
                *("rotation", "start", "--app-id", app, "--key", "minisign"),
                *("--reason", f"round {number}"),
            )
            public = folder / f"v{number}.pem"
            public.write_text(team.ok("key", "show", made["newVersion"])["publicKey"])
            team.ok(
                *(*register, "--version-name", f"{number}.0.0", "--version-code", str(number)),
                *("--plugin", "minisign", "--public-key", public),
            )
            for _ in range(3):
                team.ok("rotation", "advance", made["rotation"])
            if number > 2:
                name = f"apps/{app}/nativeBuilds/android-{number - 1}.0.0-{number - 1}"
                team.ok("native", "end", name, "--reason", "old")
            team.ok("rotation", "advance", made["rotation"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return refused, len(signed)


@pytest.mark.parametrize("count", [4, pytest.param(100, marks=pytest.mark.long)])
def test_no_request_fails_because_of_a_rotation(team, www, tmp_path, count):
    app = "app-" + uuid.uuid4().hex[:8]
    team.ok("app", "create", "--app-id", app)
    team.ok(
        *("live-update", "generate-signing-key", "--app-id", app, "--scheme", "minisign"),
        *("--public", tmp_path / "v1.pub"),
    )
    team.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    publish(team, app, www)
    refused, signed = rotations_under_load(team, app, www, tmp_path, count)
    assert refused == []
    assert signed > 10 * count
    states = [r["state"] for r in team.ok("rotation", "list", "--app-id", app)["rotations"]]
    assert states == ["retired"] * count
