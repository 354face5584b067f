"""Each runbook, run word by word against a real daemon: one that has drifted fails here.

The commands are those of the shell blocks. What people do in between (compile a key into an
app, lose a disk) stands in comments such as `<!-- test: restart -->`, which name a function
below.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import FROM_HERE, Daemon
from tests.e2e.test_rotation import project
from tests.softhsm import SoftHsm

BOOKS = Path(__file__).resolve().parents[2] / "deploy/runbooks"
NAMES = sorted(path.stem for path in BOOKS.glob("*.md") if path.stem != "README")


class Site:
    """A team's place of work: a daemon, two people, CI, a web build, and a shell."""

    def __init__(self, folder, name):
        self.folder, self.app = folder, "app-" + uuid.uuid4().hex[:6]
        self.daemon = Daemon(folder / "data", FROM_HERE)
        self.token = SoftHsm(folder / "hsm") if name == "hsm-replacement" else None
        if self.token:
            self.daemon.settings += self.token.settings()
        if name == "restore-from-backup":
            self.daemon.settings += self._recipients()
        self.daemon.settings += (
            '[[issuers]]\nname = "github"\nprovider = "github"\norganizations = ["123456"]\n'
        )
        self.daemon.init()
        if self.token:
            self.daemon.env |= self.token.env
        self.daemon.start()
        officer = self.daemon.person(
            *("officer", "security-officer", "admin", "releaser", "auditor", "signer")
        )
        approver = self.daemon.person("approver", "approver")
        for person in ("officer", "approver"):
            shutil.copytree(folder / "data" / person, folder / person)
        shutil.copytree(folder / "data/admin", folder / "admin")
        shutil.copy(folder / "data/log.vkey", folder / "log.vkey")
        assert officer
        assert approver
        www = folder / "www"
        www.mkdir()
        (www / "index.html").write_text("hello")
        self.variables = {
            "APP": self.app,
            "DATA": str(folder / "data"),
            "OFFICER": str(folder / "officer/profile.toml"),
            "APPROVER": str(folder / "approver/profile.toml"),
            "RELEASER": str(folder / "admin/profile.toml"),
            "LOG_KEY": str(folder / "log.vkey"),
            "GATEWAY": self.daemon.gateway,
        }
        if name != "moving-from-appflow":
            place = ("--in-token",) if self.token else ()
            self.daemon.ok("app", "create", "--app-id", self.app)
            self.daemon.ok(
                *("live-update", "generate-signing-key", "--app-id", self.app, *place),
                *("--public", folder / "v1.pem"),
            )
            channel = ("live-update", "create-channel", "--app-id", self.app)
            self.daemon.ok(*channel, "--name", "production")
            self.publish()

    def _recipients(self):
        lines = []
        for officer in ("ada", "ben"):
            path = self.folder / f"{officer}-backup.pem"
            command = [sys.executable, "-m", "privyseal", "backup", "new-recipient", "--private"]
            done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
            lines.append(done.stdout.strip())
        outside = f'last_checkpoint = "{self.folder / "outside"}"\n'
        return f"{outside}[backup]\nrecipients = {json.dumps(lines)}\nthreshold = 2\n"

    def publish(self):
        (self.folder / "www/index.html").write_text(uuid.uuid4().hex)
        return self.daemon.ok(
            *("publish", "--app-id", self.app, "--build-dir", self.folder / "www"),
            *("--channel", "production"),
        )

    def shell(self, script):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env={
                **self.daemon.env,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                **self.variables,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    # What people do in between.

    def act(self, text):
        words = text.split()
        if words[0] == "project":
            self.project(*words[1:])
        else:
            getattr(self, text.replace(" ", "_").lower())()

    def project(self, name, key, version, code):
        if key == "new.pem" and not (self.folder / key).exists():
            listed = self.daemon.ok("key", "list", "--app-id", self.app)["keyVersions"]
            (primary,) = (v for v in listed if v["primary"] and "capawesome" in v["name"])
            (self.folder / key).write_text(primary["publicKey"])
        project(self.folder / name, (self.folder / key).read_text(), version, code)

    def restart(self):
        if self.daemon.process.poll() is None:
            self.daemon.stop()
        self.daemon.start()

    def stop(self):
        self.daemon.stop()

    def leak_a_token(self):
        token = self.daemon.token(self.app, "signer", "releaser")
        self.variables["LEAKED_TOKEN"] = token["NAME"]
        self.daemon.person("job", "signer")
        self.variables["LEAKED_CERTIFICATE"] = str(self.folder / "data/job/client.pem")
        self.variables["GOOD"] = "1"
        self.variables["SUSPECT"] = self.publish()["buildId"]

    def builds_with_and_without_a_standby(self):
        standby = self.folder / "new.pem"
        self.daemon.ok("key", "create-standby", "--app-id", self.app, "--public", standby)
        for name, key, version, code in (
            ("first", "v1.pem", "1.0.0", "10"),
            ("second", "new.pem", "2.0.0", "20"),
        ):
            self.project(name, key, version, code)
            register = ("native", "register", "--app-id", self.app, "--project")
            self.daemon.ok(*register, self.folder / name)
        entries = self.daemon.entries()
        signed = [e for e in entries if e["act"] == "release.sign"]
        time.sleep(1.1)
        self.publish()
        since = datetime.fromtimestamp(signed[0]["time"] + 1, UTC)
        self.variables["SINCE"] = since.strftime("%Y-%m-%dT%H:%M:%SZ")
        self.variables["GOOD"] = "1"

    def clone_the_token(self):
        # SoftHSM's way: the token's directory, under another label.
        self.daemon.stop()
        clone = "updates"
        self.variables["NEW_TOKEN"] = clone
        moved = self.folder / "hsm/clone"
        shutil.copytree(self.token.tokens, moved)
        shutil.rmtree(self.token.tokens)
        conf = self.token.conf
        conf.write_text(conf.read_text().replace(str(self.token.tokens), str(moved)))

    def an_officer_who_leaves(self):
        self.daemon.person("leaver", "security-officer", "approver")
        self.variables["LEAVER"] = "leaver"
        self.variables["LEAVER_CERTIFICATE"] = str(self.folder / "data/leaver/client.pem")

    def seal_with_shares(self):
        out = self.shell("privyseald kek rewrap --data $DATA --to shares")
        for number, line in enumerate(out.splitlines()[:3], 1):
            (self.folder / f"share-{number}").write_text(line.partition(": ")[2] + "\n")

    def lose_everything_after_a_backup(self):
        script = (
            "asked=$(as_officer approval request --action backup.export --app-id - "
            "--subject backup --reason nightly | cut -d' ' -f1)\n"
            "as_approver approval approve $asked\n"
            "as_officer backup create --out privyseal.backup\n"
        )
        self.shell(preamble() + script)
        self.publish()
        lines = (self.folder / "outside").read_text().splitlines()
        self.variables["SIGNED_ENTRIES"] = lines[1]
        self.daemon.stop()
        shutil.rmtree(self.folder / "data")

    def an_appflow_key(self):
        key = rsa.generate_private_key(65537, 2048)
        plain = serialization.NoEncryption()
        pkcs1 = serialization.PrivateFormat.TraditionalOpenSSL
        pem = serialization.Encoding.PEM
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        (self.folder / "ionic_cloud_private.pem").write_bytes(key.private_bytes(pem, pkcs1, plain))
        (self.folder / "ionic_cloud_public.pem").write_bytes(
            key.public_key().public_bytes(pem, spki)
        )


def preamble():
    """Return what the runbooks' README has people define first."""
    text = (BOOKS / "README.md").read_text()
    return re.search(r"```sh\n(.*?)```", text, re.DOTALL)[1]


@pytest.mark.parametrize("name", NAMES)
def test_runbook(tmp_path, name):
    text = (BOOKS / f"{name}.md").read_text()
    site = Site(tmp_path, name)
    steps = re.findall(r"<!-- test: (.*?) -->|```sh\n(.*?)```", text, re.DOTALL)
    assert sum(bool(block) for _, block in steps) >= 2
    try:
        for act, block in steps:
            if act:
                site.act(act)
            else:
                site.shell(preamble() + block)
    finally:
        if site.daemon.process.poll() is None:
            site.daemon.stop()


def test_every_runbook_is_in_the_list():
    listed = re.findall(r"`([a-z-]+)\.md`", (BOOKS / "README.md").read_text())
    assert sorted(set(listed)) == NAMES
