"""Labels for many structures: from the store where they exist, in parallel where they do not, each tried twice."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass
from types import TracebackType

from mlipjax.oracles.protocol import Failure, Oracle
from mlipjax.oracles.stale import RecentLabels
from mlipjax.oracles.store import LabelStore, label_key
from mlipjax.oracles.workers import (
    Attempt,
    SerialExecutor,
    attempt,
    available_cores,
    end_processes,
    in_words,
    local_processes,
)
from mlipjax.system import Labels, System

Progress = Callable[[int, int, "Labels | Failure"], None]
"""Called with (finished, total, result) after each structure."""

MAX_DEATHS = 6
"""Deaths of local processes, without one label in between, after which starting another is pointless."""

_REPEATED = (
    "energy and forces are, to the last digit, those of another structure labelled before: was nothing computed for"
    " this one?"
)


@dataclass
class LabelCounts:
    """Counts of labels by origin, since the labeller was made."""

    computed: int = 0
    reused: int = 0
    retried: int = 0
    failed: int = 0


@dataclass
class _Job:
    """One structure to be labelled, and what has been tried."""

    key: str
    system: System
    attempts: int


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
        executor: where to compute; never shut down here. Default: local processes with one thread each, or the
            calling thread for jittable oracles.
        n_workers: local processes; ``None`` for one per available core.
        timeout: seconds per attempt.
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
        executor: Executor | None = None,
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
        self.oracle = oracle
        self.store = store if isinstance(store, LabelStore) or store is None else LabelStore(os.fspath(store))
        if self.store is not None:
            self.store.hold()
        self.counts = LabelCounts()
        self._timeout, self._max_attempts = timeout, retries + 1
        self._n_workers = n_workers or available_cores()
        self._given = SerialExecutor() if executor is None and oracle.jittable else executor
        self._own: ProcessPoolExecutor | None = None
        self._deaths = 0
        self._recent = RecentLabels()

    def __enter__(self) -> Labeller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after an error (Ctrl-C) nobody waits for calculations that may take hours
        self.close(wait=kind is None)

    def close(self, *, wait: bool = True) -> None:
        """End the worker processes, when they are done or, without ``wait``, at once; later labels start new ones."""
        if self._own is not None:
            if not wait:
                end_processes(self._own)
            self._own.shutdown(wait=True, cancel_futures=True)
            self._own = None

    def label(self, systems: Sequence[System], on_progress: Progress | None = None) -> list[Labels | Failure]:
        """Label structures; equal ones are computed once.

        Args:
            systems: structures on the host.
            on_progress: see :data:`Progress`; called in the calling thread, as labels come in.

        Returns:
            one entry for each structure, in their order.

        Raises:
            BrokenExecutor: an executor given by the caller broke. (Local processes are replaced: a structure whose
                process dies counts as failed, the others go on.)
        """
        keys = [label_key(system, self.oracle.identity) for system in systems]
        results: dict[str, Labels | Failure] = {}
        jobs: deque[_Job] = deque()

        def finish(key: str, result: Labels | Failure) -> None:
            results[key] = result
            if on_progress is not None:
                on_progress(len(results), len(set(keys)), result)

        for key, system in dict(zip(keys, systems, strict=True)).items():
            known = self._look_up(key)
            if isinstance(known, int):
                jobs.append(_Job(key, system, known))
            else:
                finish(key, known)
        self._run(jobs, finish)
        return [results[key] for key in keys]

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

    def _run(self, jobs: deque[_Job], finish: Callable[[str, Labels | Failure], None]) -> None:
        """Keep the executor busy until all jobs are done.

        When a local process dies, the pool names no culprit: all jobs under way become suspects and run again,
        one at a time, so that only the guilty one is charged with an attempt.
        """
        suspects: deque[_Job] = deque()
        running: dict[Future[Attempt], _Job] = {}
        try:
            while jobs or suspects or running:
                queue, room = (suspects, 1) if suspects else (jobs, self._capacity)
                while queue and len(running) < room:
                    job = queue.popleft()
                    running[self._submit(job)] = job
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                try:
                    # in the order of submission: a run that is repeated writes the same store
                    for future in [future for future in running if future in done]:
                        outcome = _outcome(future)
                        self._record(running.pop(future), outcome, jobs, finish)
                except BrokenExecutor as error:
                    self._replace_pool(error)
                    if len(running) == 1:
                        outcome = Attempt(None, "the worker process died (killed, out of memory or crashed)", 0.0)
                        self._record(next(iter(running.values())), outcome, jobs, finish)
                    else:
                        suspects.extend(running.values())
                    running.clear()
        finally:
            for future in running:
                future.cancel()

    @property
    def _capacity(self) -> float:
        """Jobs to have under way: as many as local processes; a given executor schedules by itself."""
        return self._n_workers if self._given is None else float("inf")

    def _submit(self, job: _Job) -> Future[Attempt]:
        if self._given is not None:
            return self._given.submit(attempt, self.oracle, job.system, self._timeout)
        if self._own is None:
            self._own = local_processes(self._n_workers)
        try:
            return self._own.submit(attempt, self.oracle, job.system, self._timeout)
        except BrokenExecutor as error:  # died while idle: report it the way a running job would
            broken: Future[Attempt] = Future()
            broken.set_exception(error)
            return broken

    def _replace_pool(self, error: BrokenExecutor) -> None:
        """Drop a broken pool, or give up where a new one would not help.

        Raises:
            BrokenExecutor: the executor is the caller's, or local processes die one after the other.
        """
        if self._given is not None:
            raise error
        self._deaths += 1
        if self._deaths >= MAX_DEATHS and self.counts.computed == 0:
            raise BrokenExecutor(
                f"{self._deaths} worker processes died and none has made a label. Does the script that starts them"
                " lack an `if __name__ == '__main__':` guard? Is there enough memory?"
            ) from error
        self.close()

    def _record(
        self,
        job: _Job,
        outcome: Attempt,
        jobs: deque[_Job],
        finish: Callable[[str, Labels | Failure], None],
    ) -> None:
        """Commit what an attempt gave, then hand it on, try again or give up."""
        name, seconds = self.oracle.name, outcome.seconds
        if outcome.labels is not None and self._recent.repeats(job.system, outcome.labels):
            outcome = Attempt(None, _REPEATED, seconds)
        if outcome.labels is not None:
            labels = outcome.labels
            if self.store is not None:
                labels = self.store.add(job.key, job.system, labels, oracle=name, seconds=seconds)
            self.counts.computed += 1
            finish(job.key, labels)
            return
        job.attempts += 1
        if self.store is not None:
            self.store.add_failure(job.key, job.system, outcome.reason, oracle=name, seconds=seconds)
        if job.attempts < self._max_attempts:
            self.counts.retried += 1
            jobs.append(job)
        else:
            self.counts.failed += 1
            finish(job.key, Failure(outcome.reason, job.attempts))


def _outcome(future: Future[Attempt]) -> Attempt:
    """Result of a future; an error outside the oracle (pickling, a cancelled job) is a failed attempt."""
    try:
        return future.result()
    except BrokenExecutor:
        raise
    except (Exception, CancelledError) as error:
        return Attempt(None, in_words(error), 0.0)
