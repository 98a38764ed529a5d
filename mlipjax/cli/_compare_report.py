"""Verdict, figures and report of ``mlipjax compare-representations``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.report import Illustration, Table, write_report
from mlipjax.report.representation import class_maps, estimate_panels, estimates_along
from mlipjax.representation import Comparison, Embedding, Estimate, collapse_marks

_SCORES = {
    "Davies-Bouldin, original": ("davies_bouldin_original", "lower: classes further apart"),
    "Davies-Bouldin, standardised": ("davies_bouldin_standardised", "lower: classes further apart"),
    "silhouette, original": ("silhouette_original", "higher: classes further apart"),
    "silhouette, standardised": ("silhouette_standardised", "higher: classes further apart"),
    "effective rank": ("effective_rank", "higher: more directions"),
    "effective rank within classes": ("effective_rank_within", "higher: more directions"),
}
_DRIFT = {
    "linear CKA": ("cka", "1: the same up to rotation", 1.0),
    "linear CKA within classes": ("cka_within", "1: the same up to rotation", 1.0),
    "1-Wasserstein per channel": ("wasserstein_standardised", "standardised; 0: no change", None),
    "sliced 1-Wasserstein": ("sliced_wasserstein_standardised", "standardised; 0: no change", None),
    "PCA angle, atoms (°)": ("angle_atoms_deg", "mean; 0: the same scores", None),
    "PCA angle, channels (°)": ("angle_channels_deg", "mean; 0: the same directions", None),
    "Q of old features, new charts": ("q_before_under_after", "1: as in the charts", 1.0),
    "Davies-Bouldin ratio, original": ("davies_bouldin_original_ratio", "1: as before, above: worse", 1.0),
    "Davies-Bouldin ratio, standardised": ("davies_bouldin_standardised_ratio", "1: as before, above: worse", 1.0),
}
LIMITS = (
    "Separation indices judge given classes and cannot say why they moved: finer resolution within a class raises "
    "Davies-Bouldin as lost chemistry does. CKA compares any two models but is dominated by the elements, which is why "
    "it is also given within classes. Wasserstein distances, angles of channels and Q mean something only between "
    "models of common ancestry. t-SNE depends on seed and perplexity: quote its spread."
)


def verdict(comparisons: dict[str, Comparison], results: dict[str, Any]) -> tuple[str, bool]:
    """Findings in words, with n and intervals; alarming if a model lost both separation and directions."""
    sentences, alarm = [], False
    for kind, comparison in comparisons.items():
        what = "atoms" if kind == "nodes" else "pairs"
        sentences.append(
            f"{comparison.n_members} {what} of {comparison.n_structures} structures in {len(comparison.classes)} "
            f"classes, layer {results['layer']}, against {comparison.models[0]}."
        )
        runs = results["runs"]
        # of a run, the model that was kept is judged
        for name in [list(steps)[-1] for steps in runs.values()] or comparison.models[1:]:
            said, collapsed = _about(comparison, name)
            sentences += said
            alarm |= collapsed
        for run, steps in runs.items():
            drift = comparison.drift
            marked = [step for name, step in steps.items() if name in drift and all(collapse_marks(drift[name]))]
            if marked:
                sentences.append(
                    f"Along {run}, {len(marked)} of {len(steps)} models bear both, from step {min(marked)}."
                )
    return " ".join(sentences), alarm


def _about(comparison: Comparison, name: str) -> tuple[list[str], bool]:
    """Sentences about one model, and whether it bears both marks of a collapse."""
    drift = comparison.drift[name]
    ratios = drift["davies_bouldin_original_ratio"], drift["davies_bouldin_standardised_ratio"]
    rank = drift.get("effective_rank_within_ratio")
    worse, fewer = collapse_marks(drift)
    directions = "" if rank is None else f" effective rank within classes {_text(rank)} times as large,"
    sentences = [
        f"{name}: classes {_separation(ratios)} (Davies-Bouldin ratio {_text(ratios[0])} in the original space, "
        f"{_text(ratios[1])} standardised),{directions} CKA {_text(drift['cka'])}, within classes "
        f"{_text(drift['cka_within'])}."
    ]
    if worse and fewer:
        sentences.append("Classes closer together and fewer directions within them: the marks of a collapse.")
    elif not worse:
        sentences.append("No collapse of these classes is seen.")
    else:
        sentences.append("Less separation without loss of directions: finer resolution or noise, not a collapse.")
    if comparison.maps:
        before, after = (_spread(comparison.maps[model]) for model in (comparison.models[0], name))
        sentences.append(
            f"On t-SNE maps Davies-Bouldin is {after.low:.2f}-{after.high:.2f} over seeds and perplexities "
            f"({comparison.models[0]}: {before.low:.2f}-{before.high:.2f})."
        )
    return sentences, worse and fewer


def _separation(ratios: tuple[Estimate, Estimate]) -> str:
    """Separation of classes, if both spaces agree."""
    if not np.isfinite([ratio.low for ratio in ratios]).all():
        return "cannot be judged with so few structures"
    verdicts = {"less" if r.low > 1.0 else "more" if r.high < 1.0 else "alike" for r in ratios}
    return f"are kept apart {verdicts.pop()}" if len(verdicts) == 1 else "change in one of two spaces only"


def write(folder: Path, comparisons: dict[str, Comparison], results: dict[str, Any], command: str) -> None:
    """Write figures, ``table.csv`` and ``report.html``."""
    from mlipjax import runtime
    from mlipjax.files import write_atomic

    content: list[Illustration | Table] = []
    lines = ["kind,number,model,value,low,high"]
    for kind, comparison in comparisons.items():
        n = f"{comparison.n_members} {'atoms' if kind == 'nodes' else 'pairs'} of {comparison.n_structures} structures"
        figures = _figures(kind, comparison, results)
        for name, (figure, caption, title) in figures.items():
            caption = (
                f"{caption}, {n}; 95 % intervals over structures (half-samples); t-SNE: range over seeds, perplexities."
            )
            content.append(Illustration(figure, caption, f"{title}: {kind}", name))
        if comparison.maps:
            figure = _map_figure(comparison)
            caption = "One t-SNE map of each model's standardised features (the first of its seeds and perplexities). "
            caption += "Distances and areas mean nothing in such a map."
            content.append(Illustration(figure, caption, f"Maps: {kind}", f"{kind}_tsne"))
        rows = list(_rows(comparison))
        lines += [",".join([kind, *map(str, row)]) for row in rows]
        content.append(Table(["number", "model", "value", "low", "high"], rows, f"All numbers of {kind}. {LIMITS}"))
        counts = [[name, count] for name, count in comparison.classes.items()]
        content.append(Table(["class", "members"], counts, f"Classes of {kind} with at least 10 members."))
    if results.get("old_data_q"):
        found = {k: v for k, v in results["old_data_q"].items() if isinstance(v, dict)}
        rows = [[name, one["value"], *one["confidence_95"]] for name, one in found.items()]
        caption = f"Q of {results['old_data_q']['n_structures']} structures of {results['old']} under charts of "
        caption += f"{results['data']} in the same model, relative to the mean Q of the charts' own atoms."
        content.append(Table(["model", "relative Q", "low", "high"], rows, caption))
    text, alarm = verdict(comparisons, results)
    models = next(iter(comparisons.values())).models
    runs = results["runs"]
    title = f"Representations along {', '.join(runs)}" if runs else f"Representations: {' against '.join(models[::-1])}"
    write_atomic(folder / "table.csv", "\n".join(lines) + "\n")
    write_report(
        folder / "report.html",
        title=title,
        verdict=text,
        content=content,
        versions=runtime.versions(),
        command=command,
        alarm=alarm,
    )


def _figures(kind: str, comparison: Comparison, results: dict[str, Any]) -> dict[str, tuple[Any, str, str]]:
    """Figures but maps, by the name of their file, with caption and title: of models side by side, or along runs."""
    reference = comparison.models[0]
    if results["runs"]:
        figure = _along_figure(comparison, results["runs"], results.get("old_data_q") if kind == "nodes" else None)
        caption = f"Against the optimiser step, drift against {reference}; stars: the model that was kept"
        return {f"{kind}_along": (figure, caption, "Along training")}
    panels, notes = _score_panels(comparison)
    scores = estimate_panels(panels, better=notes)
    panels, notes, lines = _drift_panels(comparison)
    drift = estimate_panels(panels, better=notes, lines=lines)
    return {
        f"{kind}_scores": (scores, "Every model by itself", "Separation"),
        f"{kind}_drift": (drift, f"Against {reference}", "Drift"),
    }


_Panels = dict[str, dict[str, Estimate]]


def _score_panels(comparison: Comparison) -> tuple[_Panels, dict[str, str]]:
    """Numbers of every model by itself, by title and model, and what a reader should know."""
    panels = {
        title: {name: comparison.scores[name][key] for name in comparison.models} for title, (key, _) in _SCORES.items()
    }
    notes = {title: note for title, (_, note) in _SCORES.items()}
    if comparison.maps:
        for index in ("davies_bouldin", "silhouette"):
            title = f"{index.replace('davies_bouldin', 'Davies-Bouldin')}, t-SNE"
            panels[title] = {name: _spread(maps, index) for name, maps in comparison.maps.items()}
            notes[title] = "range over seeds, perplexities"
    return panels, notes


def _drift_panels(comparison: Comparison) -> tuple[_Panels, dict[str, str], dict[str, float]]:
    """Numbers of every model but the first against it, likewise, and values to compare with."""
    panels, notes, lines = {}, {}, {}
    for title, (key, note, line) in _DRIFT.items():
        rows = {name: drift[key] for name, drift in comparison.drift.items() if key in drift}
        if rows:
            panels[title], notes[title] = rows, note
            if line is not None:
                lines[title] = line
    return panels, notes, lines


def _along_figure(comparison: Comparison, runs: dict[str, dict[str, int]], old: dict[str, Any] | None) -> Any:
    """All numbers against the step of each model; the reference has not moved against itself."""
    panels, notes = _score_panels(comparison)
    drift, drift_notes, lines = _drift_panels(comparison)
    for title, rows in drift.items():
        unmoved = Estimate(lines.get(title, 0.0), np.nan, np.nan)
        panels[title] = {comparison.models[0]: unmoved, **rows}
    if old:
        title = "Q of old data, charts of new"
        panels[title] = {name: Estimate(old[name]["value"], *old[name]["confidence_95"]) for name in comparison.models}
        lines[title] = 1.0
    points: dict[str, dict[str, Any]] = {title: {} for title in panels}
    for title, rows in panels.items():
        for run, steps in runs.items():
            # models of another width than the reference have no distances from it
            if all(name in rows for name in steps):
                points[title][run] = [(step, *rows[name]) for name, step in steps.items()]
    return estimates_along(points, better=notes | drift_notes, lines=lines)


def _map_figure(comparison: Comparison) -> Any:
    first = {name: maps[0] for name, maps in comparison.maps.items()}
    notes = {name: f"DB {m.davies_bouldin:.2f}, silhouette {m.silhouette:.2f}" for name, m in first.items()}
    points = {name: one.coordinates for name, one in first.items()}
    return class_maps(points, comparison.members.classes.tolist(), notes=notes)


def _spread(maps: list[Embedding], index: str = "davies_bouldin") -> Estimate:
    values = [getattr(one, index) for one in maps]
    return Estimate(float(np.mean(values)), float(np.min(values)), float(np.max(values)))


def _rows(comparison: Comparison) -> Any:
    for table in (comparison.scores, comparison.drift):
        for name, values in table.items():
            for key, e in values.items():
                yield [key, name, *(float(x) if np.isfinite(x) else None for x in e)]
    for name, maps in comparison.maps.items():
        for key in ("davies_bouldin", "silhouette"):
            yield [f"{key}_tsne (range)", name, *_spread(maps, key)]


def _text(e: Estimate) -> str:
    return f"{e.value:.2f}" + (f" [{e.low:.2f}, {e.high:.2f}]" if np.isfinite(e.low) else "")
