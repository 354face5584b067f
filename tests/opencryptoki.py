"""openCryptoki's software token: another PKCS #11 module than SoftHSM, of the whole machine."""

import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.interop.conftest import need

MODULE = "/usr/lib/x86_64-linux-gnu/opencryptoki/libopencryptoki.so.0"
LABEL = "updates"
TOKEN = Path("/var/lib/opencryptoki/swtok")
_SO_PIN = ("87654321", "11223344")
"""The one that every new token has, and ours."""


class OpenCryptoki:
    """The token of slot 3, made anew; one user of it at a time.

    Args:
        folder: Where the PIN's file goes.
    """

    def __init__(self, folder: Path) -> None:
        need("pkcsslotd")
        self.label, self.pin_file = LABEL, folder / "pin"
        self.pin_file.write_text("56785678\n")
        self._lock = (Path(tempfile.gettempdir()) / "privyseal-opencryptoki.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Anew, also after a run that was cut off: its PINs are nobody's any more.
        subprocess.run(["pkill", "-x", "pkcsslotd"], timeout=30)
        time.sleep(0.5)
        for leftover in TOKEN.iterdir():
            if leftover.is_file():
                leftover.unlink()
        for leftover in (TOKEN / "TOK_OBJ").iterdir():
            leftover.unlink()
        subprocess.run(["pkcsslotd"], capture_output=True, timeout=30)
        end = time.monotonic() + 10
        while b"Token #3" not in self._conf("-t"):
            assert time.monotonic() < end, "pkcsslotd shows no software token"
            time.sleep(0.1)
        self._conf("-I", "-c", "3", "-S", _SO_PIN[0], given=LABEL)
        self._conf("-P", "-c", "3", "-S", _SO_PIN[0], "-n", _SO_PIN[1])
        self._conf("-u", "-c", "3", "-S", _SO_PIN[1], "-n", "12345678")
        self._conf("-p", "-c", "3", "-U", "12345678", "-n", "56785678")
        assert b"USER_PIN_INITIALIZED" in self._conf("-t", "-c", "3")

    def close(self) -> None:
        self._lock.close()

    @staticmethod
    def _conf(*arguments: str, given: str = "") -> bytes:
        return subprocess.run(
            ["pkcsconf", *arguments],
            input=f"{given}\n".encode(),
            capture_output=True,
            timeout=30,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
