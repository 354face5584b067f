"""What is in deploy/ keeps what it promises."""

import subprocess
from pathlib import Path

UNIT = Path(__file__).resolve().parents[2] / "deploy/systemd/privyseald.service"


def test_the_unit_is_confined_and_restarts():
    """systemd's own analysis; 15 is 1.5 of 10, where a plain unit has 9.2."""
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", UNIT],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr
    text = UNIT.read_text()
    assert "\nRestart=always\n" in text
    assert "\nLimitCORE=0\n" in text
