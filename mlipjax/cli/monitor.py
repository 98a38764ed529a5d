"""``mlipjax monitor``: whether a model knows structures like these, by charts of its own features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlipjax import runtime
from mlipjax.cli._monitor_tables import print_report
from mlipjax.cli.heads import say_heads_are_alike
from mlipjax.cli.options.monitor import MonitorCommand
from mlipjax.cli.output import make_console, write_json
from mlipjax.data import Dataset, read_dataset, runs_of
from mlipjax.elements import listed, symbols
from mlipjax.locks import folder_alone
from mlipjax.models import load
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
from mlipjax.monitoring.judgement import Judgement, judge
from mlipjax.monitoring.limits import box_q_limit, jackson_mudholkar, t2_limit_beta, t2_limit_f


def run(command: MonitorCommand) -> None:
    """Fit, read and print.

    Raises:
        ValueError, FileNotFoundError: if model, reference or data cannot be used.
        InUseError: if another process works in the folder to write.
    """
    with folder_alone(command.out):
        _judge(command)


def _judge(command: MonitorCommand) -> None:
    runtime.select_dtype(command.dtype)
    dataset = read_dataset(command.data, required=(), with_labels=False)
    potential, params = load(command.model)
    say_heads_are_alike(potential)
    options: Any = {"dtype": command.dtype, "batch_size": command.batch_size}
    if command.reference.suffix == ".npz":
        monitor = load_monitor(command.reference, params)
    else:
        reference = read_dataset(command.reference, required=(), with_labels=False)
        missing = sorted(set(dataset.elements) - set(reference.elements))
        if missing:
            names = listed(missing)
            raise ValueError(f"{command.data} holds {names}, which no frame of {command.reference} holds.")
        fit = cross_fit_monitor if command.calibration == "cross" else fit_monitor
        monitor = fit(
            frame_features(potential, params, reference.systems, layers=command.layers, **options),
            runs_of(reference),
            level=command.level,
            n_components=command.components,
            layers=command.layers,
            model=params_fingerprint(params),
        )
    monitor.check_elements(dataset.elements)
    readings = read_frames(
        monitor, frame_features(potential, params, dataset.systems, layers=monitor.layers, **options)
    )
    report = summary(monitor, readings, dataset)
    k = FRAME_INDICES.index(command.index)
    # the limit in the precision of the charts, which decides on alarms
    calibration = monitor.frame_calibration[command.index]._replace(limit=float(monitor.charts.frame_limits[k]))
    verdict = judge(readings.frame[:, k], runs_of(dataset), calibration)
    report |= {"index": command.index, "worst": _worst_of(report, verdict), "verdict": _verdict_of(verdict)}
    print_report(make_console(), report, verdict, index=command.index, name=command.data.name)
    write_json(command.json, {**report, "model": command.model, "reference": command.reference, "data": command.data})
    if command.out is not None:
        _save(command.out, monitor, readings, dataset)


def summary(monitor: Monitor, readings: FrameReadings, dataset: Dataset) -> dict[str, Any]:
    """Everything that is printed, in JSON types."""
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
        "per_element": {name: _element(monitor, readings, row) for row, name in enumerate(symbols(monitor.species))},
        "frames": {name: readings.frame[:, k] for k, name in enumerate(FRAME_INDICES)},
        "alarms": {name: np.flatnonzero(readings.alarm[:, k]) for k, name in enumerate(FRAME_INDICES)},
        "worst_atom": readings.worst_atom,
        "worst_element": symbols(
            system.atomic_numbers[atom] for system, atom in zip(dataset.systems, readings.worst_atom, strict=True)
        ),
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
    return {
        "in_control": verdict.in_control,
        "undecided": verdict.undecided,
        "words": verdict.words,
        "too_many": verdict.too_many,
        "too_far": verdict.too_far,
        "p_count": verdict.p_count,
        "p_weight": verdict.p_weight,
        "n_effective": verdict.n_effective,
        "highest_level": verdict.highest_level,
    }


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


def _save(folder: Path, monitor: Monitor, readings: FrameReadings, dataset: Dataset) -> None:
    from mlipjax.report import save_figure
    from mlipjax.report.monitor import control_charts

    names = {"Q / limit": 0, "T² / limit": 1, "combined": 2, "worst atom": 3}
    times = [info.get("time_fs") for info in dataset.infos]
    known = all(isinstance(time, (int, float)) for time in times)
    figure = control_charts(
        {name: readings.frame[:, k] for name, k in names.items()},
        {name: float(monitor.charts.frame_limits[k]) for name, k in names.items()},
        runs=runs_of(dataset),
        x=[float(time) / 1000.0 for time in times if time is not None] if known else None,
        x_label="time (ps)" if known else "frame (number)",
    )
    save_monitor(folder / "monitor.npz", monitor)
    save_figure(figure, folder / "monitor.png")
