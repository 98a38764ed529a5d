"""Judgement by charts of a model's own features: does it know structures like these?"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.data import chemical_symbols

from mlipjax import runtime
from mlipjax.data import Dataset, runs_of
from mlipjax.defaults import COMPONENTS
from mlipjax.elements import listed
from mlipjax.files import plain
from mlipjax.locks import folder_alone
from mlipjax.monitoring import (
    FRAME_INDICES,
    FrameReadings,
    Monitor,
    by_run,
    cross_fit_monitor,
    fit_monitor,
    frame_features,
    load_monitor,
    params_fingerprint,
    read_frames,
    save_monitor,
    statistical_inefficiency,
)
from mlipjax.monitoring.features import Layers
from mlipjax.monitoring.judgement import Judgement, judge
from mlipjax.monitoring.limits import box_q_limit, jackson_mudholkar, t2_limit_beta, t2_limit_f
from mlipjax.verbs.inputs import ModelLike, Structures, in_dtype, name_of, open_for_features, paths_in
from mlipjax.verbs.read import read_structures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def monitor(
    model: ModelLike,
    data: Structures,
    *,
    reference: Structures | Monitor,
    level: float = 0.01,
    components: int = COMPONENTS,
    layers: Layers = "last",
    calibration: str = "split",
    index: str = "combined",
    dtype: str = "float32",
    batch_size: int = 16,
    out: str | os.PathLike[str] | None = None,
) -> Monitored:
    """Fit control charts to reference frames, and say which frames of other data are out of control.

    Frames that carry "run" (as those of a simulation) or another group in their information are taken as trajectories.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        data: frames to judge: ``Atoms``, a list of them, a data set, or files.
        reference: frames the model can be trusted on, best several runs of equilibrium MD, likewise; or charts that
            are fitted already: a monitor, or its file monitor.npz.
        level: probability of a false alarm, 0.01 for one frame in a hundred.
        components: principal components per element.
        layers: features of the "last" layer, which the energy is read from, or of "all" layers.
        calibration: "split": charts from the first half of the reference runs, limits from the second, with the level
            guaranteed; "cross": every run is judged by charts of the others, which scatters less where there are few
            runs, for a weaker guarantee (twice the level).
        index: the number of a frame that decides: "q", "t2", "combined" or "worst".
        dtype: precision of the network, "float32" or "float64".
        batch_size: structures computed together.
        out: also save the fitted monitor and a figure in this folder.

    Returns:
        The verdict, the readings, and the charts as ``monitor``, which ``mlipjax.simulate`` takes.

    Raises:
        ValueError, FileNotFoundError: if model, reference or data cannot be used.
        InUseError: if another process works in the folder to write.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> water = [molecule("H2O") for _ in range(60)]
        >>> for number, atoms in enumerate(water):
        ...     atoms.rattle(0.05 if number < 58 else 0.5, seed=number)
        >>> found = mlipjax.monitor("universal", water[50:], reference=water[:50], level=0.05, components=1)
        >>> found.in_control, found.verdict.worst >= 8
        (False, True)
    """
    if index not in FRAME_INDICES:
        raise ValueError(f"found index={index!r}; choose one of {', '.join(FRAME_INDICES)}.")
    if calibration not in ("split", "cross"):
        raise ValueError(f'calibration must be "split" or "cross", found {calibration!r}.')
    with folder_alone(None if out is None else Path(out)), in_dtype(dtype):
        dataset = read_structures(data)
        opened = open_for_features(model)
        dataset.check_elements(opened.potential.check_elements)
        options: Any = {"dtype": dtype, "batch_size": batch_size}
        charts = _charts(reference, opened.params)
        if charts is None:
            home = read_structures(reference)  # pyright: ignore[reportArgumentType]
            if missing := sorted(set(dataset.elements) - set(home.elements)):
                names = listed(missing)
                raise ValueError(f"{name_of(data)} holds {names}, which no frame of {name_of(reference)} holds.")
            home.check_elements(opened.potential.check_elements)
            fit = cross_fit_monitor if calibration == "cross" else fit_monitor
            charts = fit(
                frame_features(opened, home.systems, layers=layers, **options),
                runs_of(home),
                level=level,
                n_components=components,
                layers=layers,
                model=params_fingerprint(opened.params),
            )
        charts.check_elements(dataset.elements)
        features = frame_features(opened, dataset.systems, layers=charts.layers, **options)
        found = Monitored.judged(charts, read_frames(charts, features), index, dataset)
        if out is not None:
            found.save(out)
    return found


def _charts(reference: Any, params: Any) -> Monitor | None:
    """Charts that are fitted already; ``None`` for frames to fit them to."""
    if isinstance(reference, Monitor):
        return reference
    files = paths_in(reference)
    if len(files) == 1 and Path(files[0]).suffix == ".npz":
        return load_monitor(files[0], params)
    return None


@dataclasses.dataclass(frozen=True)
class Monitored:
    """Frames read by the charts of a model.

    Attributes:
        monitor: the charts, to be read along a simulation too.
        readings: indices and alarms of every frame.
        verdict: on all frames by ``index``.
        index: the number of a frame that decides.
        dataset: the frames.
    """

    monitor: Monitor
    readings: FrameReadings
    verdict: Judgement
    index: str
    dataset: Dataset

    @classmethod
    def judged(cls, monitor: Monitor, readings: FrameReadings, index: str, dataset: Dataset) -> Monitored:
        """Judge frames by one index."""
        k = FRAME_INDICES.index(index)
        # the limit in the precision of the charts, which decides on alarms
        calibration = monitor.frame_calibration[index]._replace(limit=float(monitor.charts.frame_limits[k]))
        return cls(monitor, readings, judge(readings.frame[:, k], runs_of(dataset), calibration), index, dataset)

    @property
    def in_control(self) -> bool:
        """Tell whether nothing speaks against trusting the model on these frames."""
        return self.verdict.in_control

    @property
    def report(self) -> dict[str, Any]:
        """Everything that the charts say: limits, indices of all frames, alarms, elements, the worst atoms."""
        report = _summary(self.monitor, self.readings, self.dataset)
        told = {"index": self.index, "worst": _worst_of(report, self.verdict), "verdict": _verdict_of(self.verdict)}
        return report | told

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON types."""
        return plain(self.report)

    def figure(self) -> Figure:
        """Indices of all frames over their limits, by frame or by time."""
        from mlipjax.report.monitor import control_charts

        names = {"Q / limit": 0, "T² / limit": 1, "combined": 2, "worst atom": 3}
        times = [info.get("time_fs") for info in self.dataset.infos]
        known = all(isinstance(time, (int, float)) for time in times)
        return control_charts(
            {name: self.readings.frame[:, k] for name, k in names.items()},
            {name: float(self.monitor.charts.frame_limits[k]) for name, k in names.items()},
            runs=runs_of(self.dataset),
            x=[float(time) / 1000.0 for time in times if time is not None] if known else None,
            x_label="time (ps)" if known else "frame (number)",
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write monitor.npz, which can be given in place of a reference or to a simulation, and report.html.

        With it monitor.png, the charts, and furthest_out.png, the frames furthest out.
        """
        from mlipjax.report.monitor import write_monitor_report

        save_monitor(Path(folder) / "monitor.npz", self.monitor)
        frames = [system.to_ase() for system in self.dataset.systems]
        ratios = self.readings.frame[:, FRAME_INDICES.index(self.index)] / self._limit
        write_monitor_report(
            Path(folder),
            self.figure(),
            frames,
            list(zip(ratios.tolist(), self.readings.worst_atom.tolist(), strict=True)),
            verdict=self.verdict.words,
            alarm=not self.in_control,
            versions=runtime.versions(),
        )

    @property
    def _limit(self) -> float:
        return float(self.monitor.charts.frame_limits[FRAME_INDICES.index(self.index)])


def _summary(monitor: Monitor, readings: FrameReadings, dataset: Dataset) -> dict[str, Any]:
    """Indices, elements, alarms and the worst atom of every frame."""
    runs = runs_of(dataset)
    indices = {}
    for k, name in enumerate(FRAME_INDICES):
        series = by_run(readings.frame[:, k], runs)
        g = min(statistical_inefficiency(series), len(dataset)) if np.isfinite(readings.frame[:, k]).all() else None
        indices[name] = {
            "limit": monitor.frame_calibration[name].limit,
            "guaranteed_level": monitor.frame_calibration[name].guaranteed,
            "n_calibration": monitor.frame_calibration[name].n,
            "n_calibration_effective": monitor.frame_calibration[name].n_used,
            "calibration_inefficiency": monitor.frame_calibration[name].inefficiency,
            "mean": float(readings.frame[:, k].mean()),
            "max": float(readings.frame[:, k].max()),
            "n_alarms": int(readings.alarm[:, k].sum()),
            "alarm_fraction": float(readings.alarm[:, k].mean()),
            "n_effective": None if g is None else len(dataset) / g,
        }
    return {
        "level": monitor.level,
        "layers": monitor.layers,
        "n_components": int(monitor.charts.components.shape[1]),
        "n_fit": monitor.n_fit,
        "n_frames": len(dataset),
        "n_runs": len(set(runs)),
        "indices": indices,
        "per_element": {chemical_symbols[z]: _element(monitor, readings, row) for row, z in enumerate(monitor.species)},
        "frames": {name: readings.frame[:, k] for k, name in enumerate(FRAME_INDICES)},
        "alarms": {name: np.flatnonzero(readings.alarm[:, k]) for k, name in enumerate(FRAME_INDICES)},
        "worst_atom": readings.worst_atom,
        "worst_element": [
            chemical_symbols[int(system.atomic_numbers[atom])]
            for system, atom in zip(dataset.systems, readings.worst_atom, strict=True)
        ],
        "worst_atom_share": readings.worst_share,
    }


def _worst_of(report: dict[str, Any], verdict: Judgement) -> dict[str, Any]:
    """The frame furthest out, and the atom that does most of it."""
    frame = verdict.worst
    atom, element, share = (report[name][frame] for name in ("worst_atom", "worst_element", "worst_atom_share"))
    ratio = verdict.worst_ratio
    return {"frame": frame, "times_limit": ratio, "atom": int(atom), "element": element, "share": float(share)}


def _verdict_of(verdict: Judgement) -> dict[str, Any]:
    """The verdict in JSON types."""
    judged = ("in_control", "undecided", "words", "too_many", "too_far")
    numbers = ("p_count", "p_weight", "n_effective", "highest_level")
    return {name: getattr(verdict, name) for name in (*judged, *numbers)}


def _element(monitor: Monitor, readings: FrameReadings, row: int) -> dict[str, Any]:
    """Chart, limits and readings of one element."""
    charts = monitor.charts
    variances, moments = np.asarray(charts.eigenvalues[row], np.float64), charts.residual[row].tolist()
    n, rank, level = int(charts.count[row]), int(np.sum(variances > 0.0)), monitor.level
    total = float(variances.sum() + moments[0])
    values = {"q": readings.element_q[:, row], "t2": readings.element_t2[:, row]}
    seen = np.isfinite(values["q"])
    return {
        "n_atoms_fit": n,
        "rank": rank,
        "explained_variance": float(variances.sum()) / total if total > 0.0 else None,
        "q_limit": {
            "conformal": float(charts.q_limit[row]),
            "jackson_mudholkar": jackson_mudholkar(moments, level),
            "box": box_q_limit(moments, level),
        },
        "t2_limit": {
            "conformal": float(charts.t2_limit[row]),
            "f": t2_limit_f(n, rank, level),
            "beta": t2_limit_beta(n, rank, level),
        },
        "n_frames": int(seen.sum()),
        **{f"{name}_mean": float(value[seen].mean()) if seen.any() else None for name, value in values.items()},
        **{f"{name}_frame_max": float(value[seen].max()) if seen.any() else None for name, value in values.items()},
        "worst_max": float(readings.element_worst[seen, row].max()) if seen.any() else None,
    }
