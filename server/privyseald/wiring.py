"""What is made of the settings: the token, the custodian, issuers, the gateway's server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette

from privyseald.adapters.identity_oidc import OidcTokens
from privyseald.adapters.jwks import Jwks, JwksSource
from privyseald.config import IssuerSettings, Settings
from privyseald.gateway.connections import MOST, PatientServer
from privyseald.keyholder.custody import Custody
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.keystores import REFUSED, HsmSettings
from privyseald.model.workload import Issuer

_LOOPBACK = frozenset({"127.0.0.1", "[::1]", "localhost"})


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
    (settings.data / REFUSED).unlink(missing_ok=True)
    # Here, so that a daemon without a token needs no PKCS #11 library.
    from privyseald.keyholder.hsm_session import log_in, token_errors

    with token_errors(), log_in(token):
        pass


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


def _file(settings: Settings, path: Path | None) -> Path | None:
    return None if path is None else settings.file(path)


class GatewayServer:
    """Serves the gateway to devices.

    Args:
        settings: Where, and with which certificate.
        gateway: The application.
    """

    def __init__(self, settings: Settings, gateway: Starlette) -> None:
        host, _, port = settings.gateway.rpartition(":")
        config = uvicorn.Config(
            gateway,
            host=host,
            port=int(port),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            limit_concurrency=2 * MOST,
            timeout_graceful_shutdown=3,
            ssl_certfile=_file(settings, settings.gateway_certificate),
            ssl_keyfile=_file(settings, settings.gateway_key),
        )
        self._address = settings.gateway
        if settings.gateway_certificate is None and host not in _LOOPBACK:
            structlog.get_logger("gateway").warning(
                "devices are served without TLS; set gateway_certificate, or listen on loopback "
                "behind a proxy: Ionic's plugin verifies nothing else",
                gateway=settings.gateway,
            )
        self._server = PatientServer(config)
        self._server.capture_signals = nullcontext  # type: ignore[method-assign,assignment] # the daemon's own handlers stop it
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it; when this returns, it is serving. Raises OSError if the port is taken."""
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._task.done():
                raise OSError(f"cannot listen on {self._address}; is another daemon running?")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Finish what was accepted and stop."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
