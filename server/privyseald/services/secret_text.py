"""The text of credentials: recognisable, with a checksum, 180 bits of chance in it.

`pst_` begins an API token, `pss_` a workload's session: scanners know them by that.
"""

from __future__ import annotations

import secrets
import zlib

from privyseald.model.errors import Unauthenticated

TOKEN_PREFIX = "pst_"  # noqa: S105 - the recognisable part, not a secret
SESSION_PREFIX = "pss_"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZabcdefghijkmnpqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECKSUM_LENGTH = 12, 31, 6
_LENGTH = len(TOKEN_PREFIX) + _ID_LENGTH + _SECRET_LENGTH + _CHECKSUM_LENGTH


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits


def new_secret(prefix: str) -> tuple[str, str]:
    """Return the id and the text of a new credential."""
    secret_id = "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))
    chance = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    body = prefix + secret_id + chance
    return secret_id, body + _checksum(body)


def secret_id_of(text: str) -> str:
    """Return the id in a credential's text.

    Raises:
        Unauthenticated: If it is not of a credential's form; the checksum catches a cut one.
    """
    body, checksum = text[:-_CHECKSUM_LENGTH], text[-_CHECKSUM_LENGTH:]
    if (
        len(text) != _LENGTH
        or not text.startswith((TOKEN_PREFIX, SESSION_PREFIX))
        or not text.isascii()
        or _checksum(body) != checksum
    ):
        raise Unauthenticated(
            "the API token is malformed or was cut; copy it again", reason="TOKEN_MALFORMED"
        )
    return text[len(TOKEN_PREFIX) : len(TOKEN_PREFIX) + _ID_LENGTH]
