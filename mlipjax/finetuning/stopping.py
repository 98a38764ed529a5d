"""End of a periodic fine-tune: as soon as its frames prove what was asked for, looked at after every round.

A frame counts as a hit if its force error is below the limit asked for (its label was not seen by the model that
sampled it), a replica's round if the charts raised no alarm. What is to be refuted is that hits are no more frequent
than ``p0`` (one half for errors, so that the median frame is above the limit; one minus the alarm rate asked for). Of
k hits among n the likelihood ratio, averaged over all larger rates,

    e(k, n) = int_{p0}^1 (p / p0)^k ((1 - p) / (1 - p0))^(n - k) dp / (1 - p0),

has a mean of at most 1 for each of these rates, at every n and however n was chosen (Ville 1939; Robbins, Ann. Math.
Stat. 41, 1397 (1970)). Early rounds of a model that had not learned must not count for ever, so ratios that start at
each round j are averaged with weights 1 / (j (j + 1)), which keeps the bound (Shin, Ramdas & Rinaldo, arXiv
2203.03532): the run stops when the average reaches 1 / ``ERROR``, which happens wrongly with a probability of at most
``ERROR`` however often one looks. Frames that follow each other closely are not independent: of each trajectory as
many are left out as its statistical inefficiency asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from mlipjax.finetuning.errors import Stratum, force_errors, thinned
from mlipjax.settings import PeriodicSettings

ERROR = 0.05
"""Largest probability that a run is stopped although it should go on."""


def evidence(hits: Sequence[int], trials: Sequence[int], p0: float) -> float:
    """Evidence, by the end of the last round, that hits are more frequent than ``p0``; 1 is none.

    Args:
        hits: of each round.
        trials: of each round.
        p0: rate to be refuted, in (0, 1).
    """
    total = 1.0 / (len(hits) + 1)  # of starts that are still to come
    for first in range(len(hits)):
        k, n = sum(hits[first:]), sum(trials[first:])
        total += np.exp(_log_ratio(k, n, p0)) / ((first + 1) * (first + 2))
    return float(total)


def _log_ratio(k: int, n: int, p0: float) -> float:
    tail = special.betainc(n - k + 1, k + 1, 1.0 - p0)
    misses = n - k
    integral = special.betaln(k + 1, misses + 1) + np.log(max(float(tail), 1e-300))
    return float(integral - k * np.log(p0) - (misses + 1) * np.log1p(-p0))


def reason_to_stop(settings: PeriodicSettings, history: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a run may stop after its last round, in words; ``None`` if it is to go on.

    Args:
        settings: with what was asked for; all of it must hold.
        history: records of whole rounds.
    """
    rounds = sorted({record["round"] for record in history if record["stage"] == "label"})
    if not rounds or (settings.until_force_rmse is None and settings.until_alarm_rate is None):
        return None
    reasons = []
    if (limit := settings.until_force_rmse) is not None:
        strata = force_errors(history)
        independent = thinned(strata)
        of_round = [_of_round(independent, number) for number in rounds]
        hits, trials = [int((own < limit).sum()) for own in of_round], [len(own) for own in of_round]
        newest = _of_round(strata, rounds[-1])
        last = float(np.sqrt(np.mean(newest**2))) if len(newest) else np.inf
        found = evidence(hits, trials, 0.5)
        if last >= limit or found < 1.0 / ERROR:
            return None
        reasons.append(
            f"own-trajectory force RMSE {last:.3g} meV/Å, below {limit:g} (evidence {found:.3g}, {hits[-1]} of "
            f"{trials[-1]} independent frames of the last round)"
        )
    if (rate := settings.until_alarm_rate) is not None:
        calm = [_calm(history, number) for number in rounds]
        found = evidence([k for k, _ in calm], [n for _, n in calm], 1.0 - rate)
        if found < 1.0 / ERROR:
            return None
        reasons.append(f"alarm rate below {rate:g} (evidence {found:.3g})")
    return " and ".join(reasons)


def _of_round(strata: Sequence[Stratum], number: int) -> np.ndarray:
    """Force errors of a round, meV/Å."""
    return 1000.0 * np.concatenate([np.zeros(0), *(e for s in strata if s.round == number for e in s.trajectories)])


def _calm(history: Sequence[Mapping[str, Any]], number: int) -> tuple[int, int]:
    """Replicas without an alarm in a round, and all of them."""
    replicas: dict[int, int] = {}
    raised: set[tuple[int, int]] = set()
    for record in history:
        if record["stage"] == "sample" and record["round"] == number and "alarms" in record:
            system = record.get("system", 0)
            replicas[system] = len(record["temperature_K"])
            # before there are limits nothing can be an alarm: such a round proves nothing
            if not np.any(np.array(record["alarm_index"]) > 0.0):
                replicas[system] = 0
            raised |= {(system, replica) for replica in record["alarms"]}
    total = sum(replicas.values())
    return total - len(raised), total
