"""Watching molecular dynamics: read the charts every so many steps, and say when to stop."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from mlipjax.graph import DenseTable, GraphBatch, graph_from_table
from mlipjax.monitoring.charts import FRAME_INDICES, MonitorState
from mlipjax.monitoring.features import Layers, graph_features
from mlipjax.monitoring.fit import Monitor
from mlipjax.monitoring.readings import Readings, read
from mlipjax.potential import Model, Potential
from mlipjax.typing import Array, Params


class MonitorAlarm(RuntimeError):
    """A simulation was stopped because the model left the region of its reference frames.

    Attributes:
        step: at which.
        replica: which.
    """

    def __init__(self, message: str, step: int, replica: int):
        super().__init__(message)
        self.step, self.replica = step, replica


def read_graph(
    potential: Potential, params: Params, charts: MonitorState, rows: Array, graph: GraphBatch, layers: Layers = "last"
) -> Readings:
    """Features by one forward pass, and the charts read for them: pure, for use inside compiled loops.

    Args:
        potential: what is watched.
        params: its parameters.
        charts: fitted to its features.
        rows: (N,) element row of each atom in the charts (``Monitor.rows``).
        graph: structures.
        layers: which features are charted.
    """
    return read(charts, graph_features(potential, params, graph, layers), rows, graph)


class Watch:
    """Reads the charts at ends of chunks of MD; give it to ``md.run`` as ``on_chunk``.

    A reading costs one forward pass of the network on the table with its skin: about two thirds of an MD step.

    Args:
        monitor: fitted to features of the model that drives the simulation.
        model: that one.
        every: least number of MD steps between two readings.
        index: the number of a frame that decides, one of ``FRAME_INDICES``.
        stop_after: alarms of one replica in a row after which ``MonitorAlarm`` is raised; 0 for never.

    Attributes:
        steps: MD steps at which the charts were read.
        frame: (R, 4) array of ``FRAME_INDICES`` for each.
        alarm: (R, 4) array for each.
    """

    def __init__(
        self,
        monitor: Monitor,
        model: Model,
        *,
        every: int = 50,
        index: str = "combined",
        stop_after: int = 0,
    ):
        if index not in FRAME_INDICES:
            raise ValueError(f"found index {index!r}; choose one of {', '.join(FRAME_INDICES)}.")
        self.monitor, self.model = monitor, model
        self.every, self.index, self.stop_after = every, index, stop_after
        self.steps: list[int] = []
        self.frame: list[np.ndarray] = []
        self.alarm: list[np.ndarray] = []
        self._rows: Any = None

    def __call__(self, state: Any, info: Any = None) -> None:
        """Read the charts for the replicas of an ``md.SimState``, unless the last reading is too recent.

        Raises:
            ValueError: naming an element without a chart.
            MonitorAlarm: if a replica has been out of control for long enough.
        """
        if self.steps and 0 <= int(state.step) - self.steps[-1] < self.every:
            return
        if self._rows is None:
            self.monitor.check_elements(state.atomic_numbers)
            self._rows = self.monitor.rows(state.atomic_numbers)
        d = state.dynamics
        replicas = state.table, d.position, d.cell
        frame, alarm = jax.device_get(
            _read_replicas(
                self.model.potential,
                self.monitor.layers,
                self.model.params,
                self.monitor.charts,
                (self._rows, state.atomic_numbers, state.head),
                replicas,
            )
        )
        self.steps.append(int(state.step))
        self.frame.append(frame)
        self.alarm.append(alarm)
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        k = FRAME_INDICES.index(self.index)
        if not self.stop_after or len(self.alarm) < self.stop_after:
            return
        lasting = np.all([alarm[:, k] for alarm in self.alarm[-self.stop_after :]], axis=0)
        if lasting.any():
            replica = int(np.argmax(lasting))
            value, limit = self.frame[-1][replica, k], self.monitor.charts.frame_limits[k]
            raise MonitorAlarm(
                f"replica {replica} has been out of control for {self.stop_after} readings at step {self.steps[-1]}: "
                f"its {self.index} index is {value:.3g}, the limit {limit:.3g}. Label frames like its last one and "
                "fine-tune the model, or fit the monitor to a reference that holds such frames.",
                self.steps[-1],
                replica,
            )


@partial(jax.jit, static_argnums=(0, 1))
def _read_replicas(
    potential: Potential,
    layers: Layers,
    params: Params,
    charts: MonitorState,
    structure: tuple[Array, Array, Array],
    replicas: tuple[DenseTable, Array, Array],
) -> tuple[Array, Array]:
    """Indices of frames and their alarms (R, 4), of replicas (table, positions, cell) with the same atoms.

    Args:
        potential, layers, params, charts: model and monitor.
        structure: rows of the charts (N,), atomic numbers (N,) and head () that all replicas share.
        replicas: tables, positions (R, N, 3) in Å and cells (R, 3, 3) in Å.
    """
    rows, numbers, head = structure

    def one(replica: tuple[DenseTable, Array, Array]) -> tuple[Array, Array]:
        table, position, cell = replica
        graph = graph_from_table(numbers, head, table, position, cell)
        readings = read_graph(potential, params, charts, rows, graph, layers)
        return readings.frame[0], readings.alarm[0]

    return jax.lax.map(one, replicas)
