"""S0 on its own DFT labels: naive, periodic and single-trajectory data, fine-tuned alike at equal label counts.

Claim (arXiv 2603.10159): labels along one trajectory whose model is fine-tuned at intervals (periodic) make a better
model than as many labels from parallel zero-shot trajectories (naive), because the latter are biased.

    python -m experiments.bias                                  # 170-atom aqueous control system, two cores
    python -m experiments.bias --preset full --system chclca    # the 197-atom liquid, three seeds, for a GPU

One whole group of each arm is held out (a run, a round, the end of the trajectory) and every model is tested on all
of them. Frames that hold a contact shorter than any of that pair of elements in a model's training set are also
scored apart. What is forgotten is measured on MPtrj structures, with the isolated-atom energies of the start model.
Each arm's model is asked for Q on the other arms' frames, and drives a short NPT trajectory of its own.
The frames must be at hand (``MLIPJAX_DATA``); they are not shipped. The same command again resumes.

Expected (``expected.json``) of preset quick:

    periodic data give lower force errors than naive data at equal labels: 1.02 ± 0.05 (n = 22, 1 seed)
    fine-tuning on naive data lowers force errors: 1.31 ± 0.1 (n = 22, 1 seed)
    fine-tuning on periodic data lowers force errors: 1.34 ± 0.1 (n = 22, 1 seed)
    naive data are constrained: periodic frames lie further outside them than the other way round: 0.38 ± 0.05
      (n = 99, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

StrategyName = Literal["naive", "freeze", "llrd", "l2sp", "ewc", "lora", "pseudo-replay", "scratch"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the published data sets of S0.

    Attributes:
        system: "liclcocl2" (in water, the control) or "chclca" (in choline chloride and citric acid).
        model: where every fine-tune starts.
        strategies: of the fine-tunes (all that need no further data); the first one at all numbers of labels, the
            others at the largest number that every arm has.
        labels: numbers of labels; an arm without that many frames is left out there.
        epochs: passes over the training frames.
        learning_rate: peak learning rate; by default the preset's, in "full" the strategy's.
        seeds: fine-tunes per arm and number of labels.
        retained: MPtrj structures (of up to 40 atoms) on which forgetting is measured; 0 for none.
        md_steps: steps of 0.5 fs of each model's own NPT trajectory; 0 for none, by default the preset's.
        md_every: steps between its frames.
        test: more labelled frames to test on.
        batch_size: frames per optimiser step.
        out: folder of the run.
    """

    system: Literal["liclcocl2", "chclca"] = "liclcocl2"
    model: str = "nequix-mp-1"
    strategies: tuple[StrategyName, ...] = ("naive",)
    labels: tuple[int, ...] = (11, 33)
    epochs: int = 4
    learning_rate: float | None = 1e-4
    seeds: int = 1
    retained: int = 40
    md_steps: int = 100
    md_every: int = 5
    test: tuple[Path, ...] = ()
    batch_size: int = 2
    out: Path = Path("runs/bias")


PRESETS = {
    "quick": Config(),
    "full": Config(
        labels=(10, 21, 31, 40, 50), epochs=60, seeds=3, retained=1000,
        strategies=("naive", "freeze", "lora", "pseudo-replay"), learning_rate=None, md_steps=40_000, md_every=200,
    ),
}  # fmt: skip
""""quick" is sized for two cores, "full" for an accelerator."""
