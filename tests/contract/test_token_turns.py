"""Processes of one daemon take turns at its token: modules show others what is half done."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
from privyseald.model.errors import FailedPrecondition

from tests.token_pool import IN_TOKEN, calls, identity, settings, sign, with_pool


def test_who_has_the_token_is_waited_for(token, tmp_path):
    async def scenario(pool):
        first = await pool.generate(identity(), IN_TOKEN)
        await sign(pool, first)
        other = await pool.generate(identity(version=2), IN_TOKEN)
        with (tmp_path / "hsm-turn.lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            waiting = [
                asyncio.ensure_future(call)
                for call in (
                    pool.generate(identity(version=3), IN_TOKEN),
                    pool.destroy(other.wrapped),
                )
            ]
            for _ in range(2):
                await asyncio.sleep(0.3)
                assert not any(call.done() for call in waiting)
        made, _ = await asyncio.gather(*waiting)
        await sign(pool, made)
        with pytest.raises(FailedPrecondition, match="no private key"):
            await sign(pool, other)

    with_pool(token, tmp_path, scenario, processes=2)


def test_what_was_opened_signs_while_another_has_the_token(token, tmp_path):
    async def scenario(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        await sign(pool, made)
        with (tmp_path / "hsm-turn.lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            await asyncio.wait_for(sign(pool, made), 10)

    with_pool(token, tmp_path, scenario)


def test_a_turn_is_waited_for_less_long_than_a_call_may_take(token, tmp_path):
    """A token that makes a key for a minute keeps nobody from signing with another."""

    async def scenario(pool):
        with (tmp_path / "hsm-turn.lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            made = await pool.generate(identity(), IN_TOKEN)
            pids = dict(pool.pids)
            await sign(pool, made)
            assert pool.pids == pids, "a keyholder was killed as one that hangs"

    with_pool(token, tmp_path, scenario)


def test_keys_that_are_made_and_destroyed_at_once_end_no_session(token, tmp_path):
    """Each login empties SoftHSM's token for a moment, and whoever looks then has none."""

    async def one(pool, version):
        made = await pool.generate(identity(version=version), IN_TOKEN)
        await sign(pool, made)
        await pool.destroy(made.wrapped)

    async def scenario(pool):
        await pool.generate(identity(), IN_TOKEN)
        pids = dict(pool.pids)
        for turn in range(6):
            await asyncio.gather(*(one(pool, 2 + turn * 4 + n) for n in range(4)))
        assert pool.pids == pids, "a keyholder lost its token"

    with_pool(token, tmp_path, scenario, processes=3)
    assert token.tool("--list-objects").count("Private Key Object") == 1


def test_one_process_destroys_a_key_and_the_others_only_forget_it(token, tmp_path):
    async def scenario(pool):
        made = await pool.generate(identity(), IN_TOKEN)
        await asyncio.gather(*(sign(pool, made, n + 1) for n in range(30)))
        before = calls(token, "C_Login")
        await pool.destroy(made.wrapped)
        assert calls(token, "C_Login") == before + 1
        for n in range(6):
            with pytest.raises(FailedPrecondition, match="no private key"):
                await sign(pool, made, n + 1)

    with_pool(token, tmp_path, scenario, processes=3)


UNSEEN = """
import json, os, sys
from privyseald.keyholder import hsm
from privyseald.keyholder.keystore import SoftwareKeystore
from privyseald.keyholder.keystores import HsmDownError, HsmSettings
from privyseald.model.schemes import Algorithm, KeyIdentity, Scheme

software = SoftwareKeystore(os.urandom(32))
store = hsm.HsmKeystore(HsmSettings(**json.loads(sys.argv[1])), software)
store.connect()
times, look = int(sys.argv[2]), store._privates

def blind(uri):
    global times
    times -= 1
    return [] if times >= 0 else look(uri)

store._privates = blind
try:
    store.generate(KeyIdentity("a", "statement", 1, Scheme.STATEMENT_V1, Algorithm.P256))
    print("made")
except HsmDownError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("times", "told", "keys"),
    [
        (1, "made", 1),
        # It is there, whatever the session shows: the address was given to nobody.
        (99, "the token does not show the key that it just made", 0),
    ],
)
def test_a_key_that_was_just_made_is_looked_for_anew(token, tmp_path, times, told, keys):
    given = json.dumps(asdict(settings(token, tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", UNSEEN, given, str(times)],
        env={**os.environ, **token.env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{told}\n", done.stderr
    assert token.tool("--list-objects").count("Private Key Object") == keys
