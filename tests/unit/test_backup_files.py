"""What `privyseal backup` writes: for its owner alone, and over nothing that is there."""

import stat

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from privyseal.cli.main import cli
from privyseal.verify.backup import MAGIC, Header, Recipient, seal_share

SHARE = "duckling enlarge academic academic"
ID = "0123456789abcdef" * 2


def run(*arguments):
    return CliRunner().invoke(cli, ["backup", *map(str, arguments)])


@pytest.fixture
def private(tmp_path):
    path = tmp_path / "ada.pem"
    assert run("new-recipient", "--private", path).exit_code == 0
    return path


@pytest.fixture
def backup(tmp_path, private):
    """The beginning of a backup that the owner of a private key opens alone."""
    public = load_pem_private_key(private.read_bytes(), None).public_key().public_bytes_raw()
    header = Header(
        id=ID,
        origin="example.com/log",
        created_at=1_800_000_000,
        checkpoint="note",
        threshold=1,
        recipients=(Recipient(public, seal_share(SHARE, ID, public)),),
        sealed_kek=b"kek",
        kek_check="00",
    )
    path = tmp_path / "a.backup"
    path.write_bytes(MAGIC + header.line())
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_recipients_private_key_is_its_owners_and_replaces_none(private):
    assert mode(private) == 0o600
    before = private.read_bytes()
    again = run("new-recipient", "--private", private)
    assert again.exit_code == 1
    assert "File exists" in again.output
    assert private.read_bytes() == before


def test_a_share_is_its_owners_and_replaces_nothing(backup, private, tmp_path):
    target = tmp_path / "share"
    open_share = ("open-share", backup, "--private", private)
    assert SHARE in run(*open_share).output
    done = run(*open_share, "--out", target)
    assert done.exit_code == 0
    assert SHARE not in done.output
    assert (mode(target), target.read_text()) == (0o600, SHARE + "\n")
    target.write_text("other")
    again = run(*open_share, "--out", target)
    assert again.exit_code == 1
    assert target.read_text() == "other"


def test_a_backup_replaces_none(tmp_path):
    target = tmp_path / "b.backup"
    target.write_text("other")
    refused = run("create", "--out", target)
    assert refused.exit_code == 1
    assert "exists; name another" in refused.output
    assert target.read_text() == "other"
