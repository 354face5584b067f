"""Makes a data directory, and the certificates that people and machines need."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from privyseal.verify.note import NoteVerifier

from privyseald.adapters import pki
from privyseald.adapters.checkpoint_file import CheckpointFile
from privyseald.adapters.clock import clock
from privyseald.adapters.log_notes import LogNotes
from privyseald.adapters.sql_engine import migrate
from privyseald.adapters.store_sql import SqlStore
from privyseald.config import Settings
from privyseald.keyholder.custody import Custody
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.kek import RAW
from privyseald.keyholder.keystore import KEK_SIZE
from privyseald.keyholder.log_keyholder import LogKeyholder
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.keyholder.worker import LOG_APP
from privyseald.model.fields import ALL_APPS
from privyseald.model.policy import Grant, Role
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme
from privyseald.ports import Sealed, Transaction
from privyseald.services.grants import add_grant

ADMIN = "admin"


def log_key_identity(public_key_sha256: bytes = b"") -> KeyIdentity:
    """Return what the log's own key is called."""
    return KeyIdentity(
        LOG_APP, "checkpoint", 1, Scheme.STATEMENT_V1, Algorithm.ED25519, public_key_sha256
    )


async def initialise(settings: Settings, hosts: list[str]) -> None:
    """Make a data directory: CA, certificates, key-encryption key, log, first admin.

    Raises:
        FileExistsError: If there is one already; nothing is overwritten.
    """
    data = settings.data
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    pki.write_private(data / RAW, secrets.token_bytes(KEK_SIZE))
    data.chmod(0o700)
    tls = data / "tls"
    tls.mkdir(mode=0o700)
    pki.create_ca(tls)
    names = _with_local(hosts)
    certificate, key = pki.issue(tls, common_name="privyseald", hosts=names, days=pki.SERVER_DAYS)
    (tls / "server.pem").write_bytes(certificate)
    pki.write_private(tls / "server.key", key)
    admin = data / ADMIN
    admin.mkdir(mode=0o700)
    issue_client(settings, ADMIN, admin)
    # Where the gateway of this machine serves from, so that `publish` works at once.
    with (admin / "profile.toml").open("a") as profile:
        artifacts = json.dumps(str(settings.file(settings.artifacts)))
        url = json.dumps(f"{settings.device_url}/artifacts")
        profile.write(f"storage = {artifacts}\npublic_url = {url}\n")
    custody = Custody(CustodySettings(data=str(data)))
    custody.start()
    try:
        await _start_log(settings, custody)
    finally:
        custody.stop()


async def _start_log(settings: Settings, custody: Custody) -> None:
    """Make the log's key, the database, and the first admin: the log's first entries."""
    data, origin = settings.data, settings.log_origin
    pool = KeyholderPool(custody, 1)
    await pool.start()
    try:
        made = await pool.generate(log_key_identity())
    finally:
        await pool.stop()
    verifier = log_verifier(settings, made.public_key)
    keyholder = LogKeyholder(custody, made.wrapped)
    notes = LogNotes(keyholder, verifier)
    try:
        pki.write_private(data / "log.key", made.wrapped.blob)
        (data / "log.spki").write_bytes(made.public_key)
        await asyncio.to_thread(migrate, settings.database_url, notes.checkpoint, origin)
        store = SqlStore(
            settings.database_url,
            clock=clock,
            sign_checkpoint=notes.checkpoint,
            origin=origin,
            kept=CheckpointFile(settings.file(settings.last_checkpoint), verifier),
        )
        try:
            await store.commit(_first_admin)
        finally:
            await store.close()
        # The last: without it, `serve` says that this is no data directory.
        (data / "log.vkey").write_text(verifier.vkey() + "\n")
    finally:
        keyholder.stop()


def _first_admin(tx: Transaction) -> Callable[[Sealed], bytes]:
    for role in Role:
        grant = Grant(secrets.token_hex(8), f"certificate:{ADMIN}", role, ALL_APPS, clock())
        add_grant(tx, "operator", grant)
    return lambda _: b""


def issue_client(settings: Settings, name: str, folder: Path) -> None:
    """Write a client certificate and a profile that uses it. Raises FileExistsError."""
    tls = settings.data / "tls"
    certificate, key = pki.issue(tls, common_name=name, hosts=[], days=pki.CLIENT_DAYS)
    pki.write_private(folder / "client.key", key)
    (folder / "client.pem").write_bytes(certificate)
    (folder / "ca.pem").write_bytes((tls / "ca.pem").read_bytes())
    (folder / "profile.toml").write_text(
        f'server = "{settings.listen_certificates}"\n'
        'ca = "ca.pem"\ncertificate = "client.pem"\nkey = "client.key"\n'
    )


def _with_local(hosts: list[str]) -> list[str]:
    return list(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))


def renew_server(settings: Settings, hosts: list[str]) -> list[str]:
    """Replace the server's certificate; a running daemon takes it up by itself.

    Args:
        settings: Where it is.
        hosts: Its names and addresses, besides this machine's; those that it has if empty.

    Returns:
        Its names and addresses.
    """
    tls = settings.data / "tls"
    names = _with_local(hosts) if hosts else pki.hosts_of((tls / "server.pem").read_bytes())
    certificate, key = pki.issue(tls, common_name="privyseald", hosts=names, days=pki.SERVER_DAYS)
    for name, content in (("server.key", key), ("server.pem", certificate)):
        scratch = tls / f"{name}.new"
        scratch.unlink(missing_ok=True)
        pki.write_private(scratch, content)
        # Root renews it, and the daemon's own user reads it.
        was = (tls / name).stat()
        os.chown(scratch, was.st_uid, was.st_gid)
        scratch.chmod(stat.S_IMODE(was.st_mode))
    for name in ("server.key", "server.pem"):
        (tls / f"{name}.new").replace(tls / name)
    return names


def log_verifier(settings: Settings, public_key: bytes) -> NoteVerifier:
    """Return what verifies the log's checkpoints, from its key as SPKI DER."""
    return NoteVerifier(settings.log_origin, public_key[-32:])
