"""Charts and error bars read along a simulation, and what happens on an alarm."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io import write

from mlipjax.files import replace_on_success
from mlipjax.monitoring import FRAME_INDICES, Monitor, MonitorAlarm, Watch, load_monitor
from mlipjax.monitoring.judgement import judge
from mlipjax.potential import Model
from mlipjax.system import System
from mlipjax.uncertainty import Computed, Spread, force_limit, largest_std, spreads_of
from mlipjax.verbs.error_bars import Uncertainty, columns_of, open_uncertainty
from mlipjax.verbs.inputs import ModelLike, NativeModel

if TYPE_CHECKING:
    from mlipjax.md import ChunkInfo, SimState
    from mlipjax.md.driver import OnChunk


@dataclasses.dataclass(frozen=True)
class Watching:
    """Options of watching a simulation; words as in ``verbs.simulate``."""

    monitor: str | os.PathLike[str] | Monitor | None
    on_alarm: str
    alarm_index: str
    alarm_readings: int
    monitor_every: int

    def start(self, model: Model) -> Watch | None:
        """A monitor that reads along and stops the run if that was asked for; ``None`` without one.

        Raises:
            ValueError, FileNotFoundError: if the monitor cannot be read, or is of another model.
        """
        if self.on_alarm not in ("stop", "ignore"):
            raise ValueError(f'on_alarm must be "stop" or "ignore", found {self.on_alarm!r}.')
        if self.monitor is None:
            return None
        monitor = self.monitor if isinstance(self.monitor, Monitor) else load_monitor(self.monitor, model.params)
        return Watch(
            monitor,
            model._replace(potential=model.potential.replace(precision="highest")),  # that of the charts
            every=self.monitor_every,
            index=self.alarm_index,
            stop_after=self.stop_after,
        )

    @property
    def stop_after(self) -> int:
        """Readings in a row that end the run; 0 if none do."""
        return self.alarm_readings if self.on_alarm == "stop" else 0

    def read_bars(self, bars: FrameBars, like: System) -> SpreadWatch:
        """Error bars that are read along a simulation of a structure like this one."""
        return SpreadWatch(bars, like, every=self.monitor_every, stop_after=self.stop_after)


def watch_summary(watch: Watch) -> dict[str, Any]:
    """Summary of the charts since the run was taken up: readings, alarms and the largest index of each replica."""
    k = FRAME_INDICES.index(watch.index)
    alarms = np.array([alarm[:, k] for alarm in watch.alarm]).reshape(len(watch.steps), -1)
    values = np.array([frame[:, k] for frame in watch.frame]).reshape(len(watch.steps), -1)
    limit = float(watch.monitor.charts.frame_limits[k])
    calibration = watch.monitor.frame_calibration[watch.index]._replace(limit=limit)
    # readings of one replica after the other, each in the order of time
    replicas = np.repeat(np.arange(values.shape[1]), len(values)).tolist()
    verdict = judge(values.T.ravel(), replicas, calibration) if values.size else None
    return {
        "index": watch.index,
        "limit": limit,
        "level": watch.monitor.level,
        "in_control": None if verdict is None else verdict.in_control,
        "verdict": None if verdict is None else verdict.words,
        "n_readings": len(watch.steps),
        "n_alarms": alarms.sum(axis=0).tolist(),
        "largest": values.max(axis=0).tolist() if len(values) else [],
        "alarm_steps": [step for step, alarm in zip(watch.steps, alarms, strict=True) if alarm.any()],
    }


@dataclasses.dataclass(frozen=True)
class FrameBars:
    """Error bars of a model, for frames and alarms.

    Attributes:
        method: by which they are called.
        of: structures in, standard deviations out.
        limit: eV/Å, of an atom's force; ``None`` for no alarm.
    """

    method: str
    of: Callable[[Sequence[System]], list[Spread]]
    limit: float | None

    @classmethod
    def open(
        cls,
        model: ModelLike,
        opened: NativeModel,
        uncertainty: Uncertainty | None,
        limit: float | None,
        dtype: str,
    ) -> FrameBars | None:
        """Find them, by default with the limit of their calibration.

        Raises:
            ValueError, FileNotFoundError: if there are none, or a limit without them or that is none.
        """
        if uncertainty is None:
            if limit is not None:
                raise ValueError("largest_force_std is a limit of error bars; say which (uncertainty).")
            return None
        if limit is not None and not limit > 0.0:
            raise ValueError(f"largest_force_std must be positive, found {limit}.")
        estimator = open_uncertainty(model, opened, uncertainty)
        if limit is None and isinstance(uncertainty, str) and isinstance(model, (str, os.PathLike)):
            limit = force_limit(model, uncertainty)
        own, how = opened.first, Computed(dtype=dtype)
        method = uncertainty if isinstance(uncertainty, str) else type(estimator).__name__
        return cls(method, lambda systems: spreads_of(estimator, own, systems, how=how), limit)

    def columns(self, systems: Sequence[System]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """Information and arrays that are written of frames."""
        return [columns_of(found) for found in self.of(systems)]


class SpreadWatch:
    """Reads error bars at ends of chunks of MD; give it to ``md.run`` as ``on_chunk``.

    Args:
        bars: that are read.
        like: the structure simulated.
        every: least number of MD steps between two readings.
        stop_after: readings of one replica in a row above the limit after which ``MonitorAlarm`` is raised; 0 never.

    Attributes:
        steps: MD steps at which they were read.
        largest: (R,) array for each, the largest standard deviation of an atom's force in eV/Å.
    """

    def __init__(self, bars: FrameBars, like: System, *, every: int, stop_after: int) -> None:
        self.bars, self.like, self.every, self.stop_after = bars, like, every, stop_after
        self.steps: list[int] = []
        self.largest: list[np.ndarray] = []

    def __call__(self, state: SimState, info: ChunkInfo) -> None:
        """Read them for all replicas, unless the last reading is too recent.

        Raises:
            MonitorAlarm: if a replica has been above the limit for long enough.
        """
        step = int(state.step)
        if self.steps and 0 <= step - self.steps[-1] < self.every:
            return
        d = state.dynamics
        systems = [
            dataclasses.replace(
                self.like, positions=np.asarray(position, np.float64), cell=np.asarray(cell, np.float64)
            )
            for position, cell in zip(d.position, d.cell, strict=True)
        ]
        self.steps.append(step)
        self.largest.append(np.array([largest_std(found) for found in self.bars.of(systems)]))
        limit = self.bars.limit
        if limit is None or not self.stop_after or len(self.steps) < self.stop_after:
            return
        # what is not a number is an alarm
        lasting = np.all([~(values <= limit) for values in self.largest[-self.stop_after :]], axis=0)
        if lasting.any():
            replica = int(np.argmax(lasting))
            raise MonitorAlarm(
                f"replica {replica} has been too uncertain for {self.stop_after} readings at step {step}: the "
                f"{self.bars.method} error bar of an atom's force is {self.largest[-1][replica]:.3g} eV/Å, the limit "
                f"{limit:.3g}. Label frames like its last one and fine-tune the model.",
                step,
                replica,
            )

    def summary(self) -> dict[str, Any]:
        """Summary since the run was taken up; JSON types."""
        values, limit = np.array(self.largest).reshape(len(self.steps), -1), self.bars.limit
        over = np.zeros_like(values, bool) if limit is None else ~(values <= limit)
        return {
            "method": self.bars.method,
            "limit_eV_per_A": limit,
            "n_readings": len(self.steps),
            "n_alarms": over.sum(axis=0).tolist(),
            "largest_eV_per_A": values.max(axis=0).tolist() if len(values) else [],
            "alarm_steps": [step for step, own in zip(self.steps, over, strict=True) if own.any()],
        }


def followed(watch: OnChunk, show: OnChunk, trajectory: Path | None, like: System) -> OnChunk:
    """Show progress, then read; on an alarm the frame is saved as ``<trajectory>_alarm.extxyz``."""

    def chunk(state: SimState, info: ChunkInfo) -> None:
        show(state, info)
        try:
            watch(state, info)
        except MonitorAlarm as alarm:
            if trajectory is None:
                raise
            path = trajectory.with_name(f"{trajectory.stem}_alarm.extxyz")
            positions, cell = (np.asarray(x[alarm.replica]) for x in (state.dynamics.position, state.dynamics.cell))
            atoms = dataclasses.replace(like, positions=positions, cell=cell).to_ase()
            atoms.info = {"step": alarm.step, "run": alarm.replica}
            with replace_on_success(path) as temporary:
                write(temporary, atoms, format="extxyz")
            raise MonitorAlarm(f"{alarm} Its frame is saved in {path}.", alarm.step, alarm.replica) from None

    return chunk
