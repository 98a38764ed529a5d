"""Fitting a monitor to reference frames, and reading it for others, on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import COMPONENTS
from mlipjax.elements import listed
from mlipjax.graph import GraphBatch
from mlipjax.monitoring.charts import FRAME_INDICES, MonitorState, atom_indices, fit_charts
from mlipjax.monitoring.correlation import by_run, statistical_inefficiency
from mlipjax.monitoring.features import FrameFeatures, Layers
from mlipjax.monitoring.limits import Conformal, conformal_limit, thinned_limit
from mlipjax.monitoring.readings import Readings, contributions, read

MIN_CALIBRATION = 10
"""Fewer calibration frames say nothing about rare ones."""


@dataclasses.dataclass(frozen=True)
class Monitor:
    """Fitted charts of the elements of a reference set, with limits.

    Attributes:
        charts: the arrays: what rides in a compiled loop.
        species: (S,) atomic numbers, ascending: the rows of the charts.
        layers: which features are charted.
        level: probability of a false alarm that was asked for.
        frame_calibration: how the limit of each frame index came about, by its name.
        n_fit, n_calibration: frames the charts were fitted to, and frames the limits come from.
        model: fingerprint of the parameters whose features were charted.
    """

    charts: MonitorState
    species: tuple[int, ...]
    layers: Layers
    level: float
    frame_calibration: dict[str, Conformal]
    n_fit: int
    n_calibration: int
    model: str

    def rows(self, atomic_numbers: Any) -> Any:
        """Row of each atom's element in the charts, -1 where there is none (and for padding); jittable."""
        table = np.full(120, -1, np.int32)
        table[list(self.species)] = np.arange(len(self.species))
        return table[atomic_numbers] if isinstance(atomic_numbers, np.ndarray) else jnp.asarray(table)[atomic_numbers]

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raise ``ValueError`` naming the elements that no reference frame holds."""
        unknown = sorted({int(z) for z in np.unique(np.asarray(atomic_numbers))} - set(self.species))
        if unknown:
            raise ValueError(
                f"no reference frame holds {listed(unknown)}, there are charts for {listed(self.species)}: "
                "add reference frames with it, or watch a structure without it."
            )


@dataclasses.dataclass(frozen=True)
class FrameReadings:
    """Readings of n frames by a monitor, on the host, float64.

    Attributes:
        frame: (n, 4) ``charts.FRAME_INDICES``.
        alarm: (n, 4) whether each exceeds its limit.
        element_q, element_t2, element_worst: (n, S) as in ``readings.Readings``.
        worst_atom: (n,) atom with the largest combined index.
        worst_share: (n,) its share in the combined index of its frame.
    """

    frame: np.ndarray
    alarm: np.ndarray
    element_q: np.ndarray
    element_t2: np.ndarray
    element_worst: np.ndarray
    worst_atom: np.ndarray
    worst_share: np.ndarray


def split_reference(runs: Sequence[object]) -> tuple[np.ndarray, np.ndarray]:
    """Divide frames into those that charts are fitted to and those that limits are calibrated on.

    Half of each: whole runs where there are several, so that calibration frames are as foreign to the charts as those
    of a new run; the beginning and the end of it where there is one.

    Args:
        runs: (n,) run of each frame, frames of a run in the order of time.

    Returns:
        indices of both parts.
    """
    index = by_run(np.arange(len(runs)), runs)
    if len(index) > 1:
        n_fit = min(max(round(0.5 * len(index)), 1), len(index) - 1)
        return np.sort(np.concatenate(index[:n_fit])), np.sort(np.concatenate(index[n_fit:]))
    n_fit = round(0.5 * len(index[0]))
    return index[0][:n_fit], index[0][n_fit:]


def fit_monitor(
    reference: FrameFeatures,
    runs: Sequence[object],
    *,
    level: float = 0.01,
    n_components: int = COMPONENTS,
    layers: Layers = "last",
    model: str = "",
) -> Monitor:
    """Fit charts to one part of the reference frames and calibrate all limits on the other.

    Limits of atoms (which only set the scale of the combined index) and of frames are split-conformal, thinned to
    independent frames.

    Args:
        reference: features of frames in control.
        runs: (n,) run of each frame, frames of a run in the order of time.
        level: probability of a false alarm.
        n_components: principal components per element.
        layers: which features these are.
        model: fingerprint of the model they are of.

    Raises:
        ValueError: for too few frames, more components than features, or an element in one of the parts only.
    """
    fit, calibration = split_reference(runs)
    if len(calibration) < MIN_CALIBRATION or len(fit) < MIN_CALIBRATION:
        raise ValueError(
            f"{reference.n_frames} reference frames are too few: {MIN_CALIBRATION} are needed to fit the charts and "
            f"{MIN_CALIBRATION} others to calibrate them."
        )
    features, numbers, frame = reference.atoms()
    in_fit = np.isin(frame, fit)
    species = tuple(int(z) for z in np.unique(numbers[in_fit]))
    if foreign := sorted(set(species) ^ set(np.unique(numbers[np.isin(frame, calibration)]).tolist())):
        raise ValueError(
            f"only some of the reference runs hold {listed(foreign)}: the charts are fitted to the first half of them "
            "and calibrated on the second, and both need it. Use runs of the same composition, or one monitor for each."
        )
    rows = np.searchsorted(species, numbers)
    charts = fit_all(features, rows, in_fit.astype(features.dtype), len(species), n_components)
    atoms = jax.device_get(find_indices(charts, features, rows))
    thinned = np.isin(frame, independent_frames(atoms.q, atoms.t2, frame, runs, calibration))
    charts = charts.replace(  # pyright: ignore[reportAttributeAccessIssue]
        q_limit=atom_limits(atoms.q, rows, thinned, len(species), level),
        t2_limit=atom_limits(atoms.t2, rows, thinned, len(species), level),
    )
    monitor = Monitor(charts, species, layers, level, {}, len(fit), len(calibration), model)
    scores = read_frames(monitor, reference).frame
    series = by_run(scores[calibration], [runs[i] for i in calibration])
    found = {name: thinned_limit([run[:, k] for run in series], level) for k, name in enumerate(FRAME_INDICES)}
    limits = np.asarray([found[name].limit for name in FRAME_INDICES], charts.mean.dtype)
    charts = charts.replace(frame_limits=_above_zero(limits))  # pyright: ignore[reportAttributeAccessIssue]
    return dataclasses.replace(monitor, charts=jax.tree.map(np.asarray, charts), frame_calibration=found)


def read_frames(monitor: Monitor, frames: FrameFeatures) -> FrameReadings:
    """Read the charts for frames, in their order.

    Raises:
        ValueError: naming an element without a chart.
    """
    n_species = len(monitor.species)
    widths = (len(FRAME_INDICES), len(FRAME_INDICES), n_species, n_species, n_species)
    tables = [np.full((frames.n_frames, width), np.nan) for width in widths]
    worst, share = np.zeros(frames.n_frames, int), np.zeros(frames.n_frames)
    for batch in frames.batches:
        numbers = np.asarray(batch.graph.atomic_numbers)
        monitor.check_elements(numbers[np.asarray(batch.graph.atom_mask)])
        readings, shares = jax.device_get(_read(monitor.charts, batch.features, monitor.rows(numbers), batch.graph))
        n = len(batch.indices)
        parts = (readings.frame, readings.alarm, readings.element_q, readings.element_t2, readings.element_worst)
        for table, part in zip(tables, parts, strict=True):
            table[list(batch.indices)] = part[:n]
        for row, index in enumerate(batch.indices):
            own = np.flatnonzero(batch.graph.atom_mask & (np.asarray(batch.graph.graph_index) == row))
            worst[index] = np.argmax(readings.combined[own])
            share[index] = shares[own[worst[index]]]
    frame, alarm, *elements = tables
    return FrameReadings(frame, alarm.astype(bool), elements[0], elements[1], elements[2], worst, share)


fit_all = jax.jit(fit_charts, static_argnums=(3, 4))
find_indices = jax.jit(atom_indices)


@jax.jit
def _read(charts: MonitorState, features: Any, species: Any, graph: GraphBatch) -> tuple[Readings, Any]:
    readings = read(charts, features, species, graph)
    return readings, contributions(readings, graph)


def independent_frames(
    q: np.ndarray, t2: np.ndarray, frame: np.ndarray, runs: Sequence[object], calibration: np.ndarray
) -> np.ndarray:
    """Calibration frames that are about independent: every g-th of each run, by the slower of mean Q and mean T²."""
    count = np.bincount(frame)
    chosen = [runs[i] for i in calibration]
    means = [(np.bincount(frame, index) / count)[calibration] for index in (q, t2)]
    g = max(statistical_inefficiency(by_run(mean, chosen)) for mean in means)
    groups = by_run(calibration, chosen)
    return np.concatenate([group[:: int(np.ceil(g))] for group in groups])


def atom_limits(index: Any, rows: np.ndarray, chosen: np.ndarray, n_species: int, level: float) -> np.ndarray:
    """Conformal limit per element over the atoms of independent frames; infinite where there are none."""
    limits = np.full(n_species, np.inf)
    for row in range(n_species):
        values = index[chosen & (rows == row)]
        if len(values):
            limits[row] = conformal_limit(values, level).limit
    return _above_zero(limits.astype(index.dtype))


def _above_zero(limits: np.ndarray) -> np.ndarray:
    """Limits that one can divide by, as that of an index that never varies."""
    return np.maximum(limits, np.finfo(limits.dtype).tiny)
