"""The key-encryption key under a key of AWS KMS."""

from __future__ import annotations

from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from privyseald.keyholder.kek import KekError, KekRecord, check_of

_CONFIG = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})


def seal_with_aws(kek: bytes, key_id: str) -> KekRecord:
    """Seal the key under a symmetric KMS key.

    Args:
        kek: 32 bytes.
        key_id: Its id, ARN or alias, in the region and with the credentials that AWS's own
            variables and files name.

    Raises:
        KekError: If KMS refuses or cannot be reached.
    """
    check = check_of(kek)
    try:
        client = _client("")
        made = client.encrypt(KeyId=key_id, Plaintext=kek, EncryptionContext=_context(check))
    except (BotoCoreError, ClientError) as error:
        raise _failure(error) from None
    params = {"keyId": made["KeyId"], "region": client.meta.region_name}
    return KekRecord("aws-kms", check, params, made["CiphertextBlob"])


def open_with_aws(record: KekRecord) -> bytes:
    """Return the key. Raises KekError."""
    try:
        opened = _client(str(record.params.get("region", ""))).decrypt(
            KeyId=str(record.params.get("keyId")),
            CiphertextBlob=record.sealed,
            EncryptionContext=_context(record.check),
        )
    except (BotoCoreError, ClientError) as error:
        raise _failure(error) from None
    return record.checked(bytes(opened["Plaintext"]))


def _client(region: str) -> Any:
    session = botocore.session.get_session()
    return session.create_client("kms", region_name=region or None, config=_CONFIG)


def _context(check: str) -> dict[str, str]:
    return {"privyseal": "kek", "check": check}


def _failure(error: BotoCoreError | ClientError) -> KekError:
    # The error's own text can hold endpoints and ids of keys; its name says enough.
    if isinstance(error, ClientError):
        return KekError(f"AWS KMS refused: {error.response['Error']['Code']}")
    return KekError(f"AWS KMS cannot be used: {type(error).__name__}")
