"""A bound on the memory that a foreign parser may take for one structure.

Parsers believe the sizes that a file states: a count of a billion atoms in a few bytes of text makes them allocate
gigabytes before they notice that the file has ended.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

try:
    import resource
except ImportError:  # not on Windows
    resource = None

_LOCK = threading.Lock()


@contextlib.contextmanager
def bounded_memory(n_bytes: int) -> Iterator[None]:
    """Raise ``MemoryError`` in the block if the process asks for more than ``n_bytes`` on top of what it has.

    Where the system does not say what a process has (not Linux), nothing is bounded.
    """
    held = _address_space()
    if resource is None or held is None:
        yield
        return
    with _LOCK:  # limits are the process's: two readers at a time would restore each other's
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        ceilings = [held + n_bytes, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
        resource.setrlimit(resource.RLIMIT_AS, (min(ceilings), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int | None:
    """Bytes of address space that the process holds."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


__all__ = ["bounded_memory"]
