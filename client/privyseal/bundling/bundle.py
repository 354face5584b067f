"""Writes the zip: deterministic, compressed on all cores, in bounded memory.

Every file is cut into pieces of 1 MiB that are deflated independently, each with the 32 KiB
before it as dictionary, so that one large file keeps all cores busy and memory stays at a
few pieces. Names are sorted, times are 1980-01-01, attributes are zero; the compressor is
pinned by its major version. Same input, same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

from zlib_ng import zlib_ng

from privyseal.bundling.tree import SourceFile, scan
from privyseal.errors import BuildError
from privyseal.verify import MANIFEST

PIECE = 1 << 20
WINDOW = 32 * 1024
AHEAD = 8
"""Pieces of a file that are in memory at one time."""
LEVEL = 5
"""zlib-ng's level 5 is within 2 % of the size of zlib's 6, at nearly three times its speed."""
LEVEL_OF_REST = 4
"""What follows a file's first piece: 12 % faster still, and the whole stays within 3 %."""
_MEMORY = 8
"""zlib's memLevel, its default: 9 is no smaller here, and slower."""
_DOS_DATE = (1 << 5) | 1  # 1980-01-01, the zero of zip
_UTF8_FLAG = 0x800
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
#: Contents that are compressed already; deflating them again costs time and saves nothing.
_STORED = frozenset(
    f".{suffix}"
    for suffix in (
        *("7z", "avif", "br", "gif", "gz", "jpeg", "jpg", "m4a", "m4v", "mp3", "mp4"),
        *("ogg", "png", "webm", "webp", "woff", "woff2", "zip"),
    )
)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was written."""

    path: Path
    sha256: bytes
    length: int
    manifest: bytes
    files: int
    unpacked: int
    left_out: int
    digests: dict[str, bytes]
    """SHA-256 of each file, by its name."""
    misread: tuple[str, ...] = ()
    """Names that cordova-plugin-ionic takes for another address."""

    @property
    def manifest_sha256(self) -> bytes:
        """SHA-256 of the manifest's bytes, 32 bytes."""
        return hashlib.sha256(self.manifest).digest()


@dataclass
class _Digests:
    size: int
    crc: int
    hashes: tuple[hashlib._Hash, ...]


def _piece(before: bytes, data: bytes, *, last: bool) -> bytes:
    if before:
        deflate = zlib_ng.compressobj(
            LEVEL_OF_REST, zlib_ng.DEFLATED, -15, _MEMORY, zlib_ng.Z_DEFAULT_STRATEGY, before
        )
    else:
        deflate = zlib_ng.compressobj(LEVEL, zlib_ng.DEFLATED, -15, _MEMORY)
    ending = zlib_ng.Z_FINISH if last else zlib_ng.Z_SYNC_FLUSH
    return bytes(deflate.compress(data) + deflate.flush(ending))


def _digest(digests: _Digests, data: bytes) -> None:
    digests.size += len(data)
    digests.crc = zlib_ng.crc32(data, digests.crc)
    for one in digests.hashes:
        one.update(data)


def _new_digests() -> _Digests:
    return _Digests(0, 0, (hashlib.sha256(), hashlib.sha384(), hashlib.sha512()))


def manifest_of(entries: list[tuple[str, _Digests]]) -> bytes:
    """Return the manifest: a JSON array of href, size, integrity, in that order.

    It is the format of the Ionic client, which compares entries as text.
    """
    listed = [
        {
            "href": name,
            "size": digests.size,
            "integrity": " ".join(
                f"{one.name}-{base64.b64encode(one.digest()).decode()}" for one in digests.hashes
            ),
        }
        for name, digests in entries
    ]
    return json.dumps(listed, separators=(",", ":"), ensure_ascii=False).encode()


