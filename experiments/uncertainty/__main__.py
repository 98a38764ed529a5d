"""Error bars of a fine-tuned model on silicon, away from what it was trained on; labels are DFT throughout.

The embedded model is fine-tuned on frames of bulk and of a vacancy at 300 K, calibrated on later frames of the same two
trajectories, and judged on still later ones and on a ladder: hotter, strained, a surface. The file is ``si_train`` of
the mlearn data (Zuo et al., J. Phys. Chem. A 124, 731 (2020)): places of its trajectories are below.

    python -m experiments.uncertainty si_train.extxyz OUT

writes ``OUT/results.json`` and the models. Compares the posterior of the last layer, draws from it, a committee of four
fine-tunes from other seeds (other orders of the same frames) and the charts of the features.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlipjax
from mlipjax import data, monitoring, runtime
from mlipjax.potential import Model

TRAIN = {"bulk 300 K, start": (105, 117), "vacancy 300 K, start": (27, 41)}
CALIBRATE = {"bulk 300 K, middle": (117, 120), "vacancy 300 K, middle": (41, 49)}
LADDER = {
    "bulk 300 K, end": (120, 123),
    "vacancy 300 K, end": (49, 57),
    "bulk, forces x1.6": (69, 87),
    "bulk, forces x2.2": (87, 105),
    "vacancy, hot": (0, 27),
    "strained": (186, 213),
    "surface": (57, 69),
}
METHODS = ("llpr", "shallow:8", "committee")
SEEDS = 4
EPOCHS = 20


def part(whole: data.Dataset, places: dict[str, tuple[int, int]]) -> data.Dataset:
    """Frames at some places, each place a group."""
    rows, names = [], []
    for name, (start, stop) in places.items():
        rows += range(start, stop)
        names += [name] * (stop - start)
    chosen = whole.subset(rows)
    return data.Dataset(chosen.systems, chosen.labels, tuple({"run": name} for name in names))


def tuned(train: data.Dataset, out: Path) -> list[Path]:
    """Folders of fine-tunes that differ in their seed."""
    folders = [out / f"seed-{seed}" for seed in range(SEEDS)]
    for seed, folder in enumerate(folders):
        mlipjax.finetune(
            "universal", train, out=folder, epochs=EPOCHS, seed=seed, e0s="estimate", valid_fraction=0.0, anchor="none"
        )
        print(f"fine-tuned {folder}", flush=True)
    return folders


def fitted_charts(model: Model, reference: data.Dataset) -> monitoring.Monitor:
    """Charts of all frames that were trained or calibrated on."""
    features = monitoring.frame_features(model, reference.systems)
    fingerprint = monitoring.params_fingerprint(model.params)
    return monitoring.fit_monitor(features, data.runs_of(reference), model=fingerprint)


def main(file: str, out: Path) -> None:
    """Fine-tune, calibrate, judge, write."""
    runtime.setup_allocator()
    whole = mlipjax.read(file, stress_key="none")  # their components are not in one order
    train, held_out = part(whole, TRAIN), part(whole, CALIBRATE)
    first, *others = tuned(train, out)
    results: dict[str, Any] = {
        "calibration": [
            mlipjax.calibrate(first, train, valid=held_out),
            mlipjax.calibrate(first, valid=held_out, members=others),
        ],
    }
    charts = fitted_charts(mlipjax.load(first), train + held_out)
    for method in METHODS:
        rungs = {}
        for name, place in LADDER.items():
            rungs[name] = mlipjax.evaluate(first, part(whole, {name: place}), uncertainty=method)
            print(method, name, rungs[name]["uncertainty"]["forces"], flush=True)
        everything = mlipjax.evaluate(first, part(whole, LADDER), uncertainty=method, monitor=charts)
        results[method] = {"rungs": rungs, "all": everything["uncertainty"]}
        runtime.write_results(out / "results.json", results)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
