"""S3: a property from a pretrained potential, four ways at equal steps, inside and outside of its domain.

Claim (arXiv 2601.08486): plain fine-tuning to a property erases chemistry and costs accuracy out of domain; training
the force field along with it (mft) keeps both. Mean over eight QM9 properties, improvement over scratch, ID / OOD:
ft +17.8 / +5.6 %, lp -37.0 / +7.8 %, mft +17.3 / +17.1 %.

    python -m experiments.multitask                                       # embedded model, 20 minutes on two cores
    python -m experiments.multitask --preset standard                     # to convergence: 5 hours of processor time
    python -m experiments.multitask --model nequix-mp-1 --preset full     # for an accelerator
    python -m experiments.multitask --data materials --ood O --out runs/multitask-oxides

Every run's folder (``OUT/runs/MODE-N-SEED``) is a model: ``mlipjax compare-representations`` and ``mlipjax evaluate``
take it. At the end the features of all models are compared with the pretrained one's: does ft collapse the
representation, does mft prevent it? The property sets must be at hand (``MLIPJAX_DATA``); they are not shipped. The
same command again resumes, and adds what a folder that was finished before lacks.

The rule, written before the run of "standard". Effect: how much lower the out-of-domain MAE of mft is than that of ft,
at the largest training set, in % of the latter. Smallest effect of interest: 5 % (paper: 12). Interval: 95 %, bootstrap
over seeds and molecules, the same molecules for both. Supported if the effect is at least 5 % and its interval above 0;
contradicted if the interval is below 5 %; anything else is not decided. The answer is that of "mft"; "mft-long" is
judged alike beside it.
What would change our mind: a larger model, more properties than one, the paper's 100 000 steps at a batch of its own.

Expected (``expected.json``) of preset quick:

    OOD MAE better than scratch, ft: 20 ± 4 % (n = 1500, 3 seeds)
    OOD MAE better than scratch, mft: 3 ± 5 % (n = 1500, 3 seeds)
    OOD MAE better than scratch, lp: -7 ± 8 % (n = 1500, 3 seeds)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

Mode = Literal["scratch", "ft", "lp", "mft", "mft-long"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the modes of S3.

    Attributes:
        data: "qm9_gap" (S3's split) or "materials" (energy beyond composition of crystals).
        ood: for materials: "tail" of the label, or elements held out, such as "O" or "F,Cl".
        model: pretrained potential.
        modes: ways of training; scratch is what others are compared with. "mft" has as many optimiser steps as the
            others and spends half of them on the force field, as in the paper; "mft-long" has twice as many, so that
            all modes have as many steps of the property.
        n_train: training structures; of materials as many as there are, at most.
        curve: more sizes of the training set, for the data-efficiency curve.
        steps: optimiser steps of every run.
        seeds: runs per mode and size.
        n_test: largest number of structures in each test set.
        n_valid: of the validation set.
        batch_size: structures per property step; by default 32 molecules or 8 crystals.
        force_field_batch_size: structures per force-field step.
        largest: atoms of the largest replayed (and, for materials, any) structure.
        hidden: sizes of the head's layers.
        learning_rate: of all modes; by default S3's 1e-3.
        loss: of the force field.
        prefactors: of energies, forces and stresses: constant, or S3's moving ones (loss "mse").
        published_decay: layer-wise learning rates by S3's table, for all but lp.
        out: folder of the run.
    """

    data: Literal["qm9_gap", "materials"] = "qm9_gap"
    ood: str = "tail"
    model: str = "universal"
    modes: tuple[Mode, ...] = ("scratch", "ft", "lp", "mft")
    n_train: int = 2000
    curve: tuple[int, ...] = ()
    steps: int = 500
    seeds: int = 3
    n_test: int = 1500
    n_valid: int = 300
    batch_size: int | None = None
    force_field_batch_size: int = 8
    largest: int = 24
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float | None = None
    loss: Literal["huber", "mse"] = "huber"
    prefactors: Literal["constant", "published"] = "constant"
    published_decay: bool = False
    out: Path = Path("runs/multitask")

    def resolved(self) -> Config:
        """Fill what depends on the data and was not given."""
        size = 32 if self.data == "qm9_gap" else 8
        return dataclasses.replace(self, batch_size=size if self.batch_size is None else self.batch_size)


PRESETS = {
    "quick": Config(),
    "standard": Config(
        modes=("scratch", "ft", "lp", "mft", "mft-long"), n_train=20_000, steps=20_000, n_test=3000, n_valid=1000,
        curve=(2000,),
    ),
    "full": Config(
        n_train=20_000, steps=20_000, n_test=5000, n_valid=2000, curve=(500, 2000, 8000), largest=64,
    ),
}  # fmt: skip
""""quick" and "standard" are sized for two cores, "full" for an accelerator."""
