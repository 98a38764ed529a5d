"""The loop on the host: chunks, repeats of chunks that went wrong, frames, checkpoints, and the gate."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import jax
import numpy as np

from mlipjax.data import TrajectoryWriter
from mlipjax.files import make_folder
from mlipjax.graph import VerletSpec, near_origin
from mlipjax.hosts import file_of_first, is_first
from mlipjax.locks import Lock
from mlipjax.md.advance import advance
from mlipjax.md.chunk import ChunkInfo
from mlipjax.md.ensembles import Ensemble
from mlipjax.md.frames import Columns, write_frames
from mlipjax.md.gate import Limits, default_limits
from mlipjax.md.job import Job
from mlipjax.md.observables import masses_of
from mlipjax.md.restart import Checkpoint, is_begun, load_checkpoint, save_checkpoint
from mlipjax.md.schedule import align_chunk, default_chunk_steps
from mlipjax.md.start import Start
from mlipjax.md.state import SimState, init
from mlipjax.md.statistics import Statistics
from mlipjax.md.stopped import stopped
from mlipjax.potential import Model
from mlipjax.system import System
from mlipjax.typing import Key, Params

OnChunk = Callable[[SimState, ChunkInfo], None]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """End of a run.

    Attributes:
        state: at the last step.
        statistics: sums over all steps, those before a restart included.
        n_frames: frames in the trajectory.
        n_repeats: chunks of this call that were repeated with larger tables or fewer steps.
        resumed_from: step at which this call took up the run; 0 for a new one.
    """

    state: SimState
    statistics: Statistics
    n_frames: int
    n_repeats: int
    resumed_from: int


def run(
    model: Model,
    start: Start,
    ensemble: Ensemble,
    n_steps: int,
    *,
    key: Key,
    n_replicas: int = 1,
    trajectory: str | os.PathLike[str] | None = None,
    frame_every: int = 100,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 30.0,
    limits: Limits | None = None,
    chunk_steps: int | None = None,
    spec: VerletSpec | None = None,
    head: int = 0,
    columns: Columns | None = None,
    on_chunk: OnChunk | None = None,
) -> RunResult:
    """Simulate up to step ``n_steps``, continuing from a checkpoint if there is one.

    A chunk whose tables overflowed or whose atoms moved too far is repeated from its start state, with larger tables
    or fewer steps. Stopping after n steps and calling again for 2 n gives the same bits as one call for 2 n (CPU,
    same dtype). Killed at any moment, the run continues from its last checkpoint; frames after it are
    written again. Of several processes the first writes.

    Args:
        model: what to simulate with; the dtype of its parameters is that of the simulation.
        start: structure, what may move, and momenta if they are given: ``Start(system)`` or ``Start.from_ase(atoms)``.
        ensemble: see ``make_ensemble``.
        n_steps: number of steps since the start.
        key: source of velocities and noise.
        n_replicas: number of replicas, each with velocities and noise of its own.
        trajectory: extended xyz file to append frames to, those of all replicas in turn; information ``run`` is the
            replica, ``step`` and ``time_fs`` when. The start is not written.
        frame_every: steps between frames.
        checkpoint: file that holds where the run stands.
        checkpoint_seconds: time between two checkpoints; one more is written at the end.
        limits: when to stop; by default ``default_limits`` around the ensemble's temperature.
        chunk_steps: steps between searches for neighbours; by default ``default_chunk_steps``.
        spec: sizes of the tables to begin with; by default those of the start.
        head: index of the energy head.
        columns: what else is written of every frame, a function of structures.
        on_chunk: called after every chunk with state and ``ChunkInfo``; must not change them.

    Raises:
        ValueError: for a system that cannot be simulated, or a checkpoint of other settings.
        InUseError: if another process writes the same files.
        SimulationStopped: if a replica broke the limits; its frame is saved next to the trajectory.
    """
    if n_steps < 1 or frame_every < 1 or n_replicas < 1:
        raise ValueError(f"found {n_steps=}, {frame_every=}, {n_replicas=}; all must be 1 or more.")
    if not is_first():
        trajectory = checkpoint = None
    system, kelvin = start.system, float(ensemble.temperature_K)
    spec = spec or VerletSpec.for_systems([system], model.potential.cutoff)
    job = Job(
        model=model,
        start=start,
        near=near_origin(system),
        ensemble=ensemble,
        limits=limits or default_limits(kelvin, system.n_atoms, freedom=start.freedom),
        key=key,
        n_replicas=n_replicas,
        head=head,
        spec=spec,
        chunk_steps=align_chunk(chunk_steps or _chunk_steps(system, ensemble, spec), frame_every),
        n_steps=n_steps,
        frame_every=frame_every,
        trajectory=None if trajectory is None else Path(trajectory),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        columns=columns,
    )
    with ExitStack() as alone:
        for path in (job.trajectory, job.checkpoint):
            if path is not None:
                make_folder(path.parent)
                alone.enter_context(Lock(path))
        return _loop(job, _begin(job), checkpoint_seconds, on_chunk)


def _begin(job: Job) -> Checkpoint:
    """Return where the run stands: as the checkpoint says, or at its start."""

    def begin(params: Params, key: Key) -> SimState:
        model, start = job.model._replace(params=params), dataclasses.replace(job.start, system=job.near.system)
        return init(model, job.spec, start, job.ensemble, key, job.n_replicas, head=job.head)

    # a run that stopped in its first piece has nothing to continue from, and must not keep other settings out
    saved = job.checkpoint
    begun = saved is not None and saved.exists() and (_has_frames(job) or is_begun(saved))
    with file_of_first(saved if begun else None) as found:
        if found is not None:
            return load_checkpoint(found, jax.eval_shape(begin, job.model.params, job.key), job.settings())
    if _has_frames(job):
        raise ValueError(
            f"{job.trajectory} exists, without a checkpoint to continue from; remove it or choose another."
        )
    state = begin(job.model.params, job.key)
    now = Checkpoint(state, job.spec, job.chunk_steps, 0, 0, Statistics.empty(job.n_replicas))
    _save(job, now, None)
    return now


def _loop(job: Job, now: Checkpoint, checkpoint_seconds: float, on_chunk: OnChunk | None) -> RunResult:
    resumed_from = int(now.state.step)
    n_repeats = 0
    saved = time.monotonic()
    writer = None if job.trajectory is None else TrajectoryWriter(job.trajectory, keep=now.n_frames)
    with writer or nullcontext():
        while int(now.state.step) < job.n_steps:
            step = int(now.state.step)
            now, info, repeats = advance(job, now)
            n_repeats += repeats
            _raise_if_stopped(job, now.state, info, step)
            if writer is not None:
                now = dataclasses.replace(now, n_frames=_record(job, writer, info, step, now.state))
            if on_chunk is not None:
                on_chunk(now.state, info)
            if time.monotonic() - saved > checkpoint_seconds:
                _save(job, now, writer)
                saved = time.monotonic()
        _save(job, now, writer)
    return RunResult(now.state, now.statistics, now.n_frames, n_repeats, resumed_from)


def _record(job: Job, writer: TrajectoryWriter, info: ChunkInfo, before: int, state: SimState) -> int:
    """Append the frames of a piece from step ``before`` to ``state``; return how many the file holds then."""
    after = int(state.step)
    n_frames = info.frames.energy.shape[1]
    steps = [after - (n_frames - 1 - f) * (after - before) // n_frames for f in range(n_frames)]
    if after % job.frame_every == 0:
        dt = float(job.ensemble.timestep_fs)
        stamps = [{"step": step, "time_fs": step * dt} for step in steps]
        like = job.start.system
        reference = job.model.potential.reference_energy(np.asarray(like.atomic_numbers), job.head)
        write_frames(writer, info.frames, like, reference, stamps, job.way(state), job.columns)
    return writer.n_frames


def _raise_if_stopped(job: Job, state: SimState, info: ChunkInfo, step: int) -> None:
    bad = np.flatnonzero(~info.good)
    if len(bad):
        first = bad[np.argmin(info.n_done[bad])]
        raise stopped(job, state, int(first), step + int(info.n_done[first]))


def _save(job: Job, now: Checkpoint, writer: TrajectoryWriter | None) -> None:
    if job.checkpoint is not None:
        if writer is not None:
            writer.sync()  # frames the checkpoint counts must be on the disk before it is
        save_checkpoint(job.checkpoint, now, job.settings())


def _has_frames(job: Job) -> bool:
    return job.trajectory is not None and job.trajectory.exists() and job.trajectory.stat().st_size > 0


def _chunk_steps(system: System, ensemble: Ensemble, spec: VerletSpec) -> int:
    elements, skin = np.asarray(system.atomic_numbers), spec.skin
    kelvin, dt = float(ensemble.temperature_K), float(ensemble.timestep_fs)
    return default_chunk_steps(elements, kelvin, dt, skin, masses_of(system))
