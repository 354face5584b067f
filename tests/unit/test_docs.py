"""What the documents show is what the programs take."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from privyseal.ceremony import read_plan
from privyseal.cli.main import cli
from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.config import (
    BackupSettings,
    IssuerSettings,
    KekSettings,
    Settings,
    TokenSettings,
    TrustDomain,
)
from privyseald.main import main as daemon

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(kind):
    for document in DOCUMENTS:
        for text in re.findall(rf"```{kind}\n(.*?)```", document.read_text(), re.DOTALL):
            yield document.name, text


def commands():
    for name, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] in {"privyseal", "privyseald"}:
                yield pytest.param(words, id=f"{name}: {' '.join(words[:3])}")


@pytest.mark.parametrize("words", list(commands()))
def test_a_command_in_the_documents_is_one(words, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command, rest = (cli if words[0] == "privyseal" else daemon), words[1:]
    rest = rest[:-1] if rest[-1] == "&" else rest
    while hasattr(command, "get_command"):
        name, *rest = rest
        found = command.get_command(None, name)
        assert found is not None, words
        command = found
    command.make_context(command.name, rest)


def test_policies_in_the_documents_can_be_applied():
    texts = [text for _, text in blocks("cedar")]
    assert texts
    for text in texts:
        CedarPolicies(1).compile(text)


def test_settings_in_the_documents_can_be_loaded(tmp_path):
    texts = [text for _, text in blocks("toml") if "participants" not in text]
    assert len(texts) >= 2
    for text in texts:
        Settings(data=tmp_path, **tomllib.loads(text))


def test_ceremonies_in_the_documents_can_be_read(tmp_path):
    texts = [text for _, text in blocks("toml") if "participants" in text]
    assert texts
    for text in texts:
        (tmp_path / "keys.toml").write_text(text)
        assert read_plan(tmp_path / "keys.toml").keys


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(
            r"`((?:docs|deploy|server|tests)/[\w./-]+)`", document.read_text()
        ):
            assert (ROOT / target).exists(), f"{document.name} names {target}"


def test_the_contract_of_what_the_daemon_takes_names_every_other_part_of_the_client():
    """A part that is added is forbidden as well, unless somebody says otherwise."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in contracts["contracts"] if "only v1 and verify" in c["name"])
    parts = {path.stem for path in (ROOT / "client/privyseal").iterdir()}
    kept = {"v1", "verify", "__init__", "__main__", "__pycache__", "_version"}
    named = {name.removeprefix("privyseal.") for name in contract["forbidden_modules"]}
    assert named == parts - kept


def test_every_setting_is_in_the_documents():
    """Of the daemon, with its sections, and of the client."""
    text = (ROOT / "docs/settings.md").read_text()
    named = set(re.findall(r"`\[*([A-Za-z_]+)\]*`", text))
    sections = (IssuerSettings, TrustDomain, TokenSettings, KekSettings, BackupSettings, Settings)
    wanted = {name for section in sections for name in section.model_fields}
    source = "".join(p.read_text() for p in (ROOT / "client/privyseal").rglob("*.py"))
    wanted |= set(re.findall(r"\bPRIVYSEAL_[A-Z_]+[A-Z]\b", source))
    assert wanted - named == set()
    assert {n for n in named if n.startswith("PRIVYSEAL_")} <= wanted


def test_what_is_installed_is_what_was_tested():
    def pins(name):
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if "==" in line and line[0] != " "}

    tested = pins("dev.txt")
    assert pins("client.txt") < pins("server.txt") < tested
