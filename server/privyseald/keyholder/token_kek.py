"""The key-encryption key under an AES key of a token."""

from __future__ import annotations

import secrets
from typing import Any

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from privyseald.keyholder.hsm_session import log_in, token_errors
from privyseald.keyholder.kek import KekError, KekRecord, check_of
from privyseald.keyholder.keystores import HsmSettings

_LABEL = "privyseal-kek"
_IV = 16


def seal_with_token(kek: bytes, settings: HsmSettings) -> KekRecord:
    """Seal the key under the token's AES key, which is made if there is none.

    Raises:
        KekError: If it has several, or one that may not encrypt.
        HsmDownError: If the token cannot be used.
    """
    iv = secrets.token_bytes(_IV)
    with token_errors(), log_in(settings) as session:
        found = _keys(session)
        if len(found) > 1:
            raise KekError(f"the token has {len(found)} AES keys {_LABEL}; leave one")
        key = found[0] if found else _make(session)
        _require(key, "encrypt")
        # Not authenticated: `check` tells whether what was opened is the key.
        sealed = key.encrypt(kek, mechanism=Mechanism.AES_CBC_PAD, mechanism_param=iv)
    return KekRecord("token", check_of(kek), {"label": _LABEL}, iv + bytes(sealed))


def open_with_token(record: KekRecord, settings: HsmSettings) -> bytes:
    """Return the key.

    Raises:
        KekError: If the token has not the AES key that sealed it.
        HsmDownError: If the token cannot be used; PinRefusedError if a person must look.
    """
    iv, sealed = record.sealed[:_IV], record.sealed[_IV:]
    with token_errors(), log_in(settings) as session:
        found = _keys(session)
        if len(found) != 1:
            raise KekError(f"the token has {len(found)} AES keys {_LABEL}, not one")
        _require(found[0], "decrypt")
        try:
            kek = found[0].decrypt(sealed, mechanism=Mechanism.AES_CBC_PAD, mechanism_param=iv)
        except (
            pkcs11.exceptions.EncryptedDataInvalid,
            pkcs11.exceptions.EncryptedDataLenRange,
            pkcs11.exceptions.GeneralError,
        ):
            raise KekError("the token's AES key does not open it") from None
    return record.checked(bytes(kek))


def _require(key: Any, use: str) -> None:
    # python-pkcs11 gives a key the methods that its attributes allow.
    if not hasattr(key, use):
        raise KekError(f"the token's AES key {_LABEL} may not {use}")


def _keys(session: Any) -> list[Any]:
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: _LABEL}
    return list(session.get_objects(wanted))


def _make(session: Any) -> Any:
    template = {
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.PRIVATE: True,
        Attribute.WRAP: False,
        Attribute.UNWRAP: False,
    }
    return session.generate_key(KeyType.AES, 256, label=_LABEL, store=True, template=template)
