"""Figures, table and verdict of ``experiments.bias``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments._bias_data import Arm
from mlipjax.data import Dataset
from mlipjax.potential import Potential
from mlipjax.report import ErrorCurve, Illustration, Table, error_against_labels, pca_map, save_figure, write_report
from mlipjax.train import LabelledBatches
from mlipjax.train.predict import Apply
from mlipjax.typing import Params

_ERRORS = {
    "energy_mean": "energy_mean_meV_per_atom",
    "energy_std": "energy_std_meV_per_atom",
    "energy_rmse": "energy_rmse_meV_per_atom",
    "force_rmse": "force_rmse_meV_per_A",
}
COLUMNS = (
    "arm", "labels", "seed", "test", "n", "E mean", "E std", "E RMSE (meV/atom)", "F MAE", "F RMSE (meV/Å)",
    "F MAE / mean |F|", "stress MAE (meV/Å³)", "extrapolating n", "their F RMSE", "retained F MAE",
)  # fmt: skip


def feature_maps(potential: Potential, params: Params, apply: Apply, arms: Sequence[Arm]) -> dict[str, Any]:
    """PCA of all frames in the start model's last features (mean per element, side by side), and set separation.

    The separation is the silhouette score of the arms as labels, on standardised features in the original space
    (0: arms are alike, 1: they do not overlap), and for each pair of arms alone.
    """
    from sklearn.decomposition import PCA
    from sklearn.metrics import silhouette_score
    from sklearn.preprocessing import StandardScaler

    frames = {arm.name: _frame_features(potential, params, apply, arm.train + arm.test) for arm in arms}
    everything = np.concatenate(list(frames.values()))
    pca = PCA(2).fit(everything)
    standard = StandardScaler().fit_transform(everything)
    labels = np.concatenate([np.full(len(values), name) for name, values in frames.items()])
    pairs = {}
    for i, first in enumerate(frames):
        for second in list(frames)[i + 1 :]:
            chosen = (labels == first) | (labels == second)
            pairs[f"{first} / {second}"] = float(silhouette_score(standard[chosen], labels[chosen]))
    return {
        "pca": {name: pca.transform(values).tolist() for name, values in frames.items()},
        "explained": pca.explained_variance_ratio_.tolist(),
        "silhouette": pairs,
    }


def _frame_features(potential: Potential, params: Params, apply: Apply, data: Dataset) -> np.ndarray:
    batches = LabelledBatches.create(potential, data, 4)
    last = potential.feature_slices[-1]
    rows = np.zeros((len(data), 0))
    for plan in batches.plans:
        features = np.asarray(apply(params, batches.batch(plan).graph).features[:, last], np.float64)
        start = 0
        for index in plan.indices:
            numbers = np.asarray(data.systems[index].atomic_numbers)
            mine = features[start : start + len(numbers)]
            start += len(numbers)
            vector = np.concatenate([mine[numbers == z].mean(axis=0) for z in data.elements])
            rows = np.zeros((len(data), len(vector))) if rows.shape[1] == 0 else rows
            rows[index] = vector
    return rows


def table_rows(results: dict[str, Any]) -> list[list[Any]]:
    """One row for each model and test set."""
    energies = list(_ERRORS.values())[:3]
    rows = []
    for row in results["rows"]:
        for test, errors in row["tests"].items():
            outside = row["extrapolating"].get(test)
            norm = errors["force_reference_mean_norm_meV_per_A"]
            rows.append([
                row["arm"], row["labels"], row["seed"], test, errors["n_frames"], *(errors[k] for k in energies),
                errors["force_mae_meV_per_A"], errors["force_rmse_meV_per_A"], errors["force_mae_meV_per_A"] / norm,
                errors["stress_mae_meV_per_A3"],
                outside["n_frames"] if outside else 0, outside["force_rmse_meV_per_A"] if outside else None,
                row["retained"]["force_mae_meV_per_A"] if row["retained"] else None,
            ])  # fmt: skip
    return rows


def write(folder: Path, results: dict[str, Any], command: str) -> None:
    """Write figures and ``report.html``."""
    maps = results["maps"]
    sets = {name: np.array(scores) for name, scores in maps["pca"].items()}
    figures = {
        "errors": (
            error_against_labels(_curves(results)),
            "Errors against DFT labels on each held-out group, with 95 % bootstrap intervals over frames (first seed); "
            "zero labels: the start model with E0s fitted to 11 labels. Held out: "
            + ", ".join(f"{arm} {what}" for arm, what in results["held_out"].items()) + ".",
            "Error against labels",
        ),
        "pca": (
            pca_map(sets, explained=tuple(maps["explained"]), what="frames"),
            "All published frames in the start model's last features (mean per element, side by side). Silhouette "
            "scores in the original standardised space: "
            + ", ".join(f"{pair} {score:.2f}" for pair, score in maps["silhouette"].items()) + ".",
            "What the arms sampled",
        ),
    }  # fmt: skip
    for name, (figure, _, _) in figures.items():
        save_figure(figure, folder / f"{name}.png")
    text, alarm = verdict(results)
    caption = "Every model on every held-out group; errors are model minus DFT. Extrapolating: frames with a contact "
    caption += "shorter than any of its pair of elements in the model's training set."
    events = [
        [arm, kind, len(values), float(np.min(values)), float(np.mean(values)), float(np.max(values))]
        for arm, kinds in results["events"].items()
        for kind, values in kinds.items()
    ]
    write_report(
        folder / "report.html",
        title=f"Bias of the training data: {results['system']}",
        verdict=text,
        content=[
            *(Illustration(figure, caption, title) for figure, caption, title in figures.values()),
            Table(COLUMNS, table_rows(results), caption),
            Table(["arm", "count per frame", "frames", "min", "mean", "max"], events, "Bonds in the published frames."),
        ],
        versions=results["versions"],
        command=command,
        alarm=alarm,
    )


def verdict(results: dict[str, Any]) -> tuple[str, bool]:
    """What these data support, with n and intervals; alarming if fine-tuning made a held-out group worse."""
    tuned = [row for row in results["rows"] if row["arm"] != "zero-shot"]
    zero = next(row for row in results["rows"] if row["arm"] == "zero-shot")
    most = max(row["labels"] for row in tuned)
    final = [row for row in tuned if row["labels"] == most]
    n_seeds = len({row["seed"] for row in final})
    sentences = [f"{results['system']}, {most} labels per arm, {n_seeds} seed(s)."]
    worse = False
    for test, n in results["n_tests"].items():
        before = zero["tests"][test]["force_rmse_meV_per_A"]
        arms: dict[str, list[dict[str, Any]]] = {}
        for row in final:
            arms.setdefault(row["arm"], []).append(row["tests"][test])
        means = {arm: float(np.mean([e["force_rmse_meV_per_A"] for e in errors])) for arm, errors in arms.items()}
        spread = {arm: float(np.mean([e["energy_std_meV_per_atom"] for e in errors])) for arm, errors in arms.items()}
        worse |= min(means.values()) > before
        values = ", ".join(f"{arm} {means[arm]:.0f} (energy std {spread[arm]:.2f} meV/atom)" for arm in means)
        best, *others = sorted(means, key=lambda arm: means[arm])
        sentence = f"On {test} (n = {n}) the force RMSE is {values} meV/Å, zero-shot {before:.0f}"
        if others:
            high = arms[best][0]["confidence_95"]["force_rmse_meV_per_A"][1]
            low = arms[others[0]][0]["confidence_95"]["force_rmse_meV_per_A"][0]
            sentence += f"; {best} is lowest, " + (
                "its interval apart from the next" if high < low else "but the intervals overlap"
            )
        sentences.append(sentence + ".")
    if zero["retained"]:
        kept = zero["retained"]["force_mae_meV_per_A"]
        after = {row["arm"]: row["retained"]["force_mae_meV_per_A"] for row in final}
        changes = ", ".join(f"{arm} {value:.0f}" for arm, value in after.items())
        sentences.append(
            f"On MPtrj (n = {zero['retained']['n_frames']}) the force MAE goes from {kept:.0f} to {changes} meV/Å."
        )
    sentences.append("Intervals are over frames of few trajectories and therefore too narrow.")
    return " ".join(sentences), worse


def _curves(results: dict[str, Any]) -> dict[str, dict[str, ErrorCurve]]:
    rows = [row for row in results["rows"] if row["seed"] == 0]
    zero = [row for row in rows if row["arm"] == "zero-shot"]
    names = list(dict.fromkeys(row["arm"] for row in rows if row["arm"] != "zero-shot"))
    return {
        test: {arm: _curve([*zero, *(row for row in rows if row["arm"] == arm)], test) for arm in names}
        for test in results["n_tests"]
    }


def _curve(rows: list[dict[str, Any]], test: str) -> ErrorCurve:
    rows = sorted(rows, key=lambda row: row["labels"])
    errors = {
        name: np.array([[row["tests"][test][key], *row["tests"][test]["confidence_95"][key]] for row in rows], float)
        for name, key in _ERRORS.items()
    }
    return ErrorCurve(labels=[row["labels"] for row in rows], **errors)
