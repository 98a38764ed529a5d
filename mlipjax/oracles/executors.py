"""Executors of labels, by name: processes of this machine, Dask, submitit (Slurm), executorlib, or your own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlipjax.factory import import_factory
from mlipjax.oracles.set_up import WorkerSetUp
from mlipjax.oracles.workers import SerialExecutor, available_cores, end_processes, in_words, local_processes

EXECUTOR_HELP = "local[:N] | dask:ADDRESS | submitit:FOLDER | executorlib[:N] | module:factory"
"""Accepted forms, for help texts; each may be followed by ``,name=value`` pairs."""

JOBS = 16
"""Labels under way at a time in an executor that does not say how many workers it has."""

_QUEUED = 100
"""The same for jobs in the queue of a cluster, which are processes of their own."""

_SHARED: dict[str, type] = {
    **{"jobs": int, "timeout": float, "threads": int, "modules": str, "scratch": str, "set_up": str},
}
_OWN: dict[str, dict[str, type]] = {
    "local": {},
    "dask": {},
    "executorlib": {"cpus": int},
    "submitit": {
        **{"cluster": str, "partition": str, "account": str, "qos": str, "constraint": str, "gres": str},
        **{"cpus": int, "memory": float, "minutes": int},
    },
}
_LARGEST = {"jobs": 100_000, "timeout": 1e9, "threads": 4096, "cpus": 4096, "memory": 1e6, "minutes": 10**6}


@dataclass(frozen=True)
class Workers:
    """Where labels are computed.

    Attributes:
        name: for messages.
        start: gives an object whose ``submit`` returns something with ``done``, ``result`` and ``cancel``.
        stop: ends what ``start`` gave, when its jobs are done (true) or at once.
        slots: labels to have under way at a time in what ``start`` gave.
        set_up: called once in every process that labels, before its first label; to be pickled, and hashable.
        timeout: seconds of an attempt; ``None`` for no limit.
        replaceable: ``start`` may be called again for one that broke.
        isolated: every job has a process of its own.
        inline: labels are computed by ``submit``, in the calling thread.
        lasting: jobs outlive this process, and are found again by the label they are to make (``find``, ``keep``,
            ``forget`` of what ``start`` gave).
    """

    name: str
    start: Callable[[], Any]
    stop: Callable[[Any, bool], None]
    slots: Callable[[Any], int]
    set_up: Callable[[], None] | None = None
    timeout: float | None = None
    replaceable: bool = True
    isolated: bool = False
    inline: bool = False
    lasting: bool = False


def as_workers(executor: Any, n_workers: int | None = None) -> Workers:
    """Workers from a name, an executor of the caller's, or ``None`` for local processes.

    Args:
        executor: ``Workers``, what ``make_executor`` takes, or an object whose ``submit`` returns something with
            ``done`` and ``result``; such an object is never shut down.
        n_workers: local processes; by default one per available core.

    Raises:
        ValueError: see ``make_executor``; or numbers of workers are given twice.
        TypeError: it is something else.
    """
    if executor is None:
        return _local(n_workers or available_cores(), None, {})
    if n_workers is not None:
        raise ValueError(
            f"{n_workers} workers are local processes, beside an executor; tell the executor (local:{n_workers})."
        )
    if isinstance(executor, Workers):
        return executor
    if isinstance(executor, str):
        return make_executor(executor)
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(f"expected {EXECUTOR_HELP} or an object with submit, found {type(executor).__name__}.")
    inline = isinstance(executor, SerialExecutor)
    return Workers(
        name=type(executor).__name__,
        start=lambda: executor,
        stop=lambda executor, finish: None,
        slots=(lambda executor: 1) if inline else slots_of,
        replaceable=False,
        inline=inline,
    )


def in_this_thread() -> Workers:
    """Labels one after the other in the thread that asks for them."""
    return as_workers(SerialExecutor())


def slots_of(executor: Any) -> int:
    """Labels that an executor computes at a time: its workers, or those of Dask's cluster at this moment."""
    workers = getattr(executor, "_max_workers", None)
    if isinstance(workers, int):
        return workers
    client: Any = getattr(executor, "_client", None)
    return sum(client.nthreads().values()) if hasattr(client, "nthreads") else JOBS


