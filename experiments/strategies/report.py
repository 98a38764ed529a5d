"""Ratios, the front of strategies, and the answer of ``experiments.strategies``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.lab.statistics import Estimate, rmse_of_all, rmse_ratio
from mlipjax.report import Illustration, Table
from mlipjax.report.style import letter_panels, new_figure, styled

TARGET_OF_INTEREST, GROWTH_OF_INTEREST = 0.95, 0.9
"""Largest ratios to ``naive`` that would matter: of the target error, and of the growth of the retained error."""
LEVEL = 1.0 - 0.05 / 8
"""Of each interval of eight on the target: all of them hold together at 95 %."""
REPLAYS = ("replay", "pseudo-replay")
REFERENCE = "naive"

_COLUMNS = (
    "model", "strategy", "steps", "target force RMSE (meV/Å)", "/ naive", "interval", "retained force RMSE (meV/Å)",
    "growth", "interval", "/ naive", "interval", "phonons moved by (THz)", "pairs with holes", "front", "CPU s",
)  # fmt: skip


class Strategy(NamedTuple):
    """What one strategy did to one model.

    Attributes:
        target, retained: force RMSE in meV/Å, mean over seeds.
        against: target error over that of ``naive``.
        growth: of the retained error, after over before.
        growth_against: that over the growth of ``naive``.
        front: whether no other strategy has both a lower target and a lower retained error.
        row: what was stored of it.
    """

    target: float
    retained: float
    against: Estimate
    growth: Estimate
    growth_against: Estimate
    front: bool
    row: Mapping[str, Any]


def compare(model: Mapping[str, Any]) -> dict[str, Strategy]:
    """All strategies of one model against ``naive`` and against the start."""
    target = {v: [np.array(own) for own in row["target"].values()] for v, row in model["variants"].items()}
    retained = {v: [np.array(row["retained"])] for v, row in model["variants"].items()}
    before = [np.array([model["start"]["retained"]])]
    points = {v: (rmse_of_all(target[v]), rmse_of_all(retained[v])) for v in target}
    return {
        v: Strategy(
            *points[v],
            rmse_ratio(target[v], target[REFERENCE], n=4000, level=LEVEL),
            rmse_ratio(retained[v], before, n=4000),
            rmse_ratio(retained[v], retained[REFERENCE], n=4000),
            not any(a < points[v][0] and b < points[v][1] for a, b in points.values()),
            row,
        )
        for v, row in model["variants"].items()
    }


def answer(models: Mapping[str, Mapping[str, Strategy]]) -> str:
    """The answer by the rule that was written before the run."""
    others = [one for own in models.values() for v, one in own.items() if v != REFERENCE]
    replays = [own[v] for own in models.values() for v in REPLAYS if v in own]
    better = any(one.against.high < TARGET_OF_INTEREST for one in others)
    if better or any(one.growth_against.low > GROWTH_OF_INTEREST for one in replays):
        return "contradicted"
    never_better = all(one.against.low >= TARGET_OF_INTEREST for one in others)
    keeps = bool(replays) and all(one.growth_against.high < GROWTH_OF_INTEREST for one in replays)
    return "supported" if never_better and keeps else "not decided"


@styled
def front(models: Mapping[str, Mapping[str, Strategy]]) -> Figure:
    """Target error against growth of the retained one, with 95 % intervals of the growth: a panel for each model."""
    figure = new_figure(height=3.2)
    axes = figure.subplots(1, len(models), squeeze=False)[0]
    for panel, (name, own) in zip(axes, models.items(), strict=True):
        for number, (v, one) in enumerate(own.items()):
            error = [[one.growth.value - one.growth.low], [one.growth.high - one.growth.value]]
            panel.errorbar(
                one.target, one.growth.value, yerr=error, fmt="os"[not one.front], color=f"C{number}", label=v, ms=5
            )
        best = sorted((one.target, one.growth.value) for one in own.values() if one.front)
        panel.plot(*zip(*best, strict=True), color="0.7", lw=1, zorder=0)
        panel.axhline(1.0, color="0.6", ls="--", lw=0.8)
        panel.set_title(name)
        panel.set_xlabel("target force RMSE (meV/Å)")
    axes[0].set_ylabel("retained force RMSE, after / before")
    axes[-1].legend(fontsize="small")
    letter_panels(axes)
    return figure


def outcome(results: Mapping[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    models = {name: compare(model) for name, model in results["models"].items()}
    rows = [_cells(name, v, one) for name, own in models.items() for v, one in own.items()]
    seeds, caption = results["seeds"], (
        f"{seeds_of(results)}; squares: another strategy has both errors lower; line: the front; bars: 95 % intervals "
        "over seeds and structures. Dashed: nothing forgotten."
    )  # fmt: skip
    return Outcome(
        verdict=" ".join(_told(name, own, results["models"][name]["start"]) for name, own in models.items()),
        answer=answer(models),
        numbers=_numbers(models, results, seeds),
        brief=[
            brief(
                ("model", "strategy", "target", "/ naive", "retained", "growth", "front"),
                [(*row[:2], row[3], row[4], row[6], row[7], row[13]) for row in rows],
                names=2,
            )
        ],
        title="What strategies learn and what they keep",
        content={
            "front": Illustration(front(models), caption, "Target error against retained error"),
            "table": Table(
                _COLUMNS,
                rows,
                f"{seeds_of(results)}. Intervals: target over naive {100 * LEVEL:.1f} %, others 95 %. Phonons: mean "
                f"change of frequencies of Si, MgO and Al. {results['cpu_minutes']:.0f} minutes of processor time.",
            ),
        },
    )


def seeds_of(results: Mapping[str, Any]) -> str:
    """Lengths in words."""
    return f"{results['epochs']} passes over 45 frames, {results['seeds']} seeds"


def _told(name: str, own: Mapping[str, Strategy], start: Mapping[str, Any]) -> str:
    groups = list(start["target"].values()), [start["retained"]]
    zero, before = (rmse_of_all([np.array([squares]) for squares in each]) for each in groups)
    best = min(own, key=lambda v: own[v].target)
    least = min(own, key=lambda v: own[v].growth.value)
    return (
        f"{name}: target force RMSE {zero:.0f} before, lowest {best} {own[best].target:.1f} meV/Å (naive "
        f"{own[REFERENCE].target:.1f}); retained {before:.0f} before, least grown {least} {own[least].growth}, "
        f"naive {own[REFERENCE].growth}; on the front: {', '.join(v for v, one in own.items() if one.front)}."
    )


def _cells(name: str, variant: str, one: Strategy) -> list[Any]:
    row = one.row
    intervals = [(e.value, f"{e.low:.2f} to {e.high:.2f}") for e in (one.against, one.growth, one.growth_against)]
    holes = float(np.mean([len(pairs) for pairs in row["pairs_with_holes"]]))
    return [
        name, variant, row["steps"], one.target, *intervals[0], one.retained, *intervals[1], *intervals[2],
        float(np.mean(row["phonon_drift_THz"])), holes, "yes" if one.front else "", round(row["cpu_seconds"]),
    ]  # fmt: skip


def _numbers(models: Mapping[str, Mapping[str, Strategy]], results: Mapping[str, Any], seeds: int) -> dict[str, Number]:
    numbers = {}
    for name, own in models.items():
        start = results["models"][name]["start"]
        n, kept = sum(len(squares) for squares in start["target"].values()), len(start["retained"])
        for v, one in own.items():
            if v != REFERENCE:
                numbers[f"target force RMSE / naive, {name}, {v}"] = Number(one.against.value, "", n, seeds)
            numbers[f"growth of retained force RMSE, {name}, {v}"] = Number(one.growth.value, "", kept, seeds)
    return numbers
