"""Naive, periodic and single-trajectory fine-tuning of a universal model, at an equal number of labels (S0).

Claim (arXiv 2603.10159): data from parallel zero-shot trajectories are biased by the model that made them; a model
fine-tuned at intervals along one trajectory generalises better at the same number of labels.

    python -m experiments.periodic                              # embedded model, GFN1-xTB labels, 5 min on two cores
    python -m experiments.periodic --model nequix-mp-1 --oracle teacher:nequix-oam-1-pft --structure liquid.extxyz

Arms, each with rounds x labels-per-round labels:
  naive     parallel trajectories of the universal model, then one fine-tune
  periodic  one trajectory; after every round the model is fine-tuned on all labels so far and drives on
  single    one long trajectory of the universal model, then one fine-tune

Every arm is tested on an independent set (frames of a trajectory that the oracle itself drove, from other velocities)
and on a trajectory of its own. The same command again resumes, or says that it is done.

Expected (``expected.json``) of preset quick:

    force RMSE, naive / periodic: 1.06 ± 0.12 (n = 16, 1 seed)
    force RMSE, zero-shot / periodic: 1.62 ± 0.15 (n = 16, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare three ways to collect labels for a fine-tune.

    Attributes:
        model: universal model: a name, a .nqx file or a saved folder.
        oracle: labels: xtb, cp2k:cutoff=500, teacher:MODEL or ase:module:factory.
        structure: where all trajectories start; by default the embedded LiCl solution.
        rounds: rounds of the periodic arm.
        labels_per_round: labels in each.
        steps: MD steps between two labels.
        train_steps: optimiser steps of a fine-tune.
        own_frames: frames of each final model's own trajectory that are labelled for its test.
        test_frames: frames of the independent test set.
        temperature: K.
        timestep: fs.
        ensemble: of the MD.
        strategy: of the fine-tunes.
        learning_rate: peak learning rate; by default the strategy's 5e-4, and twice that for the small embedded
            model: on a published one (700 000 parameters) 1e-3 overshoots in short fine-tunes.
        batch_size: frames per optimiser step.
        e0s: "model" keeps the model's energy zero, "estimate" takes off the mean difference to the first labels; by
            default "model" for the embedded model with xTB, which share it, and "estimate" otherwise.
        on_alarm: read the charts of the labelled frames after every few steps of MD, and on an alarm: "ignore" (count
            it), "stop" (save the frame), "label" it at once and train, or "rollback" (label, train, and return to the
            last state in control). The last two end a round early, with fewer labels than the other arms. "off" reads
            none.
        workers: arms and tests computed side by side, each on a core of its own; by default one per core, up to 4.
        dtype: precision of MD and training.
        seed: of velocities, noise and the order of frames.
        out: folder of the run.
    """

    model: str = "universal"
    oracle: str = "xtb"
    structure: Path | None = None
    rounds: int = 5
    labels_per_round: int = 5
    steps: int = 100
    train_steps: int = 100
    own_frames: int = 10
    test_frames: int = 16
    temperature: float = 300.0
    timestep: float = 0.5
    ensemble: Literal["nvt", "npt", "nve"] = "nvt"
    strategy: Literal["naive", "freeze", "llrd"] = "naive"
    learning_rate: float | None = None
    batch_size: int = 5
    e0s: Literal["model", "estimate"] | None = None
    on_alarm: Literal["off", "ignore", "stop", "label", "rollback"] = "off"
    workers: int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0
    out: Path = Path("runs/periodic")

    def __post_init__(self) -> None:
        for name in ("rounds", "labels_per_round", "steps", "train_steps", "own_frames", "test_frames"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {value}")

    def resolved(self) -> Config:
        """Fill what depends on the model and was not given."""
        same_zero = self.model == "universal" and self.oracle == "xtb"
        changes: dict[str, Any] = {"e0s": self.e0s or ("model" if same_zero else "estimate")}
        if self.learning_rate is None and self.model == "universal":
            changes["learning_rate"] = 1e-3
        return dataclasses.replace(self, **changes)


PRESETS = {
    "quick": Config(),
    "full": Config(
        labels_per_round=10, steps=1000, train_steps=500, own_frames=40, test_frames=40,
    ),
}  # fmt: skip
""""quick" is sized for two cores, "full" for an accelerator."""
