"""Finds the files of a web build and refuses what cannot be bundled faithfully."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from privyseal.errors import BuildError
from privyseal.verify import MANIFEST

MAX_FILES = 65_000
MAX_TOTAL = 4_000_000_000
# The last of them is CodePush's signature of a bundle before this one.
_LEFT_OUT = {".DS_Store", "Thumbs.db", ".codepushrelease"}
_PRIVATE_NAMES = {
    *(".git", ".hg", ".svn", ".ssh", ".aws", ".gnupg"),
    *(".npmrc", ".yarnrc", ".netrc", ".pypirc", ".htpasswd", ".git-credentials"),
}
_PRIVATE_ENDS = (".key", ".p12", ".pfx", ".jks", ".keystore", ".mobileprovision", ".pem")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY( BLOCK)?-----")
_MAPS = (".js.map", ".css.map", ".hbc.map", ".bundle.map", ".jsbundle.map")
_DOM = "www.bundle/"
"""Where Expo's exports have DOM components; their maps have no other sign."""
_REACT_NATIVE = (".bundle", ".jsbundle", ".hbc")
# cordova-plugin-ionic makes an address of a name as it is: it would ask for another.
_ESCAPED = re.compile("#|%[0-9A-Fa-f]{2}")
_FORBIDDEN = set('\\:*?"<>|')


@dataclass(frozen=True)
class SourceFile:
    """A file of the build: its name in the bundle, and what it was when it was found."""

    name: str
    path: Path
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True)
class Tree:
    """The files of a build, ordered by the UTF-8 bytes of their names."""

    files: tuple[SourceFile, ...]
    left_out: int

    @property
    def misread(self) -> tuple[str, ...]:
        """The names that cordova-plugin-ionic takes for another address."""
        return tuple(f.name for f in self.files if _ESCAPED.search(f.name))


def scan(root: Path, *, source_maps: bool = False, private: bool = False) -> Tree:
    """Find the files of a build.

    Left out: source maps unless asked for, .DS_Store, Thumbs.db, .codepushrelease and an old
    manifest.

    Args:
        root: The build.
        source_maps: Put source maps in.
        private: Put in what looks like it is for nobody else: every device would get it.

    Raises:
        BuildError: If the directory is missing, empty or without index.html (or, for
            React Native, a *.bundle, *.jsbundle or *.hbc), a link leaves
            it, a name cannot be in a zip, something in it is private, or it is too large.
    """
    if not root.is_dir():
        raise BuildError(f"build directory {root} does not exist or is not a directory")
    top = root.resolve()
    found: list[SourceFile] = []
    left_out = 0
    for folder, folders, names in os.walk(top, onerror=_unreadable):
        for path in (Path(folder, name) for name in (*folders, *names)):
            _refuse_leaving(path, top)
            if not private and _is_private(path):
                raise BuildError(
                    f"{_shown(path, top)} looks private, and every device would get it: is this "
                    "the web build's own folder? --include-private takes it all the same"
                )
        for name in names:
            path = Path(folder, name)
            relative = path.relative_to(top).as_posix()
            if name in _LEFT_OUT or relative == MANIFEST:
                continue
            dom_map = relative.startswith(_DOM) and name.endswith(".map")
            if not source_maps and (dom_map or name.endswith(_MAPS)):
                left_out += 1
                continue
            found.append(_source(path, _checked(relative)))
    found.sort(key=lambda file: file.name.encode())
    _check_all(root, found)
    return Tree(tuple(found), left_out)


def _refuse_leaving(path: Path, top: Path) -> None:
    """Raise BuildError for a link that leads out of the build, or to a directory."""
    if path.is_symlink() and not path.resolve().is_relative_to(top):
        raise BuildError(
            f"symbolic link {_shown(path, top)} leaves the build directory; copy the file"
        )
    if path.is_symlink() and path.is_dir():
        raise BuildError(
            f"{_shown(path, top)} is a link to a directory; copy the directory instead"
        )


def _is_private(path: Path) -> bool:
    """Say whether a file or folder looks as if it were for nobody else."""
    name = path.name
    if name in _PRIVATE_NAMES or name == ".env" or name.startswith(".env."):
        return True
    if not name.endswith(_PRIVATE_ENDS) or not path.is_file():
        return False
    if not name.endswith((".key", ".pem")):
        return True
    try:
        with path.open("rb") as file:
            return _PRIVATE_KEY.search(file.read(64 * 1024)) is not None
    except OSError:
        return False


def _source(path: Path, name: str) -> SourceFile:
    try:
        status = path.stat()
    except OSError as error:
        raise BuildError(f"{name!r} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise BuildError(f"{name!r} is not a regular file; remove it from the build")
    return SourceFile(name, path, status.st_size, status.st_mtime_ns, status.st_ino)


def _checked(name: str) -> str:
    try:
        # As they are on the disk, and not as the locale reads them.
        name = os.fsencode(name).decode("utf-8")
    except UnicodeError:
        raise BuildError(f"{name!a} is not a UTF-8 name; rename the file") from None
    normal = unicodedata.normalize("NFC", name)
    if _FORBIDDEN & set(normal) or any(c < " " or c == "\x7f" for c in normal):
        raise BuildError(f"{name!r} has a character that a zip for devices cannot hold; rename it")
    if len(normal.encode()) > 1024:
        raise BuildError(f"{name[:60]!r}… is longer than 1,024 bytes; shorten it")
    return normal


def _check_all(root: Path, found: list[SourceFile]) -> None:
    if not found:
        raise BuildError(f"build directory {root} is empty; run the web build first")
    names = [file.name for file in found]
    if "index.html" not in names and not any(name.endswith(_REACT_NATIVE) for name in names):
        raise BuildError(f"build directory {root} has no index.html at its top")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BuildError(f"{twice!r} is there twice, in two Unicode forms; rename one")
    if len(found) > MAX_FILES or sum(file.size for file in found) > MAX_TOTAL:
        raise BuildError(f"build directory {root} has over {MAX_FILES:,} files or 4 GB")


def _unreadable(error: OSError) -> None:
    raise BuildError(f"cannot read {Path(error.filename).name!r}: {error.strerror}") from error


def _shown(path: Path, top: Path) -> str:
    return repr(path.relative_to(top).as_posix())
