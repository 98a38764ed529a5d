"""What the published frames say about each claim of the paper: one number each, its interval, and a plain answer.

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

RESAMPLES = 1000
_FEWEST = 10
"""Frames below which a bootstrap interval decides nothing."""

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


def _resample(
    measure: Callable[[list[np.ndarray], list[np.ndarray]], float], groups: Sequence[int], n_seeds: Sequence[int]
) -> tuple[float, float, float]:
    """Value and interval of ``measure(seed rows, frame rows)``, both drawn with replacement."""
    rng = np.random.default_rng(0)
    value = measure([np.arange(n) for n in n_seeds], [np.arange(n) for n in groups])
    found = [
        measure([rng.integers(0, n, n) for n in n_seeds], [rng.integers(0, n, n) for n in groups])
        for _ in range(RESAMPLES)
    ]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(value), float(low), float(high)


def _claim(statement: str, measure: str, found: tuple[float, float, float], threshold: float, n: int) -> Claim:
    value, low, high = found
    answer = "supported" if low > threshold else "contradicted" if high < threshold else "not decided"
    answer = answer if n >= _FEWEST else "not decided"
    return Claim(statement, measure, value, low, high, threshold, n, answer)


def _rmse(groups: list[np.ndarray], seeds: np.ndarray, frames: list[np.ndarray]) -> float:
    """Root of the mean over seeds, groups (each counts alike) and frames of squared errors."""
    return float(np.sqrt(np.mean([group[seeds][:, own].mean() for group, own in zip(groups, frames, strict=True)])))


def _tuning_helps(arm: str, rows: Rows, zero: dict[str, Any]) -> Claim:
    tuned, before = _frames(rows, "force_squared"), _frames([zero], "force_squared")

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        return _rmse(before, np.zeros(1, int), frames) / _rmse(tuned, seeds[0], frames)

    sizes = [group.shape[1] for group in tuned]
    return _claim(
        f"fine-tuning on {arm} data lowers force errors",
        "zero-shot / fine-tuned force RMSE, all held-out groups",
        _resample(measure, sizes, [len(rows)]),
        1.0,
        sum(sizes),
    )


_KINDS = {
    "force": ("force errors", "force RMSE"),
    "offset": ("mean energy errors", "|mean energy error|"),
    "spread": ("offset-free energy errors", "energy std"),
}


def _lower(kind: str, rows: Rows, others: Rows, arm: str) -> Claim:
    """Whether the first model has lower errors on the groups of all arms."""
    key = "force_squared" if kind == "force" else "energy"
    mine, theirs = _frames(rows, key), _frames(others, key)

    def size(groups: list[np.ndarray], seeds: np.ndarray, frames: list[np.ndarray]) -> float:
        if kind == "force":
            return _rmse(groups, seeds, frames)
        drawn = [group[seeds][:, own] for group, own in zip(groups, frames, strict=True)]
        means = [np.abs(part.mean(axis=1)).mean() if kind == "offset" else part.std(axis=1).mean() for part in drawn]
        return float(np.mean(means))

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        return size(theirs, seeds[1], frames) / size(mine, seeds[0], frames)

    sizes = [group.shape[1] for group in mine]
    what, short = _KINDS[kind]
    return _claim(
        f"periodic data give lower {what} than {arm} data at equal labels",
        f"{arm} / periodic, {short}, mean over held-out groups",
        _resample(measure, sizes, [len(rows), len(others)]),
        1.0,
        sum(sizes),
    )


def _mostly_offset(name: str, rows: Rows) -> Claim:
    energies = _frames(rows, "energy")

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        drawn = [group[seeds[0]][:, own] for group, own in zip(energies, frames, strict=True)]
        mean = np.mean([np.mean(part.mean(axis=1) ** 2) for part in drawn])
        return float(mean / np.mean([np.mean(part**2) for part in drawn]))

    sizes = [group.shape[1] for group in energies]
    return _claim(
        f"energy errors of {name} are mostly a constant offset within a group",
        "mean² / RMSE² of the energy",
        _resample(measure, sizes, [len(rows)]),
        0.5,
        sum(sizes),
    )


def _extrapolation_dominates(arm: str, rows: Rows) -> Claim | None:
    squared = np.concatenate(_frames(rows, "force_squared"), axis=1)
    outside = np.concatenate(_frames(rows[:1], "extrapolates"), axis=1)[0].astype(bool)
    if outside.sum() < 2 or (~outside).sum() < 2:
        return None
    parts = [squared[:, outside], squared[:, ~outside]]

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        return _rmse(parts[:1], seeds[0], frames[:1]) / _rmse(parts[1:], seeds[0], frames[1:])

    return _claim(
        f"for {arm}, frames with contacts absent from training have the larger force errors",
        f"force RMSE of {int(outside.sum())} such frames / of the {int((~outside).sum())} others",
        _resample(measure, [part.shape[1] for part in parts], [len(rows)]),
        1.0,
        len(outside),
    )


def _naive_is_constrained(sets: dict[str, Any]) -> Claim:
    """Whether periodic frames lie further outside naive data than naive frames outside periodic data."""
    elements = list(sets["naive"]["periodic"])
    inside_naive, inside_periodic = (
        np.array([sets[chart][frames][element] for element in elements])
        for chart, frames in (("naive", "periodic"), ("periodic", "naive"))
    )

    def measure(_: list[np.ndarray], drawn: list[np.ndarray]) -> float:
        ratios = inside_naive[:, drawn[0]].mean(axis=1) / inside_periodic[:, drawn[1]].mean(axis=1)
        return float(np.exp(np.mean(np.log(ratios))))

    sizes = [inside_naive.shape[1], inside_periodic.shape[1]]
    return _claim(
        "naive data are constrained: periodic frames lie further outside them than the other way round",
        "Q of periodic frames in naive charts / the reverse, start model's features, geometric mean over elements",
        _resample(measure, sizes, []),
        1.0,
        sum(sizes),
    )


def _q_predicts(arm: str, rows: Rows, q: dict[str, list[float]]) -> Claim:
    """Spearman correlation over all test frames; Q belongs to the model of the first seed."""
    first = min(rows, key=lambda row: row["seed"])
    groups = [np.array(values) for values in q.values()]
    errors = [np.array(first["tests"][name]["frames"]["force_squared"]) for name in q]

    def measure(_: list[np.ndarray], frames: list[np.ndarray]) -> float:
        x = np.concatenate([group[own] for group, own in zip(groups, frames, strict=True)])
        y = np.concatenate([group[own] for group, own in zip(errors, frames, strict=True)])
        correlation: Any = spearmanr(x, y)
        return float(correlation.statistic) if np.ptp(x) > 0 and np.ptp(y) > 0 else np.nan

    sizes = [len(group) for group in groups]
    return _claim(
        f"Q of the {arm} model follows its force error",
        "Spearman correlation over test frames",
        _resample(measure, sizes, []),
        0.0,
        sum(sizes),
    )


def _forgets(arm: str, rows: Rows, zero: dict[str, Any]) -> Claim:
    after = [np.array([row["retained"]["frames"]["force_squared"] for row in rows], float)]
    before = [np.array([zero["retained"]["frames"]["force_squared"]], float)]

    def measure(seeds: list[np.ndarray], frames: list[np.ndarray]) -> float:
        return _rmse(after, seeds[0], frames) / _rmse(before, np.zeros(1, int), frames)

    n = after[0].shape[1]
    return _claim(
        f"fine-tuning on {arm} data forgets: force errors on MPtrj grow",
        "force RMSE on MPtrj, after / before",
        _resample(measure, [n], [len(rows)]),
        1.0,
        n,
    )
