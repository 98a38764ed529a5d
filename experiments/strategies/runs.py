"""Fine-tunes of ``experiments.strategies``, and what each model knows after it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.build import bulk

from experiments.lab.errors import force_squares
from experiments.lab.retained import known_structures
from experiments.lab.s0 import load_arms, validation_frames
from experiments.lab.units import Results, Unit
from experiments.strategies.config import Config, Variant
from mlipjax.data import Dataset, write_dataset
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.single import finetune
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.probes import NativeEvaluator, dimer_walls, phonons
from mlipjax.system import System
from mlipjax.train import LabelledBatches, predict

_OTHERS = ("units", "sign", "step-0")
"""Checks of the doctor that compare labels with the model, whose level of theory may be another one."""
_CRYSTALS = (bulk("Si", a=5.47), bulk("MgO", "rocksalt", a=4.25), bulk("Al", a=4.04))


def units_of(config: Config) -> list[Unit]:
    """Start models first; then seed by seed all strategies of all models, so that an unfinished run compares them."""
    starts = [Unit(f"{model}-start", measure_start, (config, model)) for model in config.models]
    runs = [
        Unit(f"{model}-{variant}-{seed}", run_variant, (config, model, variant, seed))
        for seed in range(config.seeds)
        for model in config.models
        for variant in config.variants
    ]
    return [*starts, *runs]


def measure_start(config: Config, name: str) -> dict[str, Any]:
    """Errors of a model before any fine-tune."""
    return _measure(config, name, load(name).cast("float32"))


def run_variant(config: Config, name: str, variant: Variant, seed: int) -> dict[str, Any]:
    """Fine-tune with one strategy, and measure."""
    folder = config.out / "models" / f"{name}-{variant}-{seed}"
    arm = next(arm for arm in load_arms(config.system) if arm.name == "periodic")
    valid = validation_frames(len(arm.train))
    train = arm.train.subset([i for i in range(len(arm.train)) if i not in valid])
    settings = FinetuneSettings(
        strategy="naive" if variant == "naive-adam" else variant,
        optimizer="adam" if variant == "naive-adam" else None,
        epochs=config.epochs,
        e0s="estimate",
        replay=str(_replayed(config, name)) if variant == "replay" else None,
        seed=seed,
        ignore=_OTHERS,
    )
    tuned = finetune(load(name).cast("float32"), train, arm.train.subset(valid), settings=settings, out=folder)
    return {
        "frames_seen": config.epochs * len(train),
        "steps": tuned.report["steps"],
        **_measure(config, name, tuned.model.cast("float32")),
    }


def _replayed(config: Config, name: str) -> Path:
    file = config.out / f"replayed-{name}.extxyz"
    if not file.exists():
        write_dataset(file, known_structures(name, config.retained, config.replayed, config.largest)[1])
    return file


def _measure(config: Config, name: str, model: Model) -> dict[str, Any]:
    """Squared force errors on every held-out frame and retained structure (meV²/Å²), phonons (THz), and holes."""
    arms = load_arms(config.system)
    retained, _ = known_structures(name, config.retained, config.replayed, config.largest)
    evaluate = NativeEvaluator(model, "float32")
    elements = sorted({z for arm in arms for z in arm.train.elements})
    walls = dimer_walls(evaluate, elements)
    return {
        "target": {arm.name: _squares(model, arm.test, 0) for arm in arms},
        "retained": _squares(model, retained, len(model.potential.heads) - 1),
        "phonons_THz": [
            phonons(evaluate, System.from_ase(atoms), repeat=(2, 2, 2), mesh=4).mesh_THz.ravel().tolist()
            for atoms in _CRYSTALS
        ],
        "pairs_with_holes": [pair for pair, hole in zip(walls.pairs, walls.holes, strict=True) if hole > 0],
        "n_pairs": len(walls.pairs),
    }


def _squares(model: Model, data: Dataset, head: int) -> list[float]:
    batches = dataclasses.replace(LabelledBatches.create(model.potential, data, 4), head=head)
    return force_squares(data, predict(*model, batches))


def collect(config: Config, done: Results) -> dict[str, Any]:
    """Results of the units by model and strategy: squares over (seeds, structures), drift of phonons, holes."""
    return {
        "models": {name: _of_model(config, name, done) for name in config.models},
        "epochs": config.epochs,
        "seeds": config.seeds,
        "cpu_minutes": sum(unit["cpu_seconds"] for unit in done.values()) / 60.0,
    }


def _of_model(config: Config, name: str, done: Results) -> dict[str, Any]:
    start = done[f"{name}-start"]
    rows = {v: [done[f"{name}-{v}-{seed}"] for seed in range(config.seeds)] for v in config.variants}
    return {
        "start": {key: start[key] for key in ("target", "retained", "pairs_with_holes", "n_pairs")},
        "variants": {variant: _of_variant(own, start) for variant, own in rows.items()},
    }


def _of_variant(rows: list[dict[str, Any]], start: Mapping[str, Any]) -> dict[str, Any]:
    def drift(row: Mapping[str, Any]) -> float:
        pairs = zip(row["phonons_THz"], start["phonons_THz"], strict=True)
        return float(np.mean([np.abs(np.subtract(after, before)).mean() for after, before in pairs]))

    return {
        "target": {group: [row["target"][group] for row in rows] for group in start["target"]},
        "retained": [row["retained"] for row in rows],
        "phonon_drift_THz": [drift(row) for row in rows],
        "pairs_with_holes": [row["pairs_with_holes"] for row in rows],
        "steps": rows[0]["steps"],
        "frames_seen": rows[0]["frames_seen"],
        "cpu_seconds": float(np.mean([row["cpu_seconds"] for row in rows])),
    }  # fmt: skip
