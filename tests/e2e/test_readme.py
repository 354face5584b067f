"""The README's guide, run word by word in an empty directory."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests import zygote
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[2]


def blocks(heading):
    """Return the shell blocks under a heading of the README."""
    text = (ROOT / "README.md").read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def test_the_five_minutes_by_hand(tmp_path):
    shutil.copytree(ROOT / "deploy/demo/www", tmp_path / "deploy/demo/www")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PRIVYSEALD_LISTEN_TOKENS": f"127.0.0.1:{free_port()}",
        "PRIVYSEALD_LISTEN_CERTIFICATES": f"127.0.0.1:{free_port()}",
        "PRIVYSEALD_GATEWAY": f"127.0.0.1:{free_port()}",
    }
    guide = blocks("Five minutes by hand")
    assert len(guide) == 3
    script = "\n".join(guide).replace("127.0.0.1:8080", env["PRIVYSEALD_GATEWAY"])
    shell = subprocess.Popen(
        ["bash", "-eu", "-c", script],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert shell.wait(60) == 0, os.read(shell.stdout.fileno(), 65536).decode()
        assert (tmp_path / "receipt.json").exists()
        assert (tmp_path / "statement.pem").exists()
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.stdout.close()


def test_each_command_shows_an_example_in_its_help():
    """Every verb has help with an example, and the example is one of the program's words."""
    for verb in commands_in(help_of()):
        for sub in commands_in(help_of(verb)) or [""]:
            words = [verb, *([sub] if sub else [])]
            example = "Example: privyseal " + " ".join(words)
            assert example in " ".join(help_of(*words).split())


def help_of(*words):
    code, out, err = zygote.run("client", [*words, "--help"], env=os.environ)
    assert code == 0, err
    return out


def commands_in(text):
    if "Commands:" not in text:
        return []
    return re.findall(r"^  ([a-z-]+) ", text.split("Commands:")[1], re.MULTILINE)
