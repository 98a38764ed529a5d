"""Independent parts of an experiment: each is computed once, in a process of its own core, and kept on disk.

Most of an experiment is small programs run one after the other, which keep one core busy. So units that do not need
each other run side by side, one process and one thread of XLA each, which cannot change their numbers: a unit sees its
arguments and the files it names, never what its process did before. Compiled programs are shared on
disk (``runtime.keep_programs``).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import Progress

from experiments.lab.display import make_bar
from mlipjax import runtime
from mlipjax.files import write_atomic
from mlipjax.models import registry
from mlipjax.oracles import SerialExecutor, local_processes
from mlipjax.oracles.workers import available_cores

MOST_WORKERS = 4
"""Processes at most, unless more are asked for: each takes 2 to 3 GB."""

Results = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Unit:
    """One part.

    Attributes:
        name: of its file, and in messages.
        make: function of a module (it is sent to another process by name) that returns what JSON can hold.
        arguments: its first arguments.
        after: units that are finished before; what they left is on disk.
        given: likewise, whose results are its further arguments.
    """

    name: str
    make: Callable[..., dict[str, Any]]
    arguments: tuple[Any, ...] = ()
    after: tuple[str, ...] = ()
    given: tuple[str, ...] = ()

    @property
    def awaited(self) -> tuple[str, ...]:
        """All units that are finished before."""
        return (*self.after, *self.given)


def default_workers() -> int:
    """One process for each core, up to a limit; one where JAX has an accelerator."""
    return min(available_cores(), MOST_WORKERS) if jax.default_backend() == "cpu" else 1


def run_units(units: Sequence[Unit], folder: Path, console: Console, workers: int | None = None) -> Results:
    """Compute what is not on disk yet, and return all results by name; the same call again resumes.

    Args:
        units: in the order in which they are begun; a name that comes twice counts once.
        folder: ``NAME.json`` of every finished unit, with the ``seconds`` and ``cpu_seconds`` it took.
        console: for progress.
        workers: processes; 1 computes in this process.

    Raises:
        ValueError: if there would be no worker, or a unit waits for one that does not exist.
        RuntimeError: naming the unit that failed; the finished ones stay.
    """
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f"found workers={workers}; at least one process is needed.")
    todo = {unit.name: unit for unit in units}
    if missing := {name for unit in units for name in unit.awaited} - set(todo):
        raise ValueError(f"units wait for {', '.join(sorted(missing))}, which nothing makes.")
    folder.mkdir(parents=True, exist_ok=True)
    open_ = {name: unit for name, unit in todo.items() if not _file(folder, name).exists()}
    with make_bar(console, "{task.description}") as progress:
        bar = progress.add_task("", total=len(todo), completed=len(todo) - len(open_))
        _compute(open_, folder, min(workers, max(len(open_), 1)), functools.partial(_show, progress, bar))
    return {name: _read(folder, name) for name in todo}


def _show(progress: Progress, bar: Any, running: Sequence[str], finished: str | None, seconds: float = 0.0) -> None:
    progress.update(bar, description=", ".join(running), advance=finished is not None)
    if finished is not None:
        progress.console.print(f"{finished}: {seconds:.0f} s", highlight=False)
    elif not progress.console.is_terminal:
        progress.console.print(f"{running[-1]} ...", highlight=False)


def _compute(todo: dict[str, Unit], folder: Path, workers: int, show: Callable[..., None]) -> None:
    """Begin units in their order, as soon as those they wait for are there."""
    waiting, running = list(todo.values()), dict[Future[float], str]()
    others = set(multiprocessing.active_children())
    executor = _executor(workers, folder)
    try:
        while waiting or running:
            for unit in [unit for unit in waiting if all(_file(folder, name).exists() for name in unit.awaited)]:
                if len(running) == workers:
                    break
                waiting.remove(unit)
                show([*running.values(), unit.name], None)
                running[executor.submit(_work, unit, folder)] = unit.name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running[future]
                seconds = _seconds(future, name, list(running.values()))
                del running[future]
                show(list(running.values()), name, seconds)
    except BaseException:
        # what the other processes are at is not waited for; their finished units are on disk
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _executor(workers: int, folder: Path) -> Executor:
    if workers == 1:
        return SerialExecutor()
    threads = max(1, available_cores() // workers)
    return local_processes(workers, functools.partial(_set_up, threads))


def _set_up(threads: int) -> None:
    """Prepare a worker process for its first unit."""
    # read when XLA starts, which it has not yet; otherwise each process had a thread for every core
    os.environ["PJRT_NPROC"] = str(threads)
    runtime.prepare_process()
    runtime.keep_programs(registry.programs_folder())


def _work(unit: Unit, folder: Path) -> float:
    """Compute and keep one unit; returns the seconds it took."""
    started, worked = time.monotonic(), time.process_time()
    result = unit.make(*unit.arguments, *(_read(folder, name) for name in unit.given))
    seconds = round(time.monotonic() - started, 1)
    spent = {"seconds": seconds, "cpu_seconds": round(time.process_time() - worked, 1)}
    write_atomic(_file(folder, unit.name), json.dumps({**result, **spent}))
    runtime.release_programs()
    return seconds


def _seconds(future: Future[float], name: str, running: list[str]) -> float:
    """Cost of a finished unit.

    Raises:
        RuntimeError: naming the unit, for errors that users can do something about; others are raised as they are.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise RuntimeError(
            f"a process died while computing {' and '.join(running)}, for lack of memory perhaps: the same command "
            "resumes, and --workers 1 needs less."
        ) from error
    except (ValueError, OSError, RuntimeError) as error:
        raise RuntimeError(f"{name}: {error}") from error


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads(_file(folder, name).read_text())
