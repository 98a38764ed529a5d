"""One process at a time: advisory locks on folders and files, which vanish with their process, however it ends."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlipjax.files import make_folder

try:
    import fcntl
except ImportError:  # Windows has no flock: there, keeping processes apart is the user's business
    fcntl = None

LOCK = ".lock"
"""Name of the lock file in a folder; that of a file ``NAME`` is ``.NAME.lock`` beside it."""


class InUseError(RuntimeError):
    """Another process works in the same folder, or writes the same file."""


@dataclass
class _Held:
    descriptor: int
    count: int


_guard = threading.Lock()
# by the real path of the lock file; a process may take a lock that it has
_held: dict[str, _Held] = {}


class Lock:
    """A lock that is held from here to ``release``, or until this object or the process is gone.

    The operating system ends it with the process, also after a kill: a lock file left behind locks nothing. A file
    system without locks is used without one.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        """Lock ``target``: a folder that exists, or a file, existing or not, in a folder that exists.

        Raises:
            InUseError: another process holds it.
            OSError: the folder cannot be written.
        """
        target = Path(target)
        file = target / LOCK if target.is_dir() else target.with_name(f".{target.name}{LOCK}")
        key = os.path.realpath(file)
        with _guard:
            if key in _held:
                _held[key].count += 1
            else:
                _held[key] = _Held(_take(key, target), 1)
        self._finalizer = weakref.finalize(self, _release, key, os.getpid())

    def release(self) -> None:
        """Let others have it; doing so twice is harmless."""
        self._finalizer()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


@contextmanager
def folder_alone(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Make a folder (and its parents) if absent and hold its lock; made folders that stay empty are removed again.

    Args:
        folder: ``None`` for nothing to make and hold.

    Raises:
        InUseError: another process works in it.
        OSError: it cannot be made or written, or is a file.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    make_folder(folder)
    try:
        with Lock(folder):
            yield
    finally:
        for part in made:
            try:
                part.rmdir()
            except OSError:  # not empty: there is something to keep
                break


def _take(file: str, target: Path) -> int:
    """Open the lock file and lock it."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None and not _flock(descriptor):
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another one"
                raise InUseError(f"{target} is in use by another process ({holder}); wait for it, or choose another.")
            # whoever had it may have removed the file between opening and locking: then this one is nobody's
            if os.path.exists(file) and os.path.samestat(os.fstat(descriptor), os.stat(file)):
                with contextlib.suppress(OSError):  # a full disk: the name of the holder is a courtesy
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    """Return whether nobody else holds the lock; also where the file system has no locks."""
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _release(key: str, owner: int) -> None:
    if os.getpid() != owner:  # a forked copy: the lock belongs to its parent
        return
    with _guard:
        held = _held[key]
        held.count -= 1
        if held.count:
            return
        del _held[key]
        with contextlib.suppress(OSError):
            os.unlink(key)  # before it is unlocked, so that nobody can have locked this file
        os.close(held.descriptor)