def make_executor(spec: str) -> Workers:
    """Make the workers that ``spec`` names.

    - ``local:4``: processes of this machine, by default one per core.
    - ``dask:tcp://HOST:8786``: a Dask scheduler, by address or scheduler file.
    - ``submitit:FOLDER,partition=short,cpus=8,minutes=60``: a job of Slurm for every label, FOLDER being seen by all
      nodes; ``cluster=local`` runs them on this machine. More settings: account, qos, constraint, gres, memory (GB).
    - ``executorlib:4,cpus=2``: executorlib's processes on this machine.
    - ``module:factory``: what a function without arguments returns: any object whose ``submit`` returns something with
      ``done``, ``result`` and ``exception``.

    All take ``jobs`` (labels under way at a time), ``timeout`` (s, of an attempt), ``threads`` (of a label),
    ``modules`` (joined by +, loaded by ``module load``), ``scratch`` (folder of temporary files) and ``set_up`` (a
    ``package.module.function`` that every worker calls first).

    Raises:
        ValueError: the specification is not understood, or what it names does not exist.
    """
    head, *pairs = spec.split(",")
    kind, _, where = head.partition(":")
    if kind not in _OWN and not where:
        raise ValueError(f"unknown executor {head!r}; expected {EXECUTOR_HELP}.")
    settings = _settings(spec, pairs, {**_SHARED, **_OWN.get(kind, {})})
    set_up = _set_up(settings)
    if kind == "local":
        return _local(_number(where, spec) or settings.get("jobs") or available_cores(), set_up, settings)
    if kind == "executorlib":
        return _executorlib(_number(where, spec) or available_cores(), settings)
    if kind in ("dask", "submitit") and not where:
        raise ValueError(f"which {kind}? expected {_forms()[kind]}, found {spec!r}.")
    make = {"dask": _dask, "submitit": _submitit}.get(kind, partial(_made, head))
    return make(where, set_up, settings)


def _forms() -> dict[str, str]:
    return {form.partition(":")[0].partition("[")[0]: form for form in EXECUTOR_HELP.split(" | ")}


