"""The parts of ``experiments.periodic``: what is computed, unit by unit, and what the report is made of."""

from __future__ import annotations

import itertools
from typing import Any

from experiments.lab.units import Results, Unit
from experiments.periodic import evaluation
from experiments.periodic.arms import ARMS, run_arm
from experiments.periodic.config import Config

_MODELS = ("zero-shot", *ARMS)


def units_of(config: Config) -> list[Unit]:
    """Everything that is computed, the long and awaited parts first.

    The oracle's trajectory is second: beside the first arm, which compiles what the others then find compiled.
    """
    first, *others = (Unit(arm, run_arm, (config, arm)) for arm in ("periodic", "naive", "single"))
    arms = [first, Unit("independent", evaluation.run_oracle, (config,)), *others]
    tests = []
    for name in _MODELS:
        home = "periodic" if name == "zero-shot" else name
        own = Unit(f"own-{name}", evaluation.run_own, (config, name), (home,))
        tests += [own, Unit(f"errors-{name}", evaluation.errors_of, (config, name), ("independent", own.name))]
    return [*arms, *tests, Unit("charts", evaluation.charts, (config,), tuple(f"own-{name}" for name in _MODELS))]


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of the units."""
    rounds = {arm: done[arm]["rounds"] for arm in ARMS}
    n_labels = config.rounds * config.labels_per_round
    return {
        "errors": [row for name in _MODELS for row in _rows(name, done[f"errors-{name}"], rounds.get(name))],
        "traces": {name: done[f"own-{name}"]["trace"] for name in _MODELS},
        "charts": done["charts"],
        "n_atoms": done["naive"]["n_atoms"],
        "histories": {arm: done[arm]["history"] for arm in ARMS},
        "labels_per_arm": n_labels,
        "labels": {
            "made": sum(row["labels"] for rows in rounds.values() for row in rows),
            "failed": sum(row["failed"] for rows in rounds.values() for row in rows)
            + sum(done[f"own-{name}"]["failed"] for name in _MODELS),
        },
        "alarms": {arm: sum(row["alarms"] or 0 for row in rows) for arm, rows in rounds.items()},
    }


def _rows(name: str, errors: dict[str, Any], rounds: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Errors of the models of an arm, each with the number of labels it has seen."""
    seen = list(itertools.accumulate(row["labels"] for row in rounds)) if rounds else [0]
    rows = [
        {"arm": name, "labels": labels, "test": "independent", **row}
        for labels, row in zip(seen, errors["independent"], strict=True)
    ]
    return [*rows, {"arm": name, "labels": seen[-1], "test": "own trajectory", **errors["own trajectory"]}]
