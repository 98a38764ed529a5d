"""Which of the frames that a model samples should be labelled? Six ways at equal labels and equal MD.

Claim: labels chosen by error bars, by distance or by charts give a lower error than as many chosen at random. Published
are 5 to 13 % fewer labels (arXiv 2601.06916) and errors 3 to 10 times lower (arXiv 2605.20384).

    python -m experiments.selection --preset quick       # minutes on two cores
    python -m experiments.selection                      # 90 minutes of processor time, two cores

The embedded model is fine-tuned in rounds (``mlipjax periodic --select``) on an LiCl solution or a dimethyl ether
molecule, labelled by GFN1-xTB, and on hot silicon, labelled by Stillinger-Weber. All six arms see the same first round
of MD, train on as many labels for as many steps, and are tested on the same frames of a trajectory that the oracle
drove, one half of them at the temperature of the loop, the other at 1.5 times it. Seeds change velocities, noise, draws
and the order of frames. The same command again resumes.

The rule, written before the run. Effect: force RMSE of the last round's model over that of ``random``, the geometric
mean over seeds and systems. Smallest effect of interest: 5 % (a ratio of 0.95). Interval: bootstrap that draws seeds
and test frames of each system, the same ones for both arms; 99 % for each of the five comparisons, so that all five
hold at 95 %. Supported if one ratio is below 0.95 and its interval below 1. Contradicted if all five intervals lie
above 0.95. Anything else is not decided.

Expected (``expected.json``) of preset standard, found by the first run:

    force RMSE, diverse / random: 0.91 ± 0.15 (n = 48, 5 seeds)
    force RMSE, uncertain-diverse / random: 0.91 ± 0.2 (n = 48, 5 seeds)
    force RMSE, interval / random: 1.33 ± 0.4 (n = 48, 5 seeds)
    force RMSE, uncertain / random: 1.48 ± 0.5 (n = 48, 5 seeds)
    force RMSE, alarm / random: 1.25 ± 0.4 (n = 48, 5 seeds)

and of preset quick, guessed before any run:

    force RMSE, diverse / random: 1 ± 0.3 (n = 48, 2 seeds)
    force RMSE, uncertain / random: 1 ± 0.3 (n = 48, 2 seeds)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

SystemName = Literal["electrolyte", "ether", "silicon"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare ways to choose labels.

    Attributes:
        model: universal model: a name, a .nqx file or a saved folder.
        systems: what is simulated: "electrolyte" (47 atoms), "ether" (9) or "silicon" (16).
        seeds: runs of each arm and system.
        rounds: of each run.
        labels_per_round: labels in each.
        sample_factor: frames sampled for each that is labelled.
        steps: MD steps for each label.
        train_steps: optimiser steps of a round.
        batch_size: frames per optimiser step.
        test_frames: of each system, an even number.
        learning_rate: peak.
        workers: runs computed side by side; by default one per core, up to 4.
        dtype: precision of MD and training.
        out: folder of the run.
    """

    model: str = "universal"
    systems: tuple[SystemName, ...] = ("electrolyte", "silicon")
    seeds: int = 5
    rounds: int = 4
    labels_per_round: int = 3
    sample_factor: int = 10
    steps: int = 200
    train_steps: int = 60
    batch_size: int = 4
    test_frames: int = 24
    learning_rate: float = 1e-3
    workers: int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    out: Path = Path("runs/selection")

    def __post_init__(self) -> None:
        if len(set(self.systems)) != len(self.systems) or not self.systems:
            raise ValueError(f"--systems must be different ones, found {', '.join(self.systems) or 'none'}")
        if self.test_frames < 2 or self.test_frames % 2:
            raise ValueError(f"--test-frames must be an even number, found {self.test_frames}")


PRESETS = {
    "standard": Config(),
    "quick": Config(
        systems=("ether", "silicon"), seeds=2, rounds=3, labels_per_round=2, sample_factor=5, steps=100, train_steps=40,
    ),
    "full": Config(
        systems=("electrolyte", "ether", "silicon"), seeds=10, rounds=8, labels_per_round=5, steps=1000,
        train_steps=200, test_frames=60,
    ),
}  # fmt: skip
""""quick" is sized for minutes on two cores, "standard" for an hour, "full" for an accelerator."""
