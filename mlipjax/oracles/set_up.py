"""Set-up of a process before its first label: threads, modules of a cluster, a scratch folder."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlipjax.factory import import_factory
from mlipjax.oracles.workers import Evicted, become_expendable, in_words, limit_threads

_MODULE_SECONDS = 120.0

_once = threading.Lock()


class SetUpError(RuntimeError):
    """A worker cannot be made ready: no structure is to blame, and another worker would do no better."""


@dataclass(frozen=True)
class WorkerSetUp:
    """Makes a worker ready; called in it, once.

    Attributes:
        threads: of every label, for OpenMP and the linear algebra libraries; ``None`` leaves them.
        modules: environment modules to load (``module load``), for the programs that labels start.
        scratch: folder for temporary files, made if absent; ``$VARIABLES`` are those of the worker.
        function: ``"module:function"``, called without arguments after all else.
        expendable: the process does nothing but label: it may be ended where native code ignores the time limit.
        evictable: SIGUSR2 says that the job is about to be taken away, as submitit arranges it.
    """

    threads: int | None = None
    modules: tuple[str, ...] = ()
    scratch: str | None = None
    function: str | None = None
    expendable: bool = False
    evictable: bool = False

    def __call__(self) -> None:
        """Make this process ready.

        Raises:
            SetUpError: a module, the folder or the function is not to be had here.
        """
        if self.expendable:
            become_expendable()
        if self.evictable:
            signal.signal(signal.SIGUSR2, _evict)
        if self.threads is not None:
            limit_threads(self.threads)
        if self.modules:
            os.environ.update(_environment_with(self.modules))
        if self.scratch is not None:
            folder = os.path.expanduser(os.path.expandvars(self.scratch))
            os.makedirs(folder, exist_ok=True)
            os.environ["TMPDIR"] = tempfile.tempdir = folder
        if self.function is not None:
            import_factory(self.function)()


def make_ready(set_up: Callable[[], None]) -> None:
    """Call ``set_up`` if this process has not called it (or an equal one) yet.

    Raises:
        SetUpError: it failed; so does every later call.
    """
    with _once:
        failed = _outcome_of(set_up)
    if failed is not None:
        raise SetUpError(failed)


@functools.cache
def _outcome_of(set_up: Callable[[], None]) -> str | None:
    """Call it; what went wrong, in words."""
    try:
        set_up()
    except Exception as error:
        return in_words(error)
    return None


def _environment_with(modules: tuple[str, ...]) -> dict[str, str]:
    """Variables of a login shell that has loaded modules."""
    command = ["bash", "-lc", 'module load "$@" >&2 && env -0', "bash", *modules]
    run = subprocess.run(command, capture_output=True, timeout=_MODULE_SECONDS, check=False)
    lines = run.stderr.decode(errors="replace").split("\n")
    if run.returncode:
        raise SetUpError(f"module load {' '.join(modules)}: {' '.join(filter(None, lines))}")
    pairs = (item.decode(errors="surrogateescape").partition("=") for item in run.stdout.split(b"\0") if item)
    # the shell's own state is not the worker's
    return {name: value for name, _, value in pairs if name not in ("PWD", "OLDPWD", "SHLVL", "_")}


def _evict(signum: int, frame: Any) -> None:
    raise Evicted("the cluster takes this job away")
