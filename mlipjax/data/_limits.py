"""Bounds on the memory and the time that a foreign parser may take for one structure.

Parsers believe the sizes that a file states: a count of a billion atoms in a few bytes of text makes them allocate
gigabytes, or loop for minutes, before they notice that the file has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_LOCK = threading.RLock()


class TooLong(BaseException):
    """A parser took too long; no ``Exception``, for parsers that go on after any of those."""


@contextlib.contextmanager
def bounded(n_bytes: int, seconds: float) -> Iterator[None]:
    """Stop what the block does if it asks for too much.

    Where the system does not offer the bound, nothing is bounded: memory needs Linux, time the main thread.

    Args:
        n_bytes: memory on top of what the process has.
        seconds: processor time.

    Raises:
        MemoryError, TooLong: in the block, wherever it is.
    """
    # limits are the process's: two readers at a time would restore each other's
    with _LOCK, _bounded_memory(n_bytes), _bounded_time(seconds):
        yield


@contextlib.contextmanager
def _bounded_memory(n_bytes: int) -> Iterator[None]:
    held = _address_space()
    if resource is None or held is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceilings = [held + n_bytes, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(ceilings), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _bounded_time(seconds: float) -> Iterator[None]:
    alone = threading.current_thread() is threading.main_thread()
    if not alone or not hasattr(signal, "setitimer") or signal.getitimer(signal.ITIMER_PROF)[0]:
        yield
        return

    def stop(*unused: object) -> None:
        raise TooLong(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGPROF, stop)
    # processor time, so that a busy machine makes no difference
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _address_space() -> int | None:
    """Bytes of address space that the process holds."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
