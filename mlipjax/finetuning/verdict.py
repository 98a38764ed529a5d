"""Verdict on a periodic fine-tune for a hurried reader: how large its errors are, whether they fall, what next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mlipjax.finetuning.errors import force_errors, log_error, persistence

Trend = Literal["falling", "level", "rising", "unknown"]

_SURE = 2.0
"""Standard errors that a change of the logarithm of the error must exceed."""
_LEAST_FREEDOM = 1e-3
"""Independent differences of frames without which nothing is known of how they scatter."""


class Verdict(NamedTuple):
    """Judgement of a run.

    Attributes:
        text: in a few sentences.
        alarm: whether it is bad news.
        trend: of the force error on labels that were not seen, from the last but one round to the last.
        next: what to do.
    """

    text: str
    alarm: bool
    trend: Trend
    next: str


def judge_run(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Verdict:
    """Judge a run, also one that is not done.

    Args:
        report: its results: ``rounds``, ``labels_made``, ``labels_failed``, ``oracle``, ``settings``, ``status``.
        history: its records.
    """
    rows, status = report["rounds"], report.get("status", "done")
    if not rows:
        return Verdict(f"No frame is labelled yet ({status}).", status.startswith("stopped"), "unknown", "wait.")
    first, last = rows[0]["force_rmse_meV_per_A"], rows[-1]["force_rmse_meV_per_A"]
    parts = [] if status == "done" else [f"{status[0].upper()}{status[1:]}."]
    made, rounds = report["labels_made"], len(rows)
    labels = f"{made} label{'' if made == 1 else 's'}"
    parts.append(f"{labels} by {report['oracle']} in {rounds} round{'' if rounds == 1 else 's'}.")
    trend = find_trend(history)
    if len(rows) > 1:
        parts.append(
            f"On frames that it had not seen the force RMSE went from {_rounded(first)} (before any training) to "
            f"{_rounded(last)} meV/Å (after {rows[-1]['labels_before']} labels)."
        )
        parts.append(_TRENDS[trend])
    else:
        parts.append(f"Before training the force RMSE on its own frames was {_rounded(first)} meV/Å.")
    if (select := report.get("settings", {}).get("select", "interval")) not in ("interval", "random"):
        parts.append(f"Frames were chosen ({select}), so these are not the errors along its trajectories.")
    worst = max(enumerate(rows[-1]["systems"], 1), key=lambda pair: pair[1]["force_rmse_meV_per_A"])
    if len(rows[-1]["systems"]) > 1:
        parts.append(f"System {worst[0]} is worst ({_rounded(worst[1]['force_rmse_meV_per_A'])} meV/Å).")
    if failed := report["labels_failed"]:
        parts.append(f"{failed} labels failed and were left out.")
    if alarms := sum(row["alarms"] or 0 for row in rows):
        parts.append(f"The charts raised {alarms} alarm{'s' * (alarms > 1)}.")
    if status == "done":
        parts.append("The model of the last round was not tested on frames that it had not seen.")
    bad = bool((len(rows) > 1 and last > first) or failed or status.startswith("stopped"))
    return Verdict(" ".join(parts), bad, trend, _next(trend, status, alarms))


def find_trend(history: Sequence[Mapping[str, Any]]) -> Trend:
    """Compare the force errors of the last two rounds, as frames of all rounds scatter and correlate."""
    strata = force_errors(history)
    rounds = sorted({stratum.round for stratum in strata})[-2:]
    last = [[stratum for stratum in strata if stratum.round == number] for number in rounds]
    rho = persistence(strata)
    freedom = sum(len(stratum.squares) * (1.0 - stratum.scatter(rho)) for stratum in strata)
    few = len(last) < 2 or min(sum(len(stratum.squares) for stratum in own) for own in last) < 2
    if few or freedom < _LEAST_FREEDOM or not all(stratum.squares.any() for stratum in strata):
        return "unknown"
    variance = sum(np.sum((s.squares / s.squares.mean() - 1.0) ** 2) for s in strata) / freedom
    (before, first), (after, second) = (log_error(own, rho, variance) for own in last)
    if abs(after - before) <= _SURE * np.hypot(first, second):
        return "level"
    return "falling" if after < before else "rising"


_TRENDS = {
    "falling": "It still falls.",
    "level": "Between the last two rounds it changed by no more than frames differ by.",
    "rising": "It rose in the last round.",
    "unknown": "Too few frames were labelled to say whether it still falls.",
}


def _next(trend: Trend, status: str, alarms: int) -> str:
    if status == "running":
        return "wait."
    if status.startswith("stopped"):
        return "do what the message says, and call the same again: what is done is kept."
    if trend == "falling":
        return "more rounds: the same call with a larger number of rounds goes on."
    if trend == "rising":
        return (
            "look at the trajectory and at the losses; lower the learning rate, or take more optimiser steps a round."
        )
    if alarms:
        return "more rounds at what raised alarms, or test the model where it will be used."
    return "test the model on structures that had no part in this; more rounds if its errors there are too large."


def _rounded(value: float) -> str:
    return f"{value:.3g}" if value < 1000.0 else f"{value:.0f}"
