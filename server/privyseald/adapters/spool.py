"""Archives on their way to a keyholder: in files without a name, so that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from privyseald.model.errors import InvalidArgument, ResourceExhausted, Unavailable

RESERVE = 1 << 30
"""Bytes on the disk that are left to others."""
_PIECE = 512 * 1024


class FileSpool:
    """Takes whole archives before anybody else has to wait for them.

    Args:
        folder: On whose disk they are.
        slots: How many there may be at one time; each takes its length on the disk.
    """

    def __init__(self, folder: Path, slots: int = 8) -> None:
        self._folder = folder
        self._free = slots

    @contextlib.asynccontextmanager
    async def hold(
        self, pieces: AsyncIterator[bytes], most: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Take an archive, and give it back; see the port."""
        if not self._free:
            raise ResourceExhausted(
                "too many archives are on their way; wait a minute and try again",
                reason="RATE_LIMITED",
            )
        self._free -= 1
        try:
            # The database may be on the same disk, and everybody needs that.
            if shutil.disk_usage(self._folder).free < most + RESERVE:
                raise OSError(errno.ENOSPC, "no room for an archive")
            with tempfile.TemporaryFile(dir=self._folder) as file:
                await _fill(file, pieces, most)
                file.seek(0)
                yield _drain(file)
        except OSError as error:
            raise Unavailable(
                "the archive cannot be kept for now; try again", reason="SPOOL_DOWN"
            ) from error
        finally:
            self._free += 1


async def _fill(file: IO[bytes], pieces: AsyncIterator[bytes], most: int) -> None:
    length = 0
    async for piece in pieces:
        length += len(piece)
        if length > most:
            raise InvalidArgument("piece", "the archive is not the one that was signed")
        await asyncio.to_thread(file.write, piece)


async def _drain(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece
