"""Settings: `privyseald.toml` in the data directory, overridden by PRIVYSEALD_* variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from privyseal.verify.backup import MAX_RECIPIENTS, parse_recipient
from privyseal.verify.errors import VerificationError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from privyseald.model.workload import ATTRIBUTES, Issuer, Provider

LOSS = "accepted-loss.json"
"""The file by which `privyseald accept-loss` tells the daemon what to write into the log."""
RESTORED = "restored"
"""The mark of a data directory that `privyseald restore` made."""

_URLS = {
    Provider.GITHUB: "https://token.actions.githubusercontent.com",
    Provider.GITLAB: "https://gitlab.com",
    Provider.BUILDKITE: "https://agent.buildkite.com",
}


class IssuerSettings(BaseModel):
    """One `[[issuers]]`: a CI system, or another OpenID Connect issuer, that is trusted."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """Short: the issuer's part in workload:{issuer}:{id}."""
    provider: Provider
    """Whose claims: github, gitlab, buildkite, circleci, bitbucket, azure-devops, kubernetes or
    oidc."""
    url: str = ""
    """The exact `iss`; known for github.com, gitlab.com and Buildkite."""
    organizations: frozenset[str] = frozenset()
    """Ids of the owners that count; required where one issuer serves everybody."""
    audience: str = ""
    """The exact `aud`, if it is not the daemon's own `audience`."""
    max_lifetime: int = Field(default=7200, ge=60, le=86_400)
    """The longest exp - iat accepted, in seconds."""
    session_seconds: int = Field(default=600, ge=60, le=3600)
    """How long a session lasts."""
    claims: dict[str, str] = {}
    """For `oidc`: attribute -> claim; repository_id must be one that never changes."""
    jwks_uri: str = ""
    """Where its keys are; found by discovery if empty."""
    jwks_file: Path | None = None
    """A file with its keys instead, for issuers that cannot be reached."""
    jwks_hosts: tuple[str, ...] = ()
    """Other hosts that discovery may name."""
    ca_file: Path | None = None
    """CAs to trust for it, PEM; the system's if absent."""
    stale_seconds: int = Field(default=86_400, ge=60, le=7 * 86_400)
    """How long known keys serve while it is out of reach."""

    @model_validator(mode="after")
    def _complete(self) -> IssuerSettings:
        self.url = self.url or _URLS.get(self.provider, "")
        if not self.url.startswith("https://"):
            raise ValueError(f"issuer {self.name} needs its url, with https://")
        if self.claims and self.provider is not Provider.OIDC:
            raise ValueError(f"issuer {self.name}: claims are for provider oidc")
        if unknown := set(self.claims) - set(ATTRIBUTES):
            raise ValueError(f"issuer {self.name}: claims has unknown {', '.join(sorted(unknown))}")
        return self


class TrustDomain(BaseModel):
    """One `[[trust_domains]]`: a SPIFFE trust domain whose X.509-SVIDs are clients."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9._-]{1,255}$")
    bundle: Path
    """Its CAs, PEM or a SPIFFE bundle (JSON); read again when the file changes."""


class TokenSettings(BaseModel):
    """`[hsm]`: a PKCS #11 token whose keys the daemon uses. One of the PIN's sources is set."""

    model_config = ConfigDict(extra="forbid")

    module: Path
    """The PKCS #11 module, such as /usr/lib/softhsm/libsofthsm2.so."""
    token: str = Field(min_length=1, max_length=32)
    """The token's label."""
    serial: str = ""
    """Its serial number, where labels repeat."""
    pin_file: Path | None = None
    """A file with the PIN."""
    pin_env: str = ""
    """An environment variable with the PIN."""
    pin_credential: str = ""
    """A systemd credential with the PIN (LoadCredential=)."""
    pin_prompt: bool = False
    """Ask whoever runs `privyseald unseal`."""
    sessions: int = Field(default=0, ge=0, le=64)
    """Sessions with the token, each in a process of its own; as many as `keyholders` if zero."""

    @model_validator(mode="after")
    def _one_pin(self) -> TokenSettings:
        sources = (self.pin_file, self.pin_env, self.pin_credential, self.pin_prompt)
        if sum(map(bool, sources)) != 1:
            raise ValueError("[hsm] needs one of pin_file, pin_env, pin_credential and pin_prompt")
        return self


class KekSettings(BaseModel):
    """`[kek]`: help for a start without people, where a passphrase seals the keystore."""

    model_config = ConfigDict(extra="forbid")

    passphrase_file: Path | None = None
    """A file with the passphrase."""
    passphrase_credential: str = ""
    """A systemd credential with it (LoadCredential=)."""


class BackupSettings(BaseModel):
    """`[backup]`: who can open a backup, and how many of them it takes."""

    model_config = ConfigDict(extra="forbid")

    recipients: list[str] = Field(min_length=1, max_length=MAX_RECIPIENTS)
    """As `privyseal backup new-recipient` prints them."""
    threshold: int = Field(ge=1)

    @model_validator(mode="after")
    def _enough(self) -> BackupSettings:
        if self.threshold > len(set(self.keys)):
            raise ValueError("[backup] threshold is more than there are recipients")
        return self

    @property
    def keys(self) -> list[bytes]:
        """The recipients' public keys, 32 bytes each. Raises ValueError."""
        try:
            return [parse_recipient(text) for text in self.recipients]
        except VerificationError as error:
            raise ValueError(f"[backup] {error}") from None