def _settings(spec: str, pairs: list[str], known: Mapping[str, type]) -> dict[str, Any]:
    """Read ``name=value`` pairs."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not value or name not in known:
            raise ValueError(f"cannot read {pair!r} in {spec!r}; settings are {', '.join(known)}, as name=value.")
        try:
            found[name] = known[name](value)
        except ValueError:
            raise ValueError(f"{name} in {spec!r} must be {known[name].__name__}, found {value!r}.") from None
        if name in _LARGEST and not 0 < found[name] <= _LARGEST[name]:
            raise ValueError(f"{name} in {spec!r} must be more than 0 and at most {_LARGEST[name]:g}, found {value}.")
    return found


def _number(where: str, spec: str) -> int | None:
    """Number of processes behind the colon."""
    if not where:
        return None
    if not where.isascii() or not where.isdigit() or not 0 < int(where) <= 10_000:
        raise ValueError(f"{spec!r} must name a number of processes from 1 to 10000, found {where!r}.")
    return int(where)


def _set_up(settings: Mapping[str, Any], **kind: bool) -> WorkerSetUp | None:
    function = settings.get("set_up")
    if function is not None:
        module, _, name = function.rpartition(".")
        function = f"{module}:{name}"
        import_factory(function)
    made = WorkerSetUp(
        threads=settings.get("threads"),
        modules=tuple(filter(None, settings.get("modules", "").split("+"))),
        scratch=settings.get("scratch"),
        function=function,
        **kind,
    )
    return None if made == WorkerSetUp() else made


def _local(number: int, set_up: WorkerSetUp | None, settings: Mapping[str, Any]) -> Workers:
    def stop(pool: ProcessPoolExecutor, finish: bool) -> None:
        if not finish:
            end_processes(pool)
        pool.shutdown(wait=True, cancel_futures=True)

    return Workers(
        name="local processes",
        start=partial(local_processes, number),
        stop=stop,
        slots=lambda pool: settings.get("jobs", number),
        set_up=set_up,
        timeout=settings.get("timeout"),
    )


def _dask(address: str, set_up: WorkerSetUp | None, settings: Mapping[str, Any]) -> Workers:
    try:
        from distributed import Client  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _not_installed("dask", "distributed") from error
    try:
        place: dict[str, Any] = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
        client = Client(**place, timeout=10, set_as_default=False)
    except Exception as error:
        raise ValueError(f"no Dask scheduler answers at {address}: {in_words(error)}.") from error
    return Workers(
        name=f"dask:{address}",
        # pure: a repeated call would be answered with the result of the one before
        start=lambda: client.get_executor(pure=False),
        stop=lambda executor, finish: None,
        slots=lambda executor: settings.get("jobs") or slots_of(executor),
        set_up=set_up,
        timeout=settings.get("timeout"),
    )


def _submitit(folder: str, set_up: WorkerSetUp | None, settings: Mapping[str, Any]) -> Workers:
    try:
        from mlipjax.oracles.cluster_jobs import ClusterJobs
    except ImportError as error:
        raise _not_installed("submitit", "submitit") from error
    jobs = ClusterJobs(Path(folder), settings)
    return Workers(
        name=f"submitit:{folder}",
        start=lambda: jobs,
        stop=lambda jobs, finish: None,
        slots=lambda jobs: settings.get("jobs") or (available_cores() if jobs.local else _QUEUED),
        set_up=_set_up(settings, expendable=True, evictable=True),
        # before the time of the job is up, so that whatever ends it else says nothing of the structure
        timeout=min(settings.get("timeout", jobs.label_seconds), jobs.label_seconds),
        isolated=True,
        lasting=True,
    )


def _executorlib(number: int, settings: Mapping[str, Any]) -> Workers:
    try:
        from executorlib import SingleNodeExecutor  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _not_installed("executorlib", "executorlib") from error
    resources = {"cores": 1, "threads_per_core": settings.get("cpus", 1)}

    def start() -> Any:
        return SingleNodeExecutor(max_workers=number, resource_dict=resources, hostname_localhost=True)

    def stop(executor: Any, finish: bool) -> None:
        executor.shutdown(wait=finish, cancel_futures=True)

    return Workers(
        name="executorlib",
        start=start,
        stop=stop,
        slots=lambda executor: settings.get("jobs", number),
        set_up=_set_up({"threads": settings.get("cpus"), **settings}, expendable=True),
        timeout=settings.get("timeout"),
        isolated=True,
    )


def _made(name: str, where: str, set_up: WorkerSetUp | None, settings: Mapping[str, Any]) -> Workers:
    factory = import_factory(name)

    def start() -> Any:
        try:
            executor = factory()
        except (Exception, SystemExit) as error:
            raise ValueError(f"the executor {name}() failed: {in_words(error)}.") from error
        if not callable(getattr(executor, "submit", None)):
            raise ValueError(f"{name}() returned {type(executor).__name__}, which has no submit.")
        return executor

    def stop(executor: Any, finish: bool) -> None:
        if isinstance(executor, ProcessPoolExecutor) and not finish:
            end_processes(executor)
        shutdown = getattr(executor, "shutdown", None)
        if shutdown is not None:
            shutdown(wait=finish)

    return Workers(
        name=name,
        start=start,
        stop=stop,
        slots=lambda executor: settings.get("jobs") or slots_of(executor),
        set_up=set_up,
        timeout=settings.get("timeout"),
    )


def _not_installed(kind: str, package: str) -> ValueError:
    return ValueError(
        f'the executor {kind} needs the package {package}, which is not installed: pip install "mlipjax[cluster]".'
    )
