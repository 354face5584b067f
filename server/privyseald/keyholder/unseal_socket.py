"""The socket in the data directory on which a sealed daemon takes what unseals it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NAME = "unseal.sock"


@contextlib.contextmanager
def address(folder: Path) -> Iterator[str]:
    """Yield the socket's address, which is short however long the folder's path is.

    A socket's address has room for 107 bytes (unix(7)). Raises OSError if there is no folder.
    """
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{NAME}"
    finally:
        os.close(handle)


def listen(folder: Path) -> socket.socket:
    """Listen for who unseals it.

    Raises:
        FileExistsError: If another sealed daemon does.
        OSError: If nobody can listen there.
    """
    gone = contextlib.suppress(FileNotFoundError, ConnectionRefusedError)
    with address(folder) as at:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other, gone:
            other.connect(at)
            raise FileExistsError(folder / NAME)
        (folder / NAME).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The umask of a confined process: nobody else can connect.
        listener.bind(at)
    listener.listen(8)
    return listener
