"""Many fine-tunes as one compiled program: seeds x learning rates x decay ratios x frozen layers.

Claims: a sweep in one program (whole train states mapped over settings, sharded over the devices there are) gives what
separate runs give and is not slower on a CPU, faster on an accelerator. And a question (after arXiv 2601.08486): does
the drift of the representation after the first epoch predict the error out of domain at the end?

    python -m experiments.sweep                                       # embedded model, S0's aqueous system, a CPU core
    python -m experiments.sweep --preset full --model nequix-mp-1     # for a GPU
    python -m experiments.sweep --train T.extxyz --test I.extxyz --ood O.extxyz --model DIR

Without files of your own the frames are S0's (``MLIPJAX_DATA``; not shipped): trained on parallel zero-shot runs
(naive), tested on a held-out run of that kind (in domain) and on the rounds of the periodic arm (out of domain). The
same command again resumes after the last epoch, or says that it is done.

Expected (``expected.json``) of preset quick:

    one program, times as fast: 1.04 ± 0.15 (n = 4, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """Sweep over the numbers of a fine-tune.

    Attributes:
        model: where every run starts.
        system: S0's data, if no files are given: "liclcocl2" (in water) or "chclca".
        train, test, ood: labelled files instead, to train on and to test on in and out of domain; all three.
        seeds: orders of the batches.
        rates: learning rates.
        decays: ratios of the learning rates of neighbouring layers.
        frozen: numbers of layers from the bottom that stay as they are.
        frames: training frames.
        test_frames: frames of each test set.
        epochs: passes over the training frames.
        batch_size: frames per optimiser step.
        width: settings that go through vmap together on one device; 0 for the fastest of those measured first.
        speed_steps: steps of each timing; 0 measures nothing (then give a width).
        dtype: precision.
        out: folder of the run.
    """

    model: str = "universal"
    system: Literal["liclcocl2", "chclca"] = "liclcocl2"
    train: Path | None = None
    test: Path | None = None
    ood: Path | None = None
    seeds: tuple[int, ...] = (0, 1)
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    decays: tuple[float, ...] = (1.0, 0.5)
    frozen: tuple[int, ...] = (0, 1)
    frames: int = 8
    test_frames: int = 8
    epochs: int = 3
    batch_size: int = 1
    width: int = 0
    speed_steps: int = 2
    dtype: Literal["float32", "float64"] = "float32"
    out: Path = Path("runs/sweep")


PRESETS = {
    "quick": Config(),
    "full": Config(
        seeds=(0, 1, 2, 3), rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2), decays=(1.0, 0.75, 0.5), frozen=(0, 1, 2), frames=32,
        epochs=20, test_frames=40,
    ),
}  # fmt: skip
""""quick" is sized for two cores, "full" for an accelerator."""
