"""Keeping workers busy with labels, and telling a structure that cannot be labelled from a worker that was lost.

What is submitted (``work``) turns every error of an oracle into a failed attempt. So whatever else a job ends with is
the executor's: a dead process (``BrokenExecutor``, Dask's ``KilledWorker``, executorlib's ``ExecutorlibSocketError``, a
job of Slurm without a result), and no list of such errors has to be complete. It says that a worker died, not of what:
several structures may have been under way in it, and somebody else may have ended it. So

- a structure that was lost in company is a suspect: it runs again, alone (where every job has a process of its own, it
  always is);
- one that is lost alone is charged with a failed attempt if a worker then does what it is asked without it (``check``):
  else the workers are to blame, and it runs again. It takes two such attempts to give a structure up
  (``Labeller(retries=1)``), so that a worker may even be ended by chance while a suspect runs;
- one whose job was cancelled, evicted or on a node that failed is charged with nothing and runs again.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

from mlipjax.oracles.executors import Workers
from mlipjax.oracles.protocol import Oracle
from mlipjax.oracles.set_up import SetUpError, make_ready
from mlipjax.oracles.workers import Attempt, Evicted, JobTakenError, attempt, in_words
from mlipjax.system import System

MAX_LOST = 6
"""Checks in a row that are lost before the run stops: each follows a structure lost through no fault of its own."""

MAX_EVICTED = 30
"""The same for jobs that a cluster takes away, which happens to long ones."""

_EVICTED = {"CancelledError", "CommClosedError", "JobTakenError", "ManagerLost", "NodeDiedError"}
"""Names of errors, theirs or of a parent, that say that a worker was taken away whatever it was doing."""

_PAUSES = (1.0, 5.0, 25.0)
"""Seconds before a submission that was refused is tried again."""

_DIED = "the worker process died (killed, out of memory or crashed)"


def work(oracle: Oracle, system: System, timeout: float | None, set_up: Any, number: int) -> Attempt:
    """Job that is submitted: make the worker ready, and try one label.

    Args:
        oracle: source of labels.
        system: structure.
        timeout: seconds, see ``attempt``.
        set_up: called once in every process, if any.
        number: of the submission, so that no executor takes a repeated call for the one before.

    Raises:
        JobTakenError: the process is taken away.
        SetUpError: it could not be made ready.
    """
    if set_up is not None:
        make_ready(set_up)
    try:
        return attempt(oracle, system, timeout)
    except Evicted as error:  # which executors do not hand on as they do an exception
        raise JobTakenError(str(error)) from None


def check(oracle: Oracle, set_up: Any, number: int) -> None:
    """Other job that is submitted: the same without a structure."""
    if set_up is not None:
        make_ready(set_up)


@dataclass(eq=False)
class Job:
    """One structure to be labelled, and what has been tried.

    Attributes:
        key: of its label.
        system: structure.
        attempts: failed ones.
        suspect: it is to run alone.
        evicted: times that its worker was taken away.
        alone: nothing else was under way since it was submitted.
    """

    key: str
    system: System
    attempts: int
    suspect: bool = False
    evicted: int = 0
    alone: bool = False


class Dispatcher:
    """Keeps workers busy until no job is left. Two threads may call it.

    Args:
        workers: where labels are computed.
        oracle: source of labels.
        timeout: seconds of an attempt.
        record: is given a job and the outcome of an attempt, and says whether it is to be tried again.
    """

    def __init__(
        self, workers: Workers, oracle: Oracle, timeout: float | None, record: Callable[[Job, Attempt], bool]
    ) -> None:
        self.lock = threading.RLock()
        self._workers, self._oracle, self._timeout, self._record = workers, oracle, timeout, record
        self._jobs: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        self._running: dict[Any, Job | None] = {}  # None is a check
        self._accused: list[tuple[Job, str]] = []
        self._executor: Any = None
        self._number = 0
        self._failed_checks = 0

    @property
    def busy(self) -> bool:
        """Tell whether any job is left."""
        return bool(self._jobs or self._suspects or self._running or self._accused)

    def put(self, job: Job) -> None:
        """Add a job; it starts with the next step."""
        with self.lock:
            self._jobs.append(job)

    def step(self, seconds: float) -> None:
        """Submit what there is room for, wait until a job has ended, at most so long, and see to those that have.

        Raises:
            BrokenExecutor: labels cannot be computed there.
        """
        with self.lock:
            self._fill()
            running = list(self._running)
        _wait(running, seconds)
        with self.lock:
            # in the order of submission: a run that is repeated writes the same store
            for future in [future for future in self._running if future.done()]:
                if future in self._running:  # else another one took the pool with it
                    self._settle(future, self._running.pop(future))

    def drop(self) -> None:
        """Forget all jobs; those that run are cancelled where they can be."""
        with self.lock:
            for future in self._running:
                with contextlib.suppress(Exception):
                    future.cancel()
            self._running.clear()
            self._forget_waiting()

    def close(self, *, finish: bool) -> None:
        """End workers that were started here, when their jobs are done or at once; later jobs start new ones."""
        with self.lock:
            self._forget_waiting()
            while finish and self._running:
                self.step(0.2)
                self._forget_waiting()
            self.drop()
            if self._executor is not None:
                self._workers.stop(self._executor, finish)
                self._executor = None

    def _forget_waiting(self) -> None:
        self._jobs.clear()
        self._suspects.clear()
        self._accused.clear()

    def _fill(self) -> None:
        """Submit jobs: as many as there are slots, or one suspect, or a check."""
        isolated = self._workers.isolated
        if self._accused:
            if None not in self._running.values() and (isolated or not self._running):
                self._running[self._submit(None)] = None
            if not isolated:
                return
        queue = self._suspects or self._jobs
        room = 1 if queue is self._suspects else self._slots() if queue else 0
        while queue and len(self._running) < room:
            job = queue.popleft()
            job.alone = isolated or not self._running
            for other in filter(None, self._running.values()):
                other.alone = isolated
            try:
                self._running[self._submit(job)] = job
            except BaseException:
                queue.appendleft(job)
                raise

    def _slots(self) -> int:
        return max(1, self._workers.slots(self._started()))

    def _started(self) -> Any:
        if self._executor is None:
            self._executor = self._workers.start()
        return self._executor

    def _submit(self, job: Job | None) -> Any:
        """Submit a job, or a check; what an earlier process submitted is waited for where the executor knows of it."""
        if job is not None and (kept := self._kept("find", job.key)) is not None:
            return kept
        self._number += 1
        shared = (self._workers.set_up, self._number)
        for pause in (*_PAUSES, None):
            try:
                executor = self._started()
                if job is None:
                    return executor.submit(check, self._oracle, *shared)
                future = executor.submit(work, self._oracle, job.system, self._timeout, *shared)
            except Exception as error:
                # died while it was idle, or a queue that is too busy to answer
                self._stop_broken(error)
                if pause is None or self._workers.inline or isinstance(error, SetUpError):
                    raise BrokenExecutor(
                        f"{self._workers.name}: a job cannot be submitted: {in_words(error)}"
                    ) from error
                if not isinstance(error, BrokenExecutor):
                    time.sleep(pause)
            else:
                self._kept("keep", job.key, future)
                return future
        raise AssertionError

    def _kept(self, what: str, *arguments: Any) -> Any:
        """Call a method of an executor whose jobs outlive this process; others have none."""
        method = getattr(self._started(), what, None) if self._workers.lasting else None
        return None if method is None else method(*arguments)

    def _settle(self, future: Any, job: Job | None) -> None:
        """See to a job that has ended."""
        try:
            outcome = future.result()
        except (Exception, CancelledError) as error:
            if isinstance(error, SetUpError) or "SetUpError: " in str(error):
                raise BrokenExecutor(f"{self._workers.name}: a worker cannot be set up: {in_words(error)}") from error
            self._stop_broken(error)
            self._lost(job, error)
            return
        if job is None:
            self._failed_checks = 0
            accused, self._accused = self._accused, []
            for each, charge in accused:
                self._finish(each, Attempt(None, charge, 0.0))
        else:
            self._finish(job, outcome)

    def _finish(self, job: Job, outcome: Attempt) -> None:
        again = self._record(job, outcome)
        self._kept("forget", job.key)
        if again:
            self._queue_of(job).append(job)

    def _lost(self, job: Job | None, error: BaseException) -> None:
        """See to a job whose worker was lost."""
        reason = in_words(error)
        kinds = {parent.__name__ for parent in type(error).__mro__}
        evicted = bool(_EVICTED & kinds) or "JobTakenError: " in str(error)  # some hand on the words alone
        if job is None:  # the workers were to blame
            self._failed_checks += 1
            if self._failed_checks >= MAX_LOST:
                raise self._hopeless(f"not even without a structure do they answer: {reason}") from error
            accused, self._accused = self._accused, []
            for each, _ in accused:
                self._queue_of(each).appendleft(each)
            return
        self._kept("forget", job.key)
        if evicted:
            job.evicted += 1
            if job.evicted >= MAX_EVICTED:
                raise self._hopeless(f"a job was taken away {job.evicted} times: {reason}") from error
            self._queue_of(job).appendleft(job)
            return
        job.suspect = not self._workers.isolated
        if job.alone:
            self._accused.append((job, f"{_DIED}: {reason}"))
        else:
            self._suspects.append(job)

    def _queue_of(self, job: Job) -> deque[Job]:
        return self._suspects if job.suspect else self._jobs

    def _hopeless(self, reason: str) -> BrokenExecutor:
        return BrokenExecutor(f"{self._workers.name}: workers are lost one after the other, {reason}. {_ADVICE}")

    def _stop_broken(self, error: BaseException) -> None:
        """Drop a broken pool, so that the next job starts a new one.

        Raises:
            BrokenExecutor: it is the caller's, who alone could replace it.
        """
        if isinstance(error, BrokenExecutor) and self._executor is not None:
            if not self._workers.replaceable:
                raise error
            broken, self._executor = self._executor, None
            self._workers.stop(broken, False)


_ADVICE = (
    "Does the script that starts them lack an `if __name__ == '__main__':` guard? Is there enough memory? Can they "
    "import mlipjax and what the oracle names?"
)


def _wait(running: Sequence[Any], seconds: float) -> None:
    """Wait until one of some jobs has ended; those that are no futures are asked again and again."""
    if not running:
        return
    if all(isinstance(future, Future) for future in running):
        wait(running, timeout=seconds, return_when=FIRST_COMPLETED)
        return
    deadline = time.monotonic() + seconds
    while not any(future.done() for future in running) and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(0.05, left))
