"""A file that is replaced whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of `path` when the block ends without an error.

    Until then `path` is as it was, also after a crash; from then on it is the new file, also after a loss of power. A
    new file has the permissions that `open` would give it, one that is replaced keeps those it had, and a symbolic
    link goes on pointing at what it points at. Only a killed process leaves its ``.fastopt-*.tmp`` in the folder.

    Raises OSError where it cannot be written, and ValueError where `path` is not a regular file.
    """
    target = os.path.realpath(os.fsdecode(path))
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", folder)
    permissions = _permissions(target)
    temporary = os.path.join(folder, f".fastopt-{secrets.token_hex(8)}.tmp")
    # Not tempfile, whose files are private: the process's umask is to decide.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            if permissions is not None:
                os.fchmod(descriptor, permissions)
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _permissions(target: str) -> int | None:
    """Those of the file that is to be replaced; None where there is none."""
    try:
        found = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found):
        raise ValueError(f"{target} is not a regular file: it would be replaced by one")
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file that is to be replaced is read-only", target)
    return stat.S_IMODE(found)
