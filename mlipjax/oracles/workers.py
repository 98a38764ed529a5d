"""One try at a label, which no oracle gets out of, and processes of this machine to make it in."""

from __future__ import annotations

import faulthandler
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TextIO

from threadpoolctl import threadpool_limits

from mlipjax.data.labels import check_labels
from mlipjax.oracles.protocol import Oracle
from mlipjax.system import Labels, System

# native code that ignores the timeout is given this much longer before its process is ended
GRACE_SECONDS = 5.0

# characters of a reason that are kept
_MAX_REASON = 500

# true in processes that local_processes started: they may be ended without harm to anything else
_expendable = False


@dataclass(frozen=True)
class Attempt:
    """Outcome of one try: ``labels``, or the ``reason`` why there are none."""

    labels: Labels | None
    reason: str
    seconds: float


class _Overtime(BaseException):
    """Not an ``Exception``, so that no calculator's own error handling swallows it."""


class Evicted(BaseException):
    """The worker is taken away from outside, whatever it labels; an error of no oracle, like ``_Overtime``."""


class JobTakenError(RuntimeError):
    """A job ended for reasons that lie not in what it computed."""


def attempt(oracle: Oracle, system: System, timeout: float | None = None) -> Attempt:
    """Label one structure; every error, and every label that is none, becomes the reason of a failed attempt.

    An oracle may raise anything, ``SystemExit`` and ``KeyboardInterrupt`` included, without ending the process. Only
    the user's own Ctrl-C does.

    Args:
        oracle: source of labels.
        system: structure.
        timeout: seconds. In the main thread of a process (on systems with POSIX signals) the calculation is
            interrupted; in another thread it is abandoned and runs on unheeded.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C, whatever the oracle made of it.
        Evicted: the process is taken away, which says nothing of the structure.
    """
    start = time.perf_counter()
    labels, reason = None, ""
    with _process_kept() as interrupted:
        try:
            if timeout is None:
                found = oracle.label(system)
            elif _in_main_thread() and hasattr(signal, "setitimer"):
                found = _interrupted_after(timeout, oracle, system)
            else:
                found = _abandoned_after(timeout, oracle, system)
            labels = check_labels(found, system.n_atoms, required=("energy", "forces"))
        except _Overtime:
            reason = f"timeout after {timeout:g} s"
        except Evicted:
            raise
        except BaseException as error:
            reason = in_words(error)
    if interrupted:
        raise KeyboardInterrupt
    return Attempt(labels, reason, time.perf_counter() - start)


def in_words(error: BaseException) -> str:
    """An error as one line of bounded length that any file can hold."""
    try:
        message = str(error)
    except Exception:
        message = "(without a message that can be printed)"
    line = " ".join(f"{type(error).__name__}: {message}".replace("\0", " ").split())
    return line.encode(errors="replace").decode()[:_MAX_REASON].removesuffix(":")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _process_kept() -> Iterator[list[int]]:
    """Undo what a calculator did to the process: the current folder. Yield signals of Ctrl-C that came meanwhile."""
    pressed: list[int] = []
    if not _in_main_thread():
        yield pressed
        return
    # by descriptor: the folder may be moved meanwhile
    folder = os.open(".", getattr(os, "O_PATH", os.O_RDONLY)) if hasattr(os, "fchdir") else None
    previous = signal.getsignal(signal.SIGINT)

    def press(signum: int, frame: Any) -> None:
        pressed.append(signum)
        if callable(previous):
            previous(signum, frame)

    if callable(previous):
        signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        if callable(previous):
            signal.signal(signal.SIGINT, previous)
        if folder is not None:
            os.fchdir(folder)
            os.close(folder)


def _interrupted_after(timeout: float, oracle: Oracle, system: System) -> Labels:
    running = True

    def stop(signum: int, frame: Any) -> None:
        if running:
            raise _Overtime

    previous = signal.signal(signal.SIGALRM, stop)
    # again every second: Python drops an exception that happens to be raised inside a destructor or a callback
    signal.setitimer(signal.ITIMER_REAL, timeout, 1.0)
    if _expendable:
        # a thread outside Python: it works even when native code never returns to the interpreter
        faulthandler.dump_traceback_later(timeout + GRACE_SECONDS, exit=True, file=_null())
    try:
        try:
            return oracle.label(system)
        finally:
            running = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
        if _expendable:
            faulthandler.cancel_dump_traceback_later()


@functools.cache
def _null() -> TextIO:
    """Sink of tracebacks of ended processes: the reason of the failed label says what there is to say."""
    return open(os.devnull, "w")


def _abandoned_after(timeout: float, oracle: Oracle, system: System) -> Labels:
    outcome: Future[Labels] = Future()

    def run() -> None:
        try:
            outcome.set_result(oracle.label(system))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(timeout)
    except TimeoutError:
        if outcome.done():  # the calculator's own TimeoutError
            raise
        raise _Overtime from None


class SerialExecutor(Executor):
    """Runs each call in the calling thread, at once: no processes, no pickling."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call ``fn`` now and return a future that is already done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def local_processes(n_workers: int, set_up: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Worker processes on this machine, each with one thread; they end when this process does, however it ends.

    Args:
        n_workers: number of processes.
        set_up: function of a module that every process calls before its first task.
    """
    # spawn: a forked copy of a process that has run JAX or OpenMP may hang
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_start_worker, initargs=(set_up,))


def end_processes(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once; what they were doing is lost."""
    for process in list((getattr(pool, "_processes", None) or {}).values()):
        process.terminate()


def available_cores() -> int:
    """Number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def limit_threads(number: int) -> None:
    """Give OpenMP and linear algebra so many threads, in this process and those that it starts."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(number)
    threadpool_limits(number)  # libraries that are loaded already


def become_expendable() -> None:
    """Say that this process may be ended without harm to anything else."""
    global _expendable
    _expendable = True


def _start_worker(set_up: Callable[[], None] | None) -> None:
    become_expendable()
    limit_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    os.dup2(2, 1)  # what a calculator prints must not stand among the results of a command
    warnings.showwarning = _show_warning
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if set_up is not None:
        set_up()


def _show_warning(message: Warning | str, category: type[Warning], *place: object, **options: object) -> None:
    print(f"warning (worker): {' '.join(str(message).split())}", file=sys.stderr)


def _end_with(sentinel: int) -> None:
    # idle workers hold both ends of their queue and would wait for ever after a kill -9 of the parent
    wait([sentinel])
    os._exit(1)
