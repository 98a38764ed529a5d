"""Charts read along a simulation, and what happens on an alarm."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.io import write

from mlipjax.files import replace_on_success
from mlipjax.monitoring import FRAME_INDICES, Monitor, MonitorAlarm, Watch, load_monitor
from mlipjax.monitoring.judgement import judge
from mlipjax.potential import Model
from mlipjax.system import System

if TYPE_CHECKING:
    from mlipjax.md import ChunkInfo, SimState
    from mlipjax.md.driver import OnChunk


@dataclasses.dataclass(frozen=True)
class Watching:
    """Options of watching a simulation; words as in ``verbs.simulate``."""

    monitor: str | os.PathLike[str] | Monitor
    on_alarm: str
    alarm_index: str
    alarm_readings: int
    monitor_every: int

    def start(self, model: Model) -> Watch:
        """A monitor that reads along and stops the run if that was asked for.

        Raises:
            ValueError, FileNotFoundError: if the monitor cannot be read, or is of another model.
        """
        if self.on_alarm not in ("stop", "ignore"):
            raise ValueError(f'on_alarm must be "stop" or "ignore", found {self.on_alarm!r}.')
        monitor = self.monitor if isinstance(self.monitor, Monitor) else load_monitor(self.monitor, model.params)
        return Watch(
            monitor,
            model._replace(potential=model.potential.replace(precision="highest")),  # that of the charts
            every=self.monitor_every,
            index=self.alarm_index,
            stop_after=self.alarm_readings if self.on_alarm == "stop" else 0,
        )


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


def followed(watch: Watch, show: OnChunk, trajectory: Path | None, like: System) -> OnChunk:
    """Show progress, then read the charts; on an alarm the frame is saved as ``<trajectory>_alarm.extxyz``."""

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
