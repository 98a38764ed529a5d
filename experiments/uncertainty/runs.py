"""The runs of ``experiments.uncertainty``: fine-tunes, and the judgement of every repetition."""

from __future__ import annotations

from typing import Any

import numpy as np

import mlipjax
from experiments.lab.units import Results, Unit
from experiments.uncertainty.config import Config
from mlipjax import data, monitoring
from mlipjax.potential import Model
from mlipjax.train.evaluate import predict_dataset
from mlipjax.uncertainty import Computed, Errors, Spread, load_uncertainty, score, score_structures, spreads_of
from mlipjax.verbs.error_bars import errors_of

TRAIN = {"bulk 300 K, start": (105, 117), "vacancy 300 K, start": (27, 41)}
CALIBRATE = {"bulk 300 K, middle": (117, 120), "vacancy 300 K, middle": (41, 49)}
LADDER = {
    "bulk 300 K, end": (120, 123),
    "vacancy 300 K, end": (49, 57),
    "bulk, forces x1.6": (69, 79),
    "bulk, forces x2.2": (87, 97),
    "vacancy, hot": (0, 10),
    "strained": (186, 196),
    "surface": (57, 69),
}
METHODS = ("llpr", "committee", "shallow:8")


def part(whole: data.Dataset, places: dict[str, tuple[int, int]]) -> data.Dataset:
    """Frames at some places, each place a group."""
    rows, names = [], []
    for name, (start, stop) in places.items():
        rows += range(start, stop)
        names += [name] * (stop - start)
    chosen = whole.subset(rows)
    return data.Dataset(chosen.systems, chosen.labels, tuple({"run": name} for name in names))


def units_of(config: Config) -> list[Unit]:
    """All fine-tunes, repetition by repetition, each with its judgement."""
    units = []
    for number in range(config.repetitions):
        seeds = _seeds(config, number)
        units += [Unit(f"tune-{seed}", run_tune, (config, seed)) for seed in seeds]
        units.append(Unit(f"judge-{number}", run_judge, (config, number), tuple(f"tune-{seed}" for seed in seeds)))
    return units


def _seeds(config: Config, number: int) -> range:
    return range(number * config.members, (number + 1) * config.members)


def _opened(config: Config) -> data.Dataset:
    return mlipjax.read(config.file, stress_key="none")  # components of stresses are not in one order


def run_tune(config: Config, seed: int) -> dict[str, Any]:
    """Fine-tune from a seed; the model is the folder ``seed-SEED``."""
    options: dict[str, Any] = {"e0s": "estimate", "valid_fraction": 0.0, "anchor": "none", "dtype": config.dtype}
    folder = config.out / f"seed-{seed}"
    train = part(_opened(config), TRAIN)
    found = mlipjax.finetune(config.model, train, out=folder, epochs=config.epochs, seed=seed, **options)
    return {"steps": found.report["steps"]}


def run_judge(config: Config, number: int) -> dict[str, Any]:
    """Calibrate the first model of a repetition, and compare all error bars and the charts with its errors."""
    whole = _opened(config)
    train, held_out, ladder = (part(whole, places) for places in (TRAIN, CALIBRATE, LADDER))
    first, *others = (config.out / f"seed-{seed}" for seed in _seeds(config, number))
    mlipjax.calibrate(first, train, valid=held_out, dtype=config.dtype)
    mlipjax.calibrate(first, valid=held_out, members=others, dtype=config.dtype)
    model, how = mlipjax.load(first), Computed(dtype=config.dtype)
    errors = errors_of(ladder, predict_dataset(model, ladder, dtype=config.dtype))
    results: dict[str, Any] = {"groups": list(errors.groups), "wrong": [_rms(own) for own in errors.forces]}
    index: dict[str, list[float]] = {}
    for method in METHODS:
        spreads = spreads_of(load_uncertainty(first, model, method), model, ladder.systems, how=how)
        results[method] = judged(spreads, errors)
        index[method] = [_rms(found.forces) for found in spreads]
    charts = fitted_charts(model, train + held_out)
    frame = monitoring.read_frames(charts, monitoring.frame_features(model, ladder.systems)).frame
    for k, name in enumerate(monitoring.FRAME_INDICES):
        index[name] = frame[:, k].tolist()
    results["charts"] = {name: score_structures(frame[:, k], errors) for k, name in enumerate(monitoring.FRAME_INDICES)}
    return {**results, "index": index}


def fitted_charts(model: Model, reference: data.Dataset) -> monitoring.Monitor:
    """Charts of all frames that were trained or calibrated on."""
    features = monitoring.frame_features(model, reference.systems)
    fingerprint = monitoring.params_fingerprint(model.params)
    return monitoring.fit_monitor(features, data.runs_of(reference), model=fingerprint)


def judged(spreads: list[Spread], errors: Errors) -> dict[str, Any]:
    """Scores on the whole ladder, and on each of its rungs."""
    names = list(dict.fromkeys(errors.groups))
    rows = {name: [i for i, group in enumerate(errors.groups) if group == name] for name in names}
    rungs = {name: score([spreads[i] for i in own], errors.subset(own)) for name, own in rows.items()}
    return {"all": score(spreads, errors), "rungs": rungs}


def _rms(vectors: Any) -> float:
    return float(np.sqrt(np.mean(np.sum(np.asarray(vectors, np.float64) ** 2, axis=1))))


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units."""
    return {"repetitions": [done[f"judge-{number}"] for number in range(config.repetitions)]}