class Settings(BaseSettings):
    """What `privyseald serve` needs to know."""

    model_config = SettingsConfigDict(env_prefix="PRIVYSEALD_", extra="forbid")

    data: Path
    """The data directory."""
    listen_tokens: str = "127.0.0.1:8443"
    """Where callers with API tokens connect (TLS)."""
    listen_certificates: str = "127.0.0.1:8444"
    """Where callers with client certificates connect (mutual TLS)."""
    gateway: str = "127.0.0.1:8080"
    """Where devices connect; HTTP, or HTTPS with the two files below."""
    gateway_certificate: Path | None = None
    gateway_key: Path | None = None
    public_url: str = ""
    """How devices reach the gateway; its own address if empty."""
    channel_discovery: bool = True
    """Whether devices can list an app's channels."""
    database: str = ""
    """SQLAlchemy URL of an SQLite file; in the data directory if empty."""
    artifacts: Path = Path("artifacts")
    """A directory of artifacts that the gateway serves under /artifacts/."""
    keyholders: int = Field(default=0, ge=0)
    """Keyholder processes; one per core if zero."""
    log_origin: str = "privyseal.local/log"
    """The log's name, for ever."""

    audience: str = ""
    """What CI's identity tokens must be for, unlike any other daemon's; https:// and
    `listen_tokens` if empty."""
    issuers: tuple[IssuerSettings, ...] = ()
    """Whose identity tokens are trusted."""
    trust_domains: tuple[TrustDomain, ...] = ()
    """SPIFFE trust domains whose clients are let in."""
    approvals: int = Field(default=1, ge=0, le=10)
    """How many other people must consent to a sensitive act."""
    principal_rate: float = Field(default=200, ge=0)
    """Calls per second of one principal in the long run, twice as many at once; 0: any number."""
    app_rate: float = Field(default=500, ge=0)
    """Calls per second about one app, likewise."""
    hsm: TokenSettings | None = None
    """The PKCS #11 token; none if absent."""
    artifact_sources: list[str] = []
    """URL prefixes (file, http, https) from which the gateway may fetch artifacts, besides its own
    directory and public addresses over HTTPS."""
    cache_mb: int = Field(default=2048, ge=16)
    """How many megabytes of verified artifacts the gateway keeps."""
    last_checkpoint: Path = Path("last-checkpoint")
    """Where the log's last checkpoint is kept besides the database; best on another disk."""
    backup: BackupSettings | None = None
    """Who can open backups; no backup can be made if absent."""
    kek: KekSettings = KekSettings()
    """Help for opening the key-encryption key; see `privyseald kek`."""
    clock_leeway: int = Field(default=60, ge=0)
    """Seconds by which the clock may be behind the log's last entry; further, nothing is signed."""
    connections: int = Field(default=1000, ge=1)
    """Open connections on each gRPC port."""
    metrics: str = ""
    """Where Prometheus scrapes, such as 127.0.0.1:9464; nowhere if empty."""

    @field_validator("listen_tokens", "listen_certificates", "gateway", "metrics")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        right = host and port.isascii() and port.isdigit() and int(port) < 65_536
        if value and not right:
            raise ValueError(f"must be HOST:PORT, got {value}")
        return value

    @field_validator("public_url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value):
            raise ValueError("must be an http:// or https:// address")
        return value

    @field_validator("log_origin")
    @classmethod
    def _log_name(cls, value: str) -> str:
        # C2SP signed-note, and vkeys: what no note could carry would spoil every receipt.
        if not 1 <= len(value) <= 100 or re.search(r"[\s+\x00-\x1f\x7f-\x9f]", value):
            raise ValueError("must be 1 to 100 characters, none of them a blank or a +")
        return value

    @field_validator("database")
    @classmethod
    def _sqlite(cls, value: str) -> str:
        if value and not value.startswith("sqlite:///"):
            raise ValueError("must be sqlite:///FILE; other databases are not supported")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        for issuer in self.issuers:
            shared = Issuer(issuer.name, issuer.provider, issuer.url, "").needs_organizations
            if shared and not issuer.organizations:
                raise ValueError(
                    f"issuer {issuer.name} serves everybody: list the ids of your "
                    "organizations, not their names"
                )
        for what in ("name", "url"):
            values = [getattr(issuer, what) for issuer in self.issuers]
            if len(set(values)) != len(values):
                raise ValueError(f"two issuers have the same {what}")
        return self

    def file(self, path: Path) -> Path:
        """Return a path of the settings; relative ones are in the data directory."""
        return self.data / path

    def gateway_file(self, path: Path | None) -> Path | None:
        """Return a path of the settings, likewise, if there is one."""
        return None if path is None else self.file(path)

    @property
    def token_audience(self) -> str:
        """What identity tokens must be for."""
        return self.audience or f"https://{self.listen_tokens}"

    @property
    def database_url(self) -> str:
        """The database."""
        return self.database or f"sqlite:///{self.data / 'privyseal.db'}"

    @property
    def device_url(self) -> str:
        """How devices reach the gateway, without a slash at the end."""
        scheme = "https" if self.gateway_certificate else "http"
        return (self.public_url or f"{scheme}://{self.gateway}").rstrip("/")

    @property
    def keyholder_count(self) -> int:
        """How many keyholder processes to run."""
        return self.keyholders or os.cpu_count() or 1


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return variables that are named as settings, and are none.

    Kubernetes makes some of its own for a service of that name.
    """
    prefix = "PRIVYSEALD_"
    return sorted(
        name
        for name in environ
        if name.startswith(prefix)
        and name.removeprefix(prefix).split("__")[0].lower() not in Settings.model_fields
        and not re.fullmatch(prefix + r"(SERVICE_.*|PORT(_.*)?)", name)
    )


def load(data: Path) -> Settings:
    """Read the settings of a data directory. Raises ValueError with what is wrong."""

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used on purpose
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used on purpose
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml: Any = TomlConfigSettingsSource(settings_cls, data / "privyseald.toml")
            return init_settings, env_settings, toml

    return FromFile(data=data)
