"""Artifact storage through obstore: file, s3, gs and az URLs take one code path."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from privyseal.errors import ClientError, UnreachableError

_RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
_NO_RETRY: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
_PUBLIC = re.compile(r"(?i:https?)://[^\s/]\S*|(?i:file)://\S*/\S+")

_SCHEMES = {"file", "s3", "gs", "az", "http", "https"}


def _join(base: str, key: str) -> str:
    return base.rstrip("/") + "/" + quote(key)


def problem(storage: str) -> str:
    """Return what is wrong with a storage, as far as can be told without asking it."""
    scheme = urlsplit(storage).scheme if "://" in storage else "file"
    if scheme not in _SCHEMES:
        return (
            f"{scheme}:// is no storage; it is one of {', '.join(sorted(_SCHEMES))}, or a directory"
        )
    if scheme != "file":
        from obstore.exceptions import BaseError

        try:
            _store(storage)
        except (BaseError, ValueError) as error:
            return _told(error)
        return ""
    path = Path(unquote(urlsplit(storage).path)) if "://" in storage else Path(storage)
    folder = next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())
    return "" if folder.is_dir() and os.access(folder, os.W_OK) else f"cannot write to {folder}"


def check(storage: str, public_url: str) -> None:
    """Check that it is a storage, and that devices can fetch what is uploaded.

    Raises:
        ClientError: If it is none, or its own URL is none that a device can use.
    """
    if trouble := problem(storage):
        raise ClientError(f"storage {storage}: {trouble}")
    if public_url and not _PUBLIC.fullmatch(public_url):
        raise ClientError(f"--public-url must be an https, http or file URL, got {public_url}")
    scheme = urlsplit(storage).scheme if "://" in storage else "file"
    if scheme not in {"file", "http", "https"} and not public_url:
        raise ClientError(
            f"devices cannot fetch {scheme}:// addresses; give --public-url, the HTTPS address "
            "under which the storage is published"
        )


def look(storage: str) -> str:
    """Return what is wrong with a storage, as far as can be told without writing to it.

    An answer that nothing may be read there is none: writing can be allowed all the same.
    """
    if trouble := problem(storage):
        return trouble
    if "://" not in storage or storage.startswith("file:"):
        return ""
    from obstore.exceptions import BaseError, PermissionDeniedError

    try:
        _there(_store(storage, _NO_RETRY), "privyseal-doctor")
    except PermissionDeniedError:
        return ""
    except (BaseError, OSError) as error:
        return f"cannot be used: {_told(error)}"
    return ""


def _told(error: Exception) -> str:
    """Return what the storage's library says, without its debugging."""
    return str(error).splitlines()[0][:200]


def _interruptible(call: Callable[[], object]) -> None:
    """Run a call that does not return on Ctrl-C, so that Ctrl-C ends the program at once."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised again by who waits
            failures.append(error)

    # A daemon thread: the interpreter does not wait for it when the program is interrupted.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def object_url(storage: str, key: str, public_url: str = "") -> str:
    """Return the URL that devices use for an object."""
    if "://" not in storage:
        storage = Path(storage).resolve().as_uri()
    return _join(public_url or storage, key)


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self._file = file
        self._progress = progress
        self._size = os.fstat(file.fileno()).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._progress(self._file.tell(), self._size)
        return data


def upload(
    storage: str,
    key: str,
    source: Path | bytes,
    public_url: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Upload one object whole and return the URL that devices use.

    Args:
        storage: file:///dir, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix;
            a plain path is a directory. Credentials come from the environment, as each
            provider has it.
        key: The object's name under it.
        source: The file, or the bytes.
        public_url: What devices put before the key; the storage's own URL if empty.
        progress: Told how many bytes of a file were taken, of how many; from another thread.

    Raises:
        ClientError: If it cannot be written; nothing half-written is left.
    """
    import obstore

    with _errors(storage), contextlib.ExitStack() as opened:
        store = _store(storage)
        given: Any = source
        if progress is not None and isinstance(source, Path):
            given = _Counted(opened.enter_context(source.open("rb")), progress)
        _interruptible(lambda: obstore.put(store, key, given))
    return object_url(storage, key, public_url)


def upload_all(storage: str, objects: Iterable[tuple[str, Path]]) -> None:
    """Upload many objects, or none: what was put before one fails is removed again.

    Args:
        storage: As for `upload`.
        objects: Key and file of each.

    Raises:
        ClientError: If one cannot be written.
    """
    import obstore

    made: list[str] = []
    with _errors(storage):
        store = _store(storage)
        try:
            for key, path in objects:
                # What was there belongs to an earlier release, too.
                if not _there(store, key):
                    made.append(key)
                _interruptible(functools.partial(obstore.put, store, key, path))
        except BaseException:
            for key in made:
                with contextlib.suppress(Exception):
                    obstore.delete(store, key)
            raise


def _store(storage: str, retry: Any = _RETRY) -> Any:
    from obstore.store import LocalStore, from_url

    parts = urlsplit(object_url(storage, ""))
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)), mkdir=True)
    # Who names an http:// address has chosen it; the library refuses it unless told.
    options: Any = {"allow_http": True} if parts.scheme == "http" else None
    return from_url(storage, client_options=options, retry_config=retry)


def _there(store: Any, key: str) -> bool:
    import obstore
    from obstore.exceptions import NotFoundError

    try:
        _interruptible(lambda: obstore.head(store, key))
    except (FileNotFoundError, NotFoundError):
        return False
    return True


@contextlib.contextmanager
def _errors(storage: str) -> Iterator[None]:
    """Turn what a storage says into what the user is told."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        first = _told(error)
        remote = "://" in storage and not storage.startswith("file:")
        kind = UnreachableError if remote else ClientError
        raise kind(f"cannot upload to {storage}: {first}") from None
    except OSError as error:
        why = error.strerror or str(error).splitlines()[0][:200] or type(error).__name__
        raise ClientError(f"cannot upload to {storage}: {why}") from None
