"""Answers of the published frames to each claim of the paper: one number each, its interval, and a plain answer.

Intervals are percentiles over resamples of whole frames within each test group and, where there are several, of
seeds. Frames of a group come from one trajectory, so the intervals are too narrow, and an answer that hangs on them
is weaker than it looks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.lab.statistics import bootstrap

RESAMPLES = 1000
_FEWEST = 10
"""Frames below which a bootstrap interval decides nothing."""

_INTEREST = 1.1
"""Smallest ratio of errors that makes one kind of data worth preferring."""

_LONG_PS = 100.0
"""The paper saw bonds change after nanoseconds; runs shorter than this cannot say that they do not."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement and what these data say.

    Attributes:
        statement: in words.
        measure: what was computed; the statement holds if it exceeds ``threshold``.
        value, low, high: with its 95 % interval.
        threshold: that separates yes from no.
        n: frames.
        answer: "supported", "contradicted" or "not decided".
    """

    statement: str
    measure: str
    value: float
    low: float
    high: float
    threshold: float
    n: int
    answer: str


Rows = Sequence[dict[str, Any]]
Drawn = list[np.ndarray]
"""Rows drawn from each group."""


def find_claims(results: dict[str, Any]) -> list[Claim]:
    """All claims that the results of a run can speak to."""
    zero, *_ = (row for row in results["rows"] if row["arm"] == "zero-shot")
    final = final_rows(results)
    claims = [_tuning_helps(arm, rows, zero) for arm, rows in final.items()]
    others = [arm for arm in final if arm != "periodic"]
    if "periodic" in final:
        for arm in others:
            claims += [_lower(kind, final["periodic"], final[arm], arm) for kind in ("force", "offset", "spread")]
    claims += [_mostly_offset(name, rows) for name, rows in {"zero-shot": [zero], **final}.items()]
    claims += [claim for arm, rows in final.items() if (claim := _extrapolation_dominates(arm, rows)) is not None]
    if {"naive", "periodic"} <= set(results["sets_q"]):
        claims.append(_naive_is_constrained(results["sets_q"]))
    claims += [
        _q_predicts(arm, rows, results["test_q"][arm]) for arm, rows in final.items() if arm in results["test_q"]
    ]
    if zero["retained"]:
        claims += [_forgets(arm, rows, zero) for arm, rows in final.items()]
    return claims


def find_runs(results: dict[str, Any]) -> list[str]:
    """In words, what the own trajectories show of unphysical bonds; they are too few for intervals."""
    sentences = []
    for name, run in results["own"].items():
        if not run["time_ps"]:
            sentences.append(f"{name} stopped before its first frame ({run['stopped']}).")
            continue
        events, start = run["events"], run["start_events"]
        changed = [
            f"{kind} {start[kind]:g} to between {min(events[kind]):g} and {max(events[kind]):g}"
            for kind in events
            if max(events[kind]) != start[kind] or min(events[kind]) != start[kind]
        ]
        what = "; ".join(changed) if changed else "no change of any counted bond"
        end = "" if run["stopped"] is None else f" It stopped: {run['stopped']}"
        sentences.append(f"{name}, {run['time_ps'][-1]:g} ps: {what}.{end}")
    longest = max((run["time_ps"][-1] for run in results["own"].values() if run["time_ps"]), default=0.0)
    if longest < _LONG_PS:
        sentences.append(
            "The paper's unphysical bonds (H-Cl below 1.6 Å, Co coordination) appeared within nanoseconds; "
            f"{longest:g} ps can neither show nor exclude them: not decided."
        )
    return sentences


def growth_by_strategy(results: dict[str, Any]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Factor by which the retained force error grows, with its interval, by strategy and arm at equal labels."""
    zero, *_ = (row for row in results["rows"] if row["arm"] == "zero-shot")
    if not zero["retained"]:
        return {}
    growth: dict[str, dict[str, tuple[float, float, float]]] = {}
    for strategy in results["strategies"]:
        growth[strategy] = {}
        for arm, rows in final_rows(results, strategy).items():
            found = _forgets(arm, rows, zero)
            growth[strategy][arm] = (found.value, found.low, found.high)
    return growth


