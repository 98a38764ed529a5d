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

import numpy as np

import mlipjax
from mlipjax import data, monitoring, runtime
from mlipjax.potential import Model
from mlipjax.train.evaluate import predict_dataset
from mlipjax.uncertainty import Errors, Spread, load_uncertainty, score, score_structures, spreads_of
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


def judged(spreads: list[Spread], errors: Errors) -> dict[str, Any]:
    """Scores on the whole ladder, and on each of its rungs."""
    names = list(dict.fromkeys(errors.groups))
    rows = {name: [i for i, group in enumerate(errors.groups) if group == name] for name in names}
    rungs = {name: score([spreads[i] for i in own], errors.subset(own)) for name, own in rows.items()}
    return {"all": score(spreads, errors), "rungs": rungs}


def main(file: str, out: Path) -> None:
    """Fine-tune, calibrate, judge, write."""
    runtime.setup_allocator()
    whole = mlipjax.read(file, stress_key="none")  # their components are not in one order
    train, held_out, ladder = (part(whole, places) for places in (TRAIN, CALIBRATE, LADDER))
    first, *others = tuned(train, out)
    if not (first / "llpr.npz").exists():
        mlipjax.calibrate(first, train, valid=held_out)
    if not (first / "committee.npz").exists():
        mlipjax.calibrate(first, valid=held_out, members=others)
    model = mlipjax.load(first)
    errors = errors_of(ladder, predict_dataset(model, ladder))
    names = dict.fromkeys(errors.groups)
    results: dict[str, Any] = {
        "force_rmse_meV_per_A": {
            name: 1e3 * float(np.sqrt(np.mean(np.square(np.concatenate(
                [own for own, group in zip(errors.forces, errors.groups, strict=True) if group == name]
            )))))
            for name in names
        }
    }  # fmt: skip
    for method in METHODS:
        spreads = spreads_of(load_uncertainty(first, model, method), model, ladder.systems)
        results[method] = judged(spreads, errors)
        runtime.write_results(out / "results.json", results)
        print(f"judged {method}", flush=True)
    charts = fitted_charts(model, train + held_out)
    frame = monitoring.read_frames(charts, monitoring.frame_features(model, ladder.systems)).frame
    results["charts"] = {name: score_structures(frame[:, k], errors) for k, name in enumerate(monitoring.FRAME_INDICES)}
    runtime.write_results(out / "results.json", results)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
