"""Labels as jobs of a cluster, by submitit: Slurm, or processes of this machine that stand for it.

A job outlives the process that submitted it. Which label it is to make is written down beside it, so that a run that
was killed waits for its jobs instead of submitting them again. Whether a job still runs is asked of ``squeue``, which
every Slurm has (``sacct``, which submitit asks, needs a database).
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import submitit  # pyright: ignore[reportMissingImports]

from mlipjax.files import make_folder, write_atomic
from mlipjax.oracles.workers import JobTakenError

MINUTES = 120
"""Time limit of a job, where none is asked for."""

_GRACE = 10.0
"""Seconds in which the result of a job that has ended may still appear in the folder."""

_ASK_EVERY = 5.0
"""Seconds between two questions to the queue."""

_ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"} | {
    *("RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED", "SPECIAL_EXIT", "RESV_DEL_HOLD", "UNKNOWN"),
}
_TAKEN = {"PREEMPTED", "NODE_FAIL", "CANCELLED", "BOOT_FAIL", "REVOKED", "DEADLINE", "GONE"}
"""States of Slurm (squeue's manual): of jobs that may still give a result, and of those that something else ended."""


class JobDiedError(RuntimeError):
    """A job that ended without a result."""


class ClusterJobs:
    """Submits labels as jobs.

    Args:
        folder: of jobs and their results, made if absent; all nodes must see it.
        settings: of ``executors.make_executor``.

    Raises:
        ValueError: there is no Slurm here, or it knows no such setting.
        OSError: the folder cannot be made.

    Attributes:
        local: jobs are processes of this machine.
        label_seconds: time of a job that a label may take.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        logging.getLogger("submitit").setLevel(logging.ERROR)
        cluster, minutes = settings.get("cluster", "slurm"), settings.get("minutes", MINUTES)
        if cluster not in ("slurm", "local"):
            raise ValueError(f"cluster must be slurm or local, found {cluster!r}.")
        self.local = cluster == "local"
        self.label_seconds = 60.0 * minutes - min(max(20.0, 6.0 * minutes), 300.0)
        make_folder(folder / "labels")
        self._folder, self._alive = folder.absolute(), _process_runs if self.local else _Queue().alive
        try:
            if self.local:
                self._executor: Any = submitit.LocalExecutor(self._folder)
                self._executor.update_parameters(timeout_min=minutes, signal_delay_s=5)
            else:
                self._executor = submitit.SlurmExecutor(self._folder)
                names = ("partition", "account", "qos", "constraint", "gres")
                given: dict[str, Any] = {name: settings[name] for name in names if name in settings}
                if "memory" in settings:
                    given["mem"] = f"{int(1024 * settings['memory'])}M"
                self._executor.update_parameters(
                    job_name="mlipjax", time=minutes, signal_delay_s=10, cpus_per_task=settings.get("cpus", 1), **given
                )
        except RuntimeError as error:
            raise ValueError(f"submitit: {error} Choose cluster=local for this machine alone.") from error

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> ClusterJob:
        """Submit a call as a job."""
        return ClusterJob(self._executor.submit(function, *arguments), self._alive)

    def find(self, key: str) -> ClusterJob | None:
        """The job that an earlier process submitted for a label, if it still runs or has a result."""
        try:
            number = self._note(key).read_text(encoding="utf-8").strip()
        except OSError:
            return None
        job = ClusterJob(self._executor.job_class(self._folder, number), self._alive)
        return job if job.has_result or self._alive(number) is None else None

    def keep(self, key: str, job: ClusterJob) -> None:
        """Write down which label a job is to make."""
        write_atomic(self._note(key), job.number)

    def forget(self, key: str) -> None:
        """A job's outcome is known, and kept elsewhere."""
        self._note(key).unlink(missing_ok=True)

    def _note(self, key: str) -> Path:
        return self._folder / "labels" / key


class ClusterJob:
    """A job, as a dispatcher wants it."""

    def __init__(self, job: Any, alive: Callable[[str], str | None]) -> None:
        self._job, self._alive = job, alive
        self._ended: tuple[float, str] | None = None

    @property
    def number(self) -> str:
        """Of the job in the queue."""
        return self._job.job_id

    @property
    def has_result(self) -> bool:
        """Tell whether what it returned or raised is there."""
        return self._job.paths.result_pickle.exists()

    def done(self) -> bool:
        """Tell whether it has a result, or has ended and none came."""
        if self.has_result:
            return True
        state = self._alive(self.number)
        if state is None:
            self._ended = None
        elif self._ended is None:
            self._ended = time.monotonic(), state
        return self._ended is not None and time.monotonic() - self._ended[0] > _GRACE

    def result(self) -> Any:
        """Return value of the job.

        Raises:
            JobTakenError: the cluster ended it.
            JobDiedError: it ended without a result.
            submitit.core.utils.FailedJobError: what it called raised an error.
        """
        if self.has_result:
            return self._job.result()
        state = "GONE" if self._ended is None else self._ended[1]
        kind = JobTakenError if state in _TAKEN else JobDiedError
        raise kind(f"job {self.number} ended in state {state} without a result; see {self._job.paths.stderr}")

    def exception(self) -> BaseException | None:
        """Exception that ``result`` raises."""
        try:
            self.result()
        except Exception as error:
            return error
        return None

    def cancel(self) -> None:
        """Take it out of the queue."""
        self._job.cancel(check=False)


def _process_runs(number: str) -> str | None:
    """``None`` if the process of a job runs (and is none that took its number over), else its state."""
    with contextlib.suppress(OSError):
        os.waitpid(int(number), os.WNOHANG)  # a child that has ended would stay a zombie
    try:
        os.kill(int(number), 0)
    except OSError:
        return "FAILED"
    command = Path(f"/proc/{number}/cmdline")
    return None if not command.exists() or b"submitit" in command.read_bytes() else "FAILED"


class _Queue:
    """The user's jobs in Slurm, asked for all of them at once."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._states: dict[str, str] = {}

    def alive(self, number: str) -> str | None:
        """``None`` if a job may still give a result, else its state."""
        if time.monotonic() - self._asked > _ASK_EVERY:
            self._ask()
        state = self._states.get(number, "GONE" if self._states else "UNKNOWN")
        return None if state in _ALIVE else state

    def _ask(self) -> None:
        command = ["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%A|%T"]
        try:
            found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return  # a busy queue says nothing; it is asked again
        finally:
            self._asked = time.monotonic()
        self._states = dict(line.split("|", 1) for line in found.split() if "|" in line) | {"": ""}
