"""Labels for many structures: from the store where they exist, in parallel where they do not, each tried twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from mlipjax.oracles.dispatch import Dispatcher, Job
from mlipjax.oracles.executors import Workers, as_workers, in_this_thread
from mlipjax.oracles.protocol import Failure, Oracle
from mlipjax.oracles.stale import RecentLabels
from mlipjax.oracles.store import LabelStore, label_key
from mlipjax.oracles.workers import Attempt
from mlipjax.system import Labels, System

Progress = Callable[[int, int, "Labels | Failure"], None]
"""Called with (finished, total, result) after each structure."""

_REPEATED = (
    "energy and forces are, to the last digit, those of another structure labelled before: was nothing computed for"
    " this one?"
)

_STEP = 0.2
"""Seconds after which new structures are noticed while labels are under way."""


@dataclass
class LabelCounts:
    """Counts of labels by origin, since the labeller was made."""

    computed: int = 0
    reused: int = 0
    retried: int = 0
    failed: int = 0


class Labeller:
    """Computes each label once, whatever happens.

    What an oracle returns is checked (``check_labels``): what cannot be the label of its structure is a failed
    attempt, and so are labels that were those of another structure before (``RecentLabels``). A label is committed to
    the store before it is returned or reported. A structure whose label fails or takes too long is tried once more
    (``retries``) and then skipped; attempts recorded in the store count, so a run that is repeated does not try again
    (``LabelStore.forget_failures`` makes it).

    Use as a context manager: leaving it ends the worker processes it started, which live on from one call of
    :meth:`label` to the next.

    Args:
        oracle: source of labels.
        store: database, or its path; ``None`` keeps labels in memory only.
        executor: where to compute: a name (``executors.make_executor``), ``Workers``, or any object whose ``submit``
            returns something with ``done`` and ``result``, which is never shut down. Default: local processes with one
            thread each, or the calling thread for jittable oracles.
        n_workers: local processes; ``None`` for one per available core.
        timeout: seconds per attempt; by default the executor's, if its name says one.
        retries: attempts after the first.

    Raises:
        ValueError: an argument or what the store holds cannot be used.
        InUseError: another process writes to the store.

    Attributes:
        counts: running totals.
    """

    def __init__(
        self,
        oracle: Oracle,
        store: LabelStore | str | os.PathLike[str] | None = None,
        *,
        executor: Workers | str | Any = None,
        n_workers: int | None = None,
        timeout: float | None = None,
        retries: int = 1,
    ):
        if n_workers is not None and n_workers < 1:
            raise ValueError(f"n_workers must be at least 1, found {n_workers}")
        if timeout is not None and timeout <= 0:
            raise ValueError(f"timeout must be positive (seconds), found {timeout}")
        if retries < 0:
            raise ValueError(f"retries must not be negative, found {retries}")
        in_thread = executor is None and oracle.jittable
        workers = in_this_thread() if in_thread else as_workers(executor, n_workers)
        self.oracle = oracle
        self.store = store if isinstance(store, LabelStore) or store is None else LabelStore(os.fspath(store))
        if self.store is not None:
            self.store.hold()
        self.counts = LabelCounts()
        self._max_attempts = retries + 1
        self._inline = workers.inline
        self._jobs = Dispatcher(workers, oracle, workers.timeout if timeout is None else timeout, self._record)
        self._lock = self._jobs.lock
        self._pending: set[str] = set()
        self._results: dict[str, Labels | Failure] = {}
        self._recent = RecentLabels()
        self._keeper: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Labeller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after an error (Ctrl-C) nobody waits for calculations that may take hours
        self.close(wait=kind is None)

    def close(self, *, wait: bool = True) -> None:
        """End the worker processes, when they are done or, without ``wait``, at once; later labels start new ones."""
        with self._lock:
            keeper = self._keeper
            self._pending.clear()
            self._jobs.close(finish=wait)
        if keeper is not None:
            keeper.join()

    @property
    def concurrent(self) -> bool:
        """Tell whether labels are computed while the calling thread does something else."""
        return not self._inline

    def start(self, systems: Sequence[System]) -> None:
        """Have structures labelled while the caller does something else; :meth:`collect` or :meth:`label` gives them.

        A thread commits labels to the store as they come. An oracle in the calling thread starts nothing.

        Raises:
            BrokenExecutor: see :meth:`label`; of earlier labels too.
        """
        if self._inline:
            return
        self._add({label_key(system, self.oracle.identity): system for system in systems})
        with self._lock:
            if self._jobs.busy and self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="labels", daemon=True)
                self._keeper.start()

    def collect(self, systems: Sequence[System]) -> list[Labels | Failure | None]:
        """Outcomes known by now of structures that were started, ``None`` for those under way, without waiting.

        Raises:
            BrokenExecutor: see :meth:`label`.
        """
        with self._lock:
            self._raise_error()
            return [self._results.get(label_key(system, self.oracle.identity)) for system in systems]

    def label(self, systems: Sequence[System], on_progress: Progress | None = None) -> list[Labels | Failure]:
        """Label structures; equal ones are computed once.

        Args:
            systems: structures on the host.
            on_progress: see :data:`Progress`; called in the calling thread, as labels come in.

        Returns:
            one entry for each structure, in their order.

        Raises:
            BrokenExecutor: an executor given by the caller broke, or workers are lost whatever they do. (Those that
                were started here are replaced: a structure whose process dies counts as failed, the others go on.)
        """
        keys = [label_key(system, self.oracle.identity) for system in systems]
        waiting = dict(zip(keys, systems, strict=True))
        results: dict[str, Labels | Failure] = {}
        try:
            self._add(waiting)
            while len(results) < len(waiting):
                self._raise_error()
                with self._lock:
                    # in the order in which they were committed
                    new = [key for key in self._results if key in waiting and key not in results]
                for key in new:
                    results[key] = self._results[key]
                    if on_progress is not None:
                        on_progress(len(results), len(waiting), results[key])
                if len(results) < len(waiting):
                    self._jobs.step(_STEP)
        except BaseException:
            with self._lock:
                self._pending.clear()
                self._jobs.drop()
            raise
        with self._lock:
            for key in results:
                self._results.pop(key, None)
        return [results[key] for key in keys]

    def _add(self, systems: dict[str, System]) -> None:
        """Find labels or start jobs for structures, by key."""
        with self._lock:
            self._raise_error()
            for key, system in systems.items():
                if key in self._results or key in self._pending:
                    continue
                known = self._look_up(key)
                if isinstance(known, int):
                    self._pending.add(key)
                    self._jobs.put(Job(key, system, known))
                else:
                    self._results[key] = known

    def _keep(self) -> None:
        """See to the workers until no job is left; in a thread of its own."""
        try:
            while True:
                with self._lock:
                    if not self._jobs.busy:
                        self._keeper = None
                        return
                self._jobs.step(_STEP)
        except BaseException as error:
            with self._lock:
                self._error, self._keeper = error, None
                self._pending.clear()
                self._jobs.drop()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _look_up(self, key: str) -> Labels | Failure | int:
        """Return the stored label, the final failure, or the number of attempts made so far."""
        if self.store is None:
            return 0
        labels = self.store.get(key)
        if labels is not None:
            self.counts.reused += 1
            return labels
        failed = self.store.failures(key)
        if failed is None:
            return 0
        if failed.count < self._max_attempts:
            return failed.count
        self.counts.failed += 1
        return Failure(failed.last_reason, failed.count)

    def _record(self, job: Job, outcome: Attempt) -> bool:
        """Commit what an attempt gave, then hand it on; or say that it is to be tried again."""
        name, seconds = self.oracle.name, outcome.seconds
        if outcome.labels is not None and self._recent.repeats(job.system, outcome.labels):
            outcome = Attempt(None, _REPEATED, seconds)
        if outcome.labels is not None:
            labels = outcome.labels
            if self.store is not None:
                labels = self.store.add(job.key, job.system, labels, oracle=name, seconds=seconds)
            self.counts.computed += 1
            self._finish(job, labels)
            return False
        job.attempts += 1
        if self.store is not None:
            self.store.add_failure(job.key, job.system, outcome.reason, oracle=name, seconds=seconds)
        if job.attempts < self._max_attempts:
            self.counts.retried += 1
            return True
        self.counts.failed += 1
        self._finish(job, Failure(outcome.reason, job.attempts))
        return False

    def _finish(self, job: Job, result: Labels | Failure) -> None:
        self._pending.discard(job.key)
        self._results[job.key] = result
