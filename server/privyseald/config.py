"""Settings: `privyseald.toml` in the data directory, overridden by PRIVYSEALD_* variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


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
    database: str = ""
    """SQLAlchemy URL; SQLite in the data directory if empty."""
    artifacts: Path | None = None
    """A directory of artifacts that the gateway serves under /artifacts/."""
    keyholders: int = 0
    """Keyholder processes; one per core if zero."""
    log_origin: str = "privyseal.local/log"
    """The log's name, for ever."""

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
