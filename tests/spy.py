"""OpenSC's spy between the product and a PKCS #11 module: writes down every call of the suite."""

import re
from pathlib import Path

PRIVATE = re.compile(
    r"^ *CKA_(VALUE|PRIVATE_EXPONENT|PRIME_[12]|EXPONENT_[12]|COEFFICIENT|SEED)\b", re.MULTILINE
)
_CALL = re.compile(r"^\d+: (C_\w+)$", re.MULTILINE)
LOGS: list[Path] = []
"""What was spied on in this process's tests."""


def spy() -> str:
    return str(next(Path("/usr/lib").rglob("pkcs11-spy.so")))


def environment(module: str, log: Path) -> dict:
    """Have the spy call a module, and write to a file."""
    LOGS.append(log)
    return {"PKCS11SPY": module, "PKCS11SPY_OUTPUT": str(log)}


def nothing_private_was_asked_for(text: str) -> int:
    """Assert that calls neither read a private value nor wrap a key; return how many there are.

    To create an object, a key that is imported, its values are given and not asked for.
    """
    parts = _CALL.split(text)
    calls = list(zip(parts[1::2], parts[2::2], strict=True))
    for name, told in calls:
        assert name != "C_WrapKey", told
        found = name != "C_CreateObject" and PRIVATE.search(told)
        assert not found, f"{name} touches {found[0].strip()}"
    return len(calls)


def check() -> tuple[int, int]:
    """Check every log; return how many there are, and the calls in them."""
    texts = [log.read_text(errors="replace") for log in LOGS if log.exists()]
    return len(texts), sum(nothing_private_was_asked_for(text) for text in texts)
