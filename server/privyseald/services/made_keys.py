"""Commits keys that were just made, so that none is left in a token that is on no record."""

from __future__ import annotations

import asyncio

from privyseald.model.schemes import WrappedKey
from privyseald.ports import Act, KeyMaker, Request, Store


async def commit_made(
    store: Store, makes: KeyMaker, made: WrappedKey, act: Act, request: Request | None = None
) -> bytes:
    """Commit an act that puts a new key on record; see `Store.commit`.

    Whatever comes of it (a refusal, the answer to the same request before, a caller who hangs
    up), what is not on record then is destroyed. Not for keys that were in the token before.

    Args:
        store: The store.
        makes: Made the key.
        made: The key.
        act: Puts it on record.
        request: What makes it idempotent.
    """
    # It ends though the caller goes meanwhile: only then is it known what became of the key.
    committing = asyncio.ensure_future(store.commit(act, request))
    try:
        return await asyncio.shield(committing)
    finally:
        if made.in_token:
            await asyncio.wait([committing])
            await makes.destroy_unless_kept(made)