def final_rows(results: dict[str, Any], strategy: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Rows at the common number of labels and with one strategy (the first), one for each seed, by arm."""
    first = results["strategies"][0] if strategy is None else strategy
    chosen: dict[str, list[dict[str, Any]]] = {}
    for row in results["rows"]:
        if row["labels"] == results["common"] and row["strategy"] == first:
            chosen.setdefault(row["arm"], []).append(row)
    return chosen


def _frames(rows: Rows, key: str) -> list[np.ndarray]:
    """(seeds, frames) of one quantity for each test group."""
    return [np.array([row["tests"][name]["frames"][key] for row in rows], float) for name in rows[0]["tests"]]


def _answer(value: float, low: float, high: float, threshold: float, n: int, interest: float | None = None) -> str:
    """Answer by the interval, and by the smallest effect of interest where there is one (the rule of ``config``)."""
    interest = threshold if interest is None else interest
    if n < _FEWEST:
        return "not decided"
    return "supported" if low > threshold and value > interest else "contradicted" if high < interest else "not decided"


def _claim(
    statement: str, words: str, measure: Callable[[Drawn, Drawn], float], groups: Sequence[np.ndarray],
    n_seeds: Sequence[int], threshold: float = 1.0, interest: float | None = None,
) -> Claim:  # fmt: skip
    """Resample a measure over groups of frames (their last axis) and sets of seeds, and compare it."""
    sizes = [group.shape[-1] for group in groups]
    value, low, high = bootstrap(measure, sizes, n_seeds, RESAMPLES)
    n = sum(sizes)
    return Claim(statement, words, value, low, high, threshold, n, _answer(value, low, high, threshold, n, interest))


def _drawn(groups: Sequence[np.ndarray], seeds: np.ndarray, frames: Drawn) -> list[np.ndarray]:
    return [group[seeds][:, own] for group, own in zip(groups, frames, strict=True)]


def _rmse(groups: Sequence[np.ndarray], seeds: np.ndarray, frames: Drawn) -> float:
    """Root of the mean over seeds, groups (each counts alike) and frames of squared errors."""
    return float(np.sqrt(np.mean([part.mean() for part in _drawn(groups, seeds, frames)])))


_ONE = np.zeros(1, int)


def _tuning_helps(arm: str, rows: Rows, zero: dict[str, Any]) -> Claim:
    tuned, before = _frames(rows, "force_squared"), _frames([zero], "force_squared")
    return _claim(
        f"fine-tuning on {arm} data lowers force errors",
        "zero-shot / fine-tuned force RMSE, all held-out groups",
        lambda seeds, frames: _rmse(before, _ONE, frames) / _rmse(tuned, seeds[0], frames),
        tuned,
        [len(rows)],
    )


_KINDS = {
    "force": ("force errors", "force RMSE"),
    "offset": ("mean energy errors", "|mean energy error|"),
    "spread": ("offset-free energy errors", "energy std"),
}


def _lower(kind: str, rows: Rows, others: Rows, arm: str) -> Claim:
    """Return whether the first model has lower errors on the groups of all arms."""
    key = "force_squared" if kind == "force" else "energy"
    mine, theirs = _frames(rows, key), _frames(others, key)

    def size(groups: list[np.ndarray], seeds: np.ndarray, frames: Drawn) -> float:
        if kind == "force":
            return _rmse(groups, seeds, frames)
        parts = _drawn(groups, seeds, frames)
        means = [np.abs(part.mean(axis=1)).mean() if kind == "offset" else part.std(axis=1).mean() for part in parts]
        return float(np.mean(means))

    what, short = _KINDS[kind]
    return _claim(
        f"periodic data give lower {what} than {arm} data at equal labels",
        f"{arm} / periodic, {short}, mean over held-out groups",
        lambda seeds, frames: size(theirs, seeds[1], frames) / size(mine, seeds[0], frames),
        mine,
        [len(rows), len(others)],
        interest=_INTEREST,
    )


def _mostly_offset(name: str, rows: Rows) -> Claim:
    energies = _frames(rows, "energy")

    def measure(seeds: Drawn, frames: Drawn) -> float:
        parts = _drawn(energies, seeds[0], frames)
        mean = np.mean([np.mean(part.mean(axis=1) ** 2) for part in parts])
        return float(mean / np.mean([np.mean(part**2) for part in parts]))

    statement = f"energy errors of {name} are mostly a constant offset within a group"
    return _claim(statement, "mean² / RMSE² of the energy", measure, energies, [len(rows)], 0.5)


def _extrapolation_dominates(arm: str, rows: Rows) -> Claim | None:
    squared = np.concatenate(_frames(rows, "force_squared"), axis=1)
    outside = np.concatenate(_frames(rows[:1], "extrapolates"), axis=1)[0].astype(bool)
    if outside.sum() < 2 or (~outside).sum() < 2:
        return None
    parts = [squared[:, outside], squared[:, ~outside]]
    return _claim(
        f"for {arm}, frames with contacts absent from training have the larger force errors",
        f"force RMSE of {int(outside.sum())} such frames / of the {int((~outside).sum())} others",
        lambda seeds, frames: _rmse(parts[:1], seeds[0], frames[:1]) / _rmse(parts[1:], seeds[0], frames[1:]),
        parts,
        [len(rows)],
    )


def _naive_is_constrained(sets: dict[str, Any]) -> Claim:
    """Return whether periodic frames lie further outside naive data than naive frames outside periodic data."""
    pairs = (("naive", "periodic"), ("periodic", "naive"))
    inside = [np.array(list(sets[chart][frames].values())) for chart, frames in pairs]

    def measure(_: Drawn, frames: Drawn) -> float:
        naive, periodic = (q[:, own].mean(axis=1) for q, own in zip(inside, frames, strict=True))
        return float(np.exp(np.mean(np.log(naive / periodic))))

    return _claim(
        "naive data are constrained: periodic frames lie further outside them than the other way round",
        "Q of periodic frames in naive charts / the reverse, start model's features, geometric mean over elements",
        measure,
        inside,
        [],
    )


def _q_predicts(arm: str, rows: Rows, q: dict[str, list[float]]) -> Claim:
    """Spearman correlation over all test frames; Q belongs to the model of the first seed."""
    first = min(rows, key=lambda row: row["seed"])
    groups = [np.array([q[name], first["tests"][name]["frames"]["force_squared"]]) for name in q]

    def measure(_: Drawn, frames: Drawn) -> float:
        x, y = np.concatenate([group[:, own] for group, own in zip(groups, frames, strict=True)], axis=1)
        correlation: Any = spearmanr(x, y)
        return float(correlation.statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan

    statement = f"Q of the {arm} model follows its force error"
    return _claim(statement, "Spearman correlation over test frames", measure, groups, [], 0.0)


def _forgets(arm: str, rows: Rows, zero: dict[str, Any]) -> Claim:
    after, before = ([np.array([r["retained"]["frames"]["force_squared"] for r in part])] for part in (rows, [zero]))
    return _claim(
        f"fine-tuning on {arm} data forgets: force errors on MPtrj grow",
        "force RMSE on MPtrj, after / before",
        lambda seeds, frames: _rmse(after, seeds[0], frames) / _rmse(before, _ONE, frames),
        after,
        [len(rows)],
    )
