"""Files that are either the old one or the new one, whenever the program is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on a clean exit it is synced to disk and renamed to ``path``.

    After an exception ``path`` is as it was and the temporary file is gone. After a kill a ``*.tmp`` file may
    stay behind; the next write overwrites it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file (text as UTF-8) so that readers see either the old content or all of the new."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: str | os.PathLike[str]) -> None:
    """Ask the operating system to put a file, or the entries of a folder, on the disk (``fsync``)."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows cannot open folders; it commits renames by itself
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
