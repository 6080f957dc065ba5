"""Reading and creating the files of a certificate folder.

Nothing here overwrites a file by accident: `create` fails on an existing one, and only `replace`, for
files known to be ours, takes the place of one. Both are atomic: a reader sees all of a file or none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from lbctl.config.values import shorten
from lbctl.errors import LbctlError

PRIVATE = 0o600
PUBLIC = 0o644
PEM_MAX = 1024 * 1024  # bytes; a chain has a few thousand
LOCK_WAIT = 20.0  # seconds; whoever holds the lock writes eight small files
_LOCK_POLL = 0.02
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def show(path: Path | str) -> str:
    """A path, fit for one line of a message."""
    return shorten(str(path), 200)


def in_shell(path: Path) -> str:
    """A path as part of a command to paste."""
    return shorten(shlex.quote(str(path)), 200)


def make_directory(directory: Path) -> None:
    """Create a folder (0700) and what leads to it; one that exists keeps its mode.

    Raises:
        LbctlError: it cannot be created, or something else has that name.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LbctlError(f"cannot create the folder {show(directory)}: {error.strerror}") from None


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the folder for writing, so that two processes make one set of certificates and not two halves.

    The lock is on the folder itself and leaves no file behind. On file systems without such locks the
    block runs all the same: no file is ever overwritten, so at worst one of two processes fails.

    Raises:
        LbctlError: the folder cannot be opened, or somebody held it for too long.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LbctlError(f"cannot open the folder {show(directory)}: {error.strerror}") from None
    try:
        _lock(fd, directory)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LbctlError(
                    f"another process has been writing to {show(directory)} for {LOCK_WAIT:.0f} s"
                ) from None
            time.sleep(_LOCK_POLL)  # a blocking flock has no deadline
        except OSError:
            return  # no such locks here
        else:
            return


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        LbctlError: it is not there, cannot be read, or is no PEM file by its size.
    """
    try:
        with path.open("rb") as file:
            content = file.read(PEM_MAX + 1)
    except OSError as error:
        raise LbctlError(f"cannot read {show(path)}: {error.strerror}") from None
    if len(content) > PEM_MAX:
        raise LbctlError(f"{show(path)} is larger than 1 MiB: no certificate and no key")
    return content


def exists(path: Path) -> bool:
    """Whether anything has this name, be it a dangling link."""
    return os.path.lexists(path)


def check_private(path: Path) -> None:
    """A private key is its owner's alone.

    Raises:
        LbctlError: other users can read or write it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise LbctlError(f"cannot read {show(path)}: {error.strerror}") from None
    if mode & _OTHERS:
        raise LbctlError(
            f"{show(path)} is open to other users (mode {mode:04o}); run: chmod 600 {in_shell(path)}"
        )


def create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file.

    Raises:
        LbctlError: something has this name already, or writing failed.
    """
    with _temporary(path, content, mode) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise LbctlError(f"{show(path)} exists already; it was not touched") from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise LbctlError(f"cannot create {show(path)}: {error.strerror}") from None
            _write_new(path, content, mode)  # such file systems have no better way that never overwrites


def replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file in the place of one that is ours.

    Raises:
        LbctlError: writing failed; the old file is still there.
    """
    with _temporary(path, content, mode) as temporary:
        try:
            temporary.replace(path)
        except OSError as error:
            raise LbctlError(f"cannot replace {show(path)}: {error.strerror}") from None


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """A complete, synced file next to `path`, gone afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write_new(temporary, content, mode)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Create a file that nobody else has, with its mode from the first moment."""
    try:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise LbctlError(f"{show(path)} exists already; it was not touched") from None
    except OSError as error:
        raise LbctlError(f"cannot create {show(path)}: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LbctlError(f"cannot write {show(path)}: {error.strerror}") from None
        raise
