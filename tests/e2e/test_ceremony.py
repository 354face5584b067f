"""Keys made by several people from one reviewed file."""

import hashlib
import os
import uuid

import pytest

from tests.conftest import Daemon
from tests.softhsm import SoftHsm

FILE = """
title = "Keys of the shop"
app = "{app}"
participants = ["Ada Lovelace", "Grace Hopper"]

[create_app]
name = "Shop"
in_token = true
public = "{folder}/statement.pem"

[[keys]]
scheme = "capawesome-v1"
algorithm = "rsa-3072"
in_token = true
public = "{folder}/capawesome.pem"
standby_public = "{folder}/standby.pem"
cryptoperiod_days = 730

[[keys]]
scheme = "minisign"
public = "{folder}/minisign.pub"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("site") / "data")
    token = SoftHsm(tmp_path_factory.mktemp("hsm"))
    running.settings += token.settings()
    running.init()
    running.env |= token.env
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "keys.toml"
    app = "app-" + uuid.uuid4().hex[:8]
    made.write_text(FILE.format(app=app, folder=tmp_path / "public"))
    return made


def test_what_was_reviewed_is_made_and_told(site, file, tmp_path):
    reviewed = site.ok("ceremony", file, "--dry-run")
    assert reviewed["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(reviewed["makes"]) == 3
    assert not (tmp_path / "public").exists()

    words = ("ceremony", file, "--sha256", reviewed["sha256"])
    made = site.ok(*words, "--transcript", tmp_path / "transcript.txt")
    text = (tmp_path / "transcript.txt").read_bytes()
    assert hashlib.sha256(text).hexdigest() == made["transcriptSha256"]
    numbers = [name.split("/", 2)[2] for name in made["keyVersions"]]
    assert numbers == [
        "keys/statement-v1/versions/1",
        "keys/capawesome-v1/versions/1",
        "keys/capawesome-v1/versions/2",
        "keys/minisign/versions/1",
    ]
    listed = {v["name"]: v for v in site.ok("key", "list", "--app-id", app_of(file))["keyVersions"]}
    for name in made["keyVersions"]:
        assert name.encode() in text
        assert listed[name]["publicKeySha256"].encode() in text
        assert listed[name]["publicKey"].split("\n")[1].encode() in text
    assert text.count(b"pkcs11:token=updates") == 3
    assert {p.name for p in (tmp_path / "public").iterdir()} == {
        *("statement.pem", "capawesome.pem", "standby.pem", "minisign.pub"),
    }
    standby = site.ok("key", "show", made["keyVersions"][2])
    assert standby["state"] == "PRE_ACTIVATION"

    (leaf,) = [e for e in site.entries() if e["act"] == "key.ceremony"]
    assert leaf["fileSha256"] == reviewed["sha256"]
    assert leaf["transcriptSha256"] == made["transcriptSha256"]
    assert leaf["participants"] == ["Ada Lovelace", "Grace Hopper"]
    assert [k["name"] for k in leaf["keys"]] == made["keyVersions"]
    assert leaf["keys"][3]["publicKeySha256"] == listed[made["keyVersions"][3]]["publicKeySha256"]

    # Again, with the files out of the way: nothing is made twice, and the same is told.
    (tmp_path / "public").rename(tmp_path / "first")
    again = site.ok(*words, "--transcript", tmp_path / "again.txt")
    assert again["logIndex"] == made["logIndex"]
    assert (tmp_path / "again.txt").read_bytes() == text
    for path in (tmp_path / "first").iterdir():
        assert (tmp_path / "public" / path.name).read_bytes() == path.read_bytes()


def app_of(file):
    return file.read_text().split('app = "')[1].split('"')[0]


def test_another_file_than_the_reviewed_one_makes_nothing(site, file, tmp_path):
    reviewed = site.ok("ceremony", file, "--dry-run")["sha256"]
    file.write_text(file.read_text() + "# one thing more\n")
    words = ("ceremony", file, "--transcript", tmp_path / "t.txt")
    for more, given in ((("--sha256", reviewed), ""), ((), reviewed + "\n")):
        refused = site.run(*words, *more, stdin=given)
        assert refused.code == 1
        assert "is not what was reviewed" in refused.err
    assert not (tmp_path / "t.txt").exists()
    assert not any(a["appId"] == app_of(file) for a in site.ok("app", "list")["apps"])


def test_no_file_is_replaced(site, file, tmp_path):
    reviewed = site.ok("ceremony", file, "--dry-run")["sha256"]
    (tmp_path / "public").mkdir()
    (tmp_path / "public/minisign.pub").write_text("mine")
    refused = site.run(
        *("ceremony", file, "--sha256", reviewed, "--transcript", tmp_path / "t.txt")
    )
    assert "replaces no file" in refused.err
    assert (tmp_path / "public/minisign.pub").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('title = "Keys of the shop"', ""), "lacks title"),
        (('["Ada Lovelace", "Grace Hopper"]', "[]"), "must be 1 to 20 names"),
        (("Grace Hopper", "Ada Lovelace"), "names somebody twice"),
        (("Keys of the shop", "x" * 101), "title must be 1 to 100"),
        (("Grace Hopper", "Grace \\u0007"), "that can be seen"),
        (("730", "3651"), "must be 0 to 3,650"),
        (("cryptoperiod_days", "cryptoperiod"), "cryptoperiod, which is none of"),
        (("730", "true"), "must be a whole number"),
        (('"minisign"', '"capawesome-v1"'), "the same scheme"),
        (("standby.pem", "capawesome.pem"), "the same file"),
        (('"rsa-3072"', '"rsa-1024"'), "rsa-1024 in the file is none that there is"),
        (('scheme = "minisign"', 'scheme = "mini'), "is no TOML"),
        (("[create_app]", "[[create_app]]"), "must be a table"),
    ],
)
def test_a_file_that_says_less_or_more_is_refused(site, file, tmp_path, change, told):
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    refused = site.run(*("ceremony", file, "--sha256", digest, "--transcript", tmp_path / "t"))
    assert refused.code == 1
    assert told in refused.err
    assert not (tmp_path / "t").exists()


def test_only_who_manages_keys_records_a_ceremony(site, file, tmp_path):
    digest = site.ok("ceremony", file, "--dry-run")["sha256"]
    signer = site.person("sam-" + os.urandom(2).hex(), "signer")
    refused = site.run(
        *("ceremony", file, "--sha256", digest, "--transcript", tmp_path / "t"), **signer
    )
    assert refused.code == 1
    assert "has no grant for app.create" in refused.err
