"""Tables, figure and the answer of ``experiments.uncertainty``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.lab.statistics import Estimate, bootstrap
from experiments.uncertainty.runs import METHODS
from mlipjax.report import Illustration, Table
from mlipjax.report.representation import estimate_panels
from mlipjax.uncertainty.scores import spearman

OF_INTEREST = 0.05
"""Smallest difference of correlations that would matter."""
_CHARTS = ("q", "t2", "combined", "worst")
_COLUMNS = ("error bar", "within 1 std", "within 1.96 std", "Spearman, atoms", "AUROC, atoms", "Spearman")
_RUNGS = ("rung", "n", "force RMSE (meV/Å)", *(f"{method}, within {k}" for method in METHODS for k in (1, 1.96)))
_SCORES = ("coverage_68", "coverage_95", "spearman", "auroc")


def correlation(repetitions: list[dict[str, Any]], first: str, second: str | None = None) -> Estimate:
    """Spearman's correlation of an index of structures with their errors, or less that of another one.

    It is the mean over repetitions. Rungs of the ladder are drawn as a whole, the same ones for both, and repetitions.
    """
    names = list(dict.fromkeys(repetitions[0]["groups"]))
    rows = [np.flatnonzero([group == name for group in repetitions[0]["groups"]]) for name in names]
    wrong = [np.array(one["wrong"]) for one in repetitions]

    def of(index: str, repetition: int, chosen: np.ndarray) -> float:
        return spearman(np.array(repetitions[repetition]["index"][index])[chosen], wrong[repetition][chosen])

    def measure(drawn: list[np.ndarray], groups: list[np.ndarray]) -> float:
        chosen = np.concatenate([rows[k] for k in groups[0]])
        found = [of(first, r, chosen) - (0.0 if second is None else of(second, r, chosen)) for r in drawn[0]]
        return float(np.mean(found))

    return bootstrap(measure, [len(names)], [len(repetitions)])


def answer(effect: Estimate) -> str:
    """The answer by the rule."""
    if effect.value >= OF_INTEREST and effect.low > 0.0:
        return "supported"
    return "contradicted" if effect.high < OF_INTEREST else "not decided"


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    repetitions = results["repetitions"]
    n, seeds = len(repetitions[0]["wrong"]), len(repetitions)
    ranks = {name: correlation(repetitions, name) for name in (*METHODS, *_CHARTS)}
    effect = correlation(repetitions, "llpr", "combined")
    covered = {method: {name: _mean(repetitions, method, name) for name in _SCORES} for method in METHODS}
    rows = [[method, *covered[method].values(), ranks[method].value] for method in METHODS]
    rows += [[name, *4 * [None], ranks[name].value] for name in _CHARTS]
    told = ", ".join(f"{name} {one}" for name, one in ranks.items())
    shares = ", ".join(f"{method} {100 * own['coverage_95']:.0f} %" for method, own in covered.items())
    verdict = (
        f"On {n} structures of {len(_rungs(repetitions))} rungs, {seeds} repetition{'s' * (seeds > 1)}, "
        f"Spearman's correlation with the error of forces is {told}; llpr less combined {effect}. "
        f"Within 1.96 standard deviations are {shares} of force components."
    )
    numbers = {
        **{
            f"{name}, forces within 1.96 std": Number(own["coverage_95"], "", n, seeds) for name, own in covered.items()
        },
        **{f"{name}, Spearman of structures": Number(one.value, "", n, seeds) for name, one in ranks.items()},
        "Spearman of structures, llpr - combined": Number(effect.value, "", n, seeds),
    }
    title = "Spearman's correlation with the error"
    return Outcome(
        verdict=verdict,
        answer=answer(effect),
        numbers=numbers,
        brief=[brief(_COLUMNS, rows, ".2f"), brief(_RUNGS, _rungs(repetitions), ".2f")],
        title="Error bars away from the training data",
        content={
            "spearman": Illustration(
                estimate_panels({title: {name: tuple(one) for name, one in ranks.items()}}),  # pyright: ignore
                f"Of structures, {n} of them, {seeds} repetition(s); 95 % intervals over rungs of the ladder.",
                "Which structures are wrong",
            ),
            "table": Table(
                _COLUMNS, rows, "Means over repetitions; the last column is of structures, the others of atoms."
            ),
            "rungs": Table(_RUNGS, _rungs(repetitions), "Shares of force components within 1 and 1.96 deviations."),
        },
    )


def _mean(repetitions: list[dict[str, Any]], method: str, level: str) -> float:
    return float(np.mean([one[method]["all"]["forces"][level] for one in repetitions]))


def _rungs(repetitions: list[dict[str, Any]]) -> list[list[Any]]:
    """A row for each rung of the ladder, means over repetitions."""
    groups = np.array(repetitions[0]["groups"])
    rows = []
    for name in dict.fromkeys(groups.tolist()):
        own = groups == name
        rmse = np.mean([1e3 * np.sqrt(np.mean(np.square(one["wrong"])[own]) / 3.0) for one in repetitions])
        shares = [
            float(np.mean([one[method]["rungs"][name]["forces"][level] for one in repetitions]))
            for method in METHODS
            for level in ("coverage_68", "coverage_95")
        ]
        rows.append([name, int(own.sum()), float(rmse), *shares])
    return rows
