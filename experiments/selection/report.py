"""Ratios, figures and the answer of ``experiments.selection``."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.lab.statistics import Estimate, bootstrap
from mlipjax.report import Illustration, Table, arm_styles
from mlipjax.report.representation import estimate_panels
from mlipjax.report.style import letter_panels, new_figure, shared_legend, styled

OF_INTEREST = 0.95
"""Largest ratio of errors that would matter."""
LEVEL = 0.99
"""Of each of five intervals: all of them hold together at 95 %."""
_COLUMNS = ("select", "system", "force RMSE (meV/Å)", "over random", "low", "high")
_BOTH = "all systems"


def ratio(squares: dict[str, dict[str, np.ndarray]], select: str, systems: list[str]) -> Estimate:
    """Geometric mean over seeds and systems of the last round's ratio of force RMSE, paired by seed and frame.

    Args:
        squares: by system and arm, (seeds, rounds, frames) in meV²/Å².
        select: the arm.
        systems: of which.
    """
    pairs = [(squares[name][select][:, -1], squares[name]["random"][:, -1]) for name in systems]

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        logs = [
            0.5 * np.log(first[own][:, rows].mean(axis=1) / second[own][:, rows].mean(axis=1)).mean()
            for (first, second), own, rows in zip(pairs, seeds, frames, strict=True)
        ]
        return float(np.exp(np.mean(logs)))

    n_seeds, n_frames = zip(*(first.shape for first, _ in pairs), strict=True)
    return bootstrap(measure, n_frames, n_seeds, n=4000, level=LEVEL)


def answer(ratios: dict[str, Estimate]) -> str:
    """The answer by the rule that was written before the run."""
    if any(found.value < OF_INTEREST and found.high < 1.0 for found in ratios.values()):
        return "supported"
    return "contradicted" if all(found.low > OF_INTEREST for found in ratios.values()) else "not decided"


@styled
def curves(squares: dict[str, dict[str, np.ndarray]], before: dict[str, np.ndarray]) -> Figure:
    """Force RMSE after every round, mean over seeds: a panel for each system, a line for each arm."""
    figure = new_figure(height=2.4)
    axes = figure.subplots(1, len(squares), squeeze=False)[0]
    for panel, (name, arms) in zip(axes, squares.items(), strict=True):
        for select, style in arm_styles(arms).items():
            values = [np.sqrt(before[name].mean()), *np.sqrt(arms[select].mean(axis=2)).mean(axis=0)]
            panel.plot(values, color=style.color, marker=style.marker, label=style.label)
        panel.set_title(name)
        panel.set_xlabel("rounds")
        panel.set_xticks(range(len(values)))
    axes[0].set_ylabel("force RMSE (meV/Å)")
    shared_legend(figure, axes)
    letter_panels(axes)
    return figure


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    squares = {
        name: {select: np.array(values, float) for select, values in arms.items()}
        for name, arms in results["squares"].items()
    }
    systems = list(squares)
    others = [select for select in squares[systems[0]] if select != "random"]
    n_seeds, n_rounds, n_frames = squares[systems[0]]["random"].shape
    ratios = {select: ratio(squares, select, systems) for select in others}
    each = {(select, name): ratio(squares, select, [name]) for select in others for name in systems}
    rows = [[select, _BOTH, None, *ratios[select]] for select in others]
    for name in systems:
        for select, values in squares[name].items():
            rmse = float(np.sqrt(values[:, -1].mean(axis=1)).mean())
            rows.append([select, name, rmse, *(each[select, name] if select != "random" else (1.0, None, None))])
    panels = {
        _BOTH: {select: found for select, found in ratios.items()},
        **{name: {select: each[select, name] for select in others} for name in systems},
    }
    told = ", ".join(f"{select} {one}" for select, one in ratios.items())
    best, worst = (pick(ratios, key=lambda select: ratios[select].value) for pick in (min, max))
    zero = ", ".join(f"{name} {np.sqrt(np.mean(values)):.0f}" for name, values in results["zero_shot"].items())
    verdict = (
        f"Force RMSE over that of random labels, {int(results['labels'])} labels in all, {n_seeds} seeds on "
        f"{' and '.join(systems)}, 99 % intervals over seeds and frames: {told}. Lowest is {best}, highest {worst}. "
        f"Before any label the force RMSE is {zero} meV/Å."
    )
    caption = (
        f"Last round, {n_seeds} seeds and {n_frames} test frames of each system, the same for both arms; 99 % "
        "intervals. Dashed: as good as random."
    )
    n = n_frames * len(systems)
    numbers = {f"force RMSE, {select} / random": Number(one.value, "", n, n_seeds) for select, one in ratios.items()}
    lower, one = dict.fromkeys(panels, "lower is better"), dict.fromkeys(panels, 1.0)
    spent = f"{n_rounds} rounds, {results['cpu_minutes']:.0f} minutes of processor time"
    return Outcome(
        verdict=verdict,
        answer=answer(ratios),
        numbers=numbers,
        brief=[brief(_COLUMNS, rows, ".3g", names=2)],
        title="Which frames to label",
        content={
            "ratios": Illustration(
                estimate_panels(panels, better=lower, lines=one),
                caption,
                "Force RMSE over that of random labels",
            ),
            "rounds": Illustration(
                curves(squares, {name: np.array(values) for name, values in results["zero_shot"].items()}),
                f"Means over {n_seeds} seeds of the test error after every round; round 0 is the universal model.",
                "Errors round by round",
            ),
            "table": Table(_COLUMNS, rows, f"Intervals of 99 %; {spent}."),
        },
    )
