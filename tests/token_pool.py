"""Keyholders on a token of one's own."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

from privyseal.verify.keys import load_public_key
from privyseal.verify.statement import PAYLOAD_TYPE, pae
from privyseald.keyholder.keystore import verify_message
from privyseald.keyholder.keystores import HsmSettings
from privyseald.keyholder.supervisor import KeyholderPool
from privyseald.model.schemes import Algorithm, KeyIdentity, KeyPlace, Scheme

from tests.conftest import custodian
from tests.contract.test_keyholders import STATEMENT

IN_TOKEN = KeyPlace(token=True)


def settings(token, folder, **changes):
    made = HsmSettings(token.module, token.label, str(folder), pin_file=str(token.pin_file))
    return replace(made, **changes)


def with_pool(token, folder, scenario, *, processes=1, **changes):
    """Run a coroutine with keyholders on the token."""

    async def run():
        pool = KeyholderPool(source, processes, token=True)
        await pool.start()
        try:
            return await scenario(pool)
        finally:
            await pool.stop()

    with custodian(folder, settings(token, folder, **changes)) as source:
        return asyncio.run(run())


def identity(algorithm=Algorithm.P256, version=1):
    return KeyIdentity("a", "statement", version, Scheme.STATEMENT_V1, algorithm)


async def sign(pool, made, counter=1):
    """Sign a release, and check the signature."""
    payload, raw = await pool.sign_release(replace(STATEMENT, counter=counter), made.wrapped, [])
    verify_message(load_public_key(made.public_key), raw[0], pae(PAYLOAD_TYPE, payload))


def told_of(pid, what):
    return Path(f"/proc/{pid}/{what}").read_text()


def calls(token, name):
    return len(re.findall(rf"^\d+: {name}$", token.spied.read_text(), re.MULTILINE))