class _Writer:
    """Writes a zip and its digest as it goes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> None:
        self.sha256.update(data)
        self.length += len(data)
        self._file.write(data)

    def add(
        self, name: str, digests: _Digests, packed: int, parts: Iterator[bytes], method: int
    ) -> None:
        """Write an entry whose sizes and checksum are known."""
        encoded = name.encode()
        common = (
            _UTF8_FLAG,
            method,
            0,
            _DOS_DATE,
            digests.crc,
            packed,
            digests.size,
            len(encoded),
            0,
        )
        offset = self.length
        self.write(_LOCAL.pack(b"PK\x03\x04", 20, *common) + encoded)
        for part in parts:
            self.write(part)
        self._directory.append(
            _CENTRAL.pack(b"PK\x01\x02", 20, 20, *common, 0, 0, 0, 0, offset) + encoded
        )

    def finish(self) -> None:
        start, count = self.length, len(self._directory)
        for record in self._directory:
            self.write(record)
        self.write(_END.pack(b"PK\x05\x06", 0, 0, count, count, self.length - start, start, 0))


def _pieces(file: SourceFile) -> Iterator[bytes]:
    """Read a file piece by piece; raises BuildError if it changes meanwhile."""
    with file.path.open("rb", buffering=WINDOW) as source:
        seen = 0
        while data := source.read(PIECE):
            seen += len(data)
            yield data
        status = os.fstat(source.fileno())
    now = (status.st_size, status.st_mtime_ns, status.st_ino)
    if seen != file.size or now != (file.size, file.mtime_ns, file.inode):
        raise BuildError(
            f"{file.name!r} changed while it was being read; bundle again when the build is done"
        )


class _Pool:
    """Compresses on all cores; digests in one thread more, so that pieces keep their order."""

    def __init__(self) -> None:
        self._compressors = ThreadPoolExecutor(os.cpu_count() or 1)
        self._digester = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._compressors.shutdown(cancel_futures=True)
        self._digester.shutdown(cancel_futures=True)

    def compress(self, before: bytes, data: bytes, *, last: bool) -> Future[bytes]:
        return self._compressors.submit(_piece, before, data, last=last)

    def digest(self, digests: _Digests, data: bytes) -> Future[None]:
        return self._digester.submit(_digest, digests, data)

    def whole(self, digests: _Digests, data: bytes, *, store: bool) -> Future[bytes]:
        """Digest and compress a file of one piece, in one task."""

        def task() -> bytes:
            _digest(digests, data)
            return data if store else _piece(b"", data, last=True)

        return self._compressors.submit(task)


@dataclass
class _Job:
    """A file on its way: what is known of it, and its parts, of which old ones are on disk."""

    file: SourceFile
    store: bool
    digests: _Digests
    digested: Future[None] | None = None
    parts: deque[Future[bytes]] = field(default_factory=deque)
    spool: BinaryIO | None = None
    spooled: int = 0

    def add(self, part: Future[bytes], folder: Path) -> None:
        """Take a part; beyond some, the oldest goes to disk, so that memory is bounded."""
        self.parts.append(part)
        if len(self.parts) > AHEAD:
            if self.spool is None:
                self.spool = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed when read
            self.spooled += self.spool.write(self.parts.popleft().result())

    def finish(self) -> tuple[int, Iterator[bytes]]:
        """Return the packed size and the parts, when all of it is compressed and digested."""
        if self.digested is not None:
            self.digested.result()
        rest = [part.result() for part in self.parts]
        return self.spooled + sum(map(len, rest)), self._read(rest)

    def _read(self, rest: list[bytes]) -> Iterator[bytes]:
        if self.spool is not None:
            with self.spool as spool:
                spool.seek(0)
                while data := spool.read(PIECE):
                    yield data
        yield from rest


def write_bundle(
    root: Path,
    target: Path,
    *,
    source_maps: bool = False,
    private: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Bundle:
    """Bundle a build directory.

    Args:
        root: The build directory.
        target: Where the zip goes; written beside it first, then moved there whole.
        source_maps: Whether *.js.map and *.css.map are put in.
        private: Whether what looks private is put in, rather than refused.
        progress: Called with bytes done and bytes in all.

    Raises:
        BuildError: If the directory cannot be bundled or the zip cannot be written.
    """
    _require_apart(root, target)
    tree = scan(root, source_maps=source_maps, private=private)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb", buffering=PIECE) as file, _Pool() as pool:
            writer = _Writer(file)
            entries = _write_files(tree.files, writer, pool, target.parent, progress)
            manifest = manifest_of(entries)
            _write_manifest(writer, manifest)
            writer.finish()
            if writer.length >= 2**32 - 1:
                raise BuildError("bundle is larger than 4 GB")
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except OSError as error:
        raise BuildError(f"cannot write {target}: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)
    unpacked = sum(digests.size for _, digests in entries)
    return Bundle(
        target,
        writer.sha256.digest(),
        writer.length,
        manifest,
        len(entries),
        unpacked,
        tree.left_out,
        {name: digests.hashes[0].digest() for name, digests in entries},
        tree.misread,
    )


def _require_apart(root: Path, target: Path) -> None:
    """Raise BuildError if a bundle cannot be written there."""
    if target.is_dir():
        raise BuildError(f"{target} is a directory; name a file with --output-path")
    if target.resolve().is_relative_to(root.resolve()):
        raise BuildError(
            f"{target} is in the build directory, and the next bundle would hold this one; "
            "name another place with --output-path"
        )


def _write_manifest(writer: _Writer, manifest: bytes) -> None:
    digests = _new_digests()
    _digest(digests, manifest)
    packed = _piece(b"", manifest, last=True)
    writer.add(MANIFEST, digests, len(packed), iter([packed]), 8)


def _write_files(
    files: tuple[SourceFile, ...],
    writer: _Writer,
    pool: _Pool,
    folder: Path,
    progress: Callable[[int, int], None],
) -> list[tuple[str, _Digests]]:
    """Compress ahead of writing, a bounded number of bytes at a time."""
    entries: list[tuple[str, _Digests]] = []
    ahead: deque[_Job] = deque()
    waiting, done, total = 0, 0, sum(file.size for file in files)

    def drain() -> None:
        nonlocal waiting, done
        job = ahead.popleft()
        packed, parts = job.finish()
        writer.add(job.file.name, job.digests, packed, parts, 0 if job.store else 8)
        waiting -= job.file.size
        done += job.file.size
        progress(done, total)

    for file in files:
        while ahead and waiting + file.size > 24 * PIECE:
            drain()
        job = _start(file, pool, folder)
        entries.append((file.name, job.digests))
        ahead.append(job)
        waiting += file.size
    while ahead:
        drain()
    return entries


def _start(file: SourceFile, pool: _Pool, folder: Path) -> _Job:
    store = file.size == 0 or file.path.suffix.lower() in _STORED
    job = _Job(file, store, _new_digests())
    before, seen = b"", 0
    for data in _pieces(file):
        if len(data) == file.size:
            job.add(pool.whole(job.digests, data, store=store), folder)
            continue
        if job.digested is not None and seen % (AHEAD * PIECE) == 0:
            job.digested.result()  # bound what waits to be digested
        job.digested = pool.digest(job.digests, data)
        seen += len(data)
        if store:
            part: Future[bytes] = Future()
            part.set_result(data)
        else:
            part = pool.compress(before, data, last=seen == file.size)
            before = data[-WINDOW:]
        job.add(part, folder)
    return job
