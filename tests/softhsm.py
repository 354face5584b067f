"""A SoftHSM token of one's own."""

import os
import shutil
import subprocess
from pathlib import Path

from tests import spy

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


class SoftHsm:
    def __init__(self, folder: Path, label: str = "updates") -> None:
        self.folder, self.label, self.pin = folder, label, "5678"
        self.tokens = folder / "tokens"
        self.tokens.mkdir(parents=True)
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.pin_file = folder / "pin"
        self.pin_file.write_text(self.pin + "\n")
        self.module, self.spied = spy.spy(), folder / "spy.txt"
        self.env = {"SOFTHSM2_CONF": str(self.conf), **spy.environment(MODULE, self.spied)}
        self.run("--init-token", "--free", "--label", label, "--so-pin", "1234", "--pin", self.pin)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["softhsm2-util", *arguments],
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def tool(self, *arguments: str) -> str:
        """Run opensc's pkcs11-tool on the token, as its user."""
        done = subprocess.run(
            [
                *("pkcs11-tool", "--module", MODULE, "--token-label", self.label),
                *("--login", "--pin", self.pin, *arguments),
            ],
            env={**os.environ, **self.env},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout

    def settings(self) -> str:
        return (
            f'\n[hsm]\nmodule = "{self.module}"\ntoken = "{self.label}"\n'
            f'pin_file = "{self.pin_file}"\n'
        )

    def keep(self) -> None:
        """Keep a copy of what SoftHSM empties if it dies while it writes it, as at a login."""
        (self.file,) = self.tokens.glob("*/token.object")
        self.copy = self.file.read_bytes()

    def heal(self) -> None:
        """Put that back; other devices do not lose themselves."""
        if self.file.exists() and not self.file.stat().st_size:
            self.file.write_bytes(self.copy)

    def remove(self) -> None:
        """Pull the token out."""
        self.tokens.rename(self.folder / "elsewhere")
        self.tokens.mkdir()

    def put_back(self) -> None:
        shutil.rmtree(self.tokens)
        (self.folder / "elsewhere").rename(self.tokens)

    def change_pin(self, new: str) -> None:
        """Change the PIN in the token, and not in the file."""
        self.tool("--change-pin", "--new-pin", new)
        self.pin = new
