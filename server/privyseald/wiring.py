"""What is made of the settings: the token, the custodian, issuers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from privyseald.adapters.identity_oidc import OidcTokens
from privyseald.adapters.jwks import Jwks, JwksSource
from privyseald.config import IssuerSettings, Settings
from privyseald.data_dir import hand_over
from privyseald.keyholder.custody import Custody
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.keystores import REFUSED, HsmSettings
from privyseald.model.workload import Issuer


def token_settings(settings: Settings) -> HsmSettings | None:
    """Return what the keyholders need to know of the token, None if there is none."""
    if settings.hsm is None:
        return None
    given = settings.hsm
    return HsmSettings(
        module=str(given.module),
        token=given.token,
        state=str(settings.data),
        serial=given.serial,
        pin_file=str(settings.file(given.pin_file)) if given.pin_file else "",
        pin_env=given.pin_env,
        pin_credential=given.pin_credential,
        pin_prompt=given.pin_prompt,
    )


def login_to_token(settings: Settings, ask: Callable[[str], str]) -> None:
    """Try the token's PIN once more, because a person says so.

    Args:
        settings: Which token.
        ask: Asks that person for the PIN, where it is in no file.

    Raises:
        HsmDownError: If it fails; PinRefusedError if the PIN was refused.
        ValueError: If there is no token in the settings.
    """
    token = token_settings(settings)
    if token is None:
        raise ValueError("there is no [hsm] in the settings")
    if token.pin_prompt:
        token = replace(token, typed=ask("PIN"))
    # Here, so that a daemon without a token needs no PKCS #11 library.
    from privyseald.keyholder.hsm_session import log_in, token_errors

    try:
        with token_errors(), log_in(token, again=True):
            # A person has looked: from now on the daemon's processes may, too.
            (settings.data / REFUSED).unlink(missing_ok=True)
    finally:
        for file in settings.data.glob("hsm-*"):
            hand_over(file)


def custody(settings: Settings) -> Custody:
    """Return where the keyholders get the key-encryption key from."""
    file, quorum = settings.kek.passphrase_file, settings.backup
    return Custody(
        CustodySettings(
            data=str(settings.data),
            passphrase_file=str(settings.file(file)) if file else "",
            passphrase_credential=settings.kek.passphrase_credential,
            token=token_settings(settings),
            recipients=tuple(key.hex() for key in quorum.keys) if quorum else (),
            threshold=quorum.threshold if quorum else 0,
        )
    )


def tokens(settings: Settings) -> OidcTokens:
    """Return what verifies the identity tokens of the issuers in the settings."""
    return OidcTokens([_issuer(settings, issuer) for issuer in settings.issuers])


def _issuer(settings: Settings, given: IssuerSettings) -> tuple[Issuer, Jwks]:
    issuer = Issuer(
        name=given.name,
        provider=given.provider,
        url=given.url,
        audience=given.audience or settings.token_audience,
        organizations=given.organizations,
        max_lifetime=given.max_lifetime,
        session_seconds=given.session_seconds,
        claims=given.claims,
    )
    source = JwksSource(
        issuer=given.url,
        uri=given.jwks_uri,
        file=settings.file(given.jwks_file) if given.jwks_file else None,
        ca_file=settings.file(given.ca_file) if given.ca_file else None,
        hosts=given.jwks_hosts,
        stale_seconds=given.stale_seconds,
    )
    return issuer, Jwks(source, time.monotonic)
