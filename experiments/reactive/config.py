"""S1: universal models as they come, and fine-tuned on a few labels, on reactions, jumps and growth.

Claim (arXiv 2606.23214): zero-shot, universal models miss reactive and high-barrier events, because their surfaces are
too soft; their dynamics still visit what a material needs, so that relabelling a few of the frames and fine-tuning, in
one shot or in rounds, gives the accuracy that training from scratch on as few labels does not.

    python -m experiments.reactive                       # two cores, 19 minutes
    python -m experiments.reactive --preset full         # more systems, labels and seeds; for an accelerator
    python -m experiments.reactive --model ase:my_module:make_calculator     # a further model, zero-shot

Parts, each for every model: published DFT frames of formate on Cu(110), with whole stretches of the trajectory held
out (errors, softening, and fine-tunes against labels); barriers of events on a common path and on the model's own (all
images in one batch); the S vacancy in MoS2 by the workflow of S1 (dynamics of the first model, subsample, relabel by
the oracle, fine-tune: one-shot, iterative, from scratch); growth of sodium from its melt. The oracle is the strongest
native model, not DFT: where no published number is at hand, errors are relative to it and say so. Every finished part
is kept, so the same command again resumes.

Expected (``expected.json``) of preset quick:

    formate, force MAE, one-shot, 10 labels: 64 ± 6 meV/Å (n = 23, 1 seed)
    formate, force MAE, zero-shot: 84 ± 2 meV/Å (n = 23, 1 seed)
    S vacancy, barrier, zero-shot: 1.35 ± 0.05 eV (n = 1, 1 seed)
    S vacancy, barrier, one-shot: 1.8 ± 0.06 eV (n = 1, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.reactive.structures import EVENTS
from mlipjax.models.foreign import is_foreign, refusal

NATIVE = ("nequix-mp-1", "nequix-omat-1", "nequix-oam-1-pft")


@dataclasses.dataclass(frozen=True)
class Config:
    """Universal and fine-tuned models on reactions, jumps and growth.

    Attributes:
        model: further models for the zero-shot comparison: native ones, or ase:module:factory.
        natives: native models; the first drives the dynamics and is fine-tuned, the last is the oracle.
        events: barriers to find.
        labels: frames of formate on Cu(110) to fine-tune on.
        epochs, scratch_epochs: of fine-tunes, and of training from scratch.
        seeds: of fine-tunes.
        test: held-out frames of formate, about; whole stretches of the trajectory.
        images: of a band.
        band_steps: evaluations of a band at most.
        workflow_labels: labels of the S-vacancy workflow.
        workflow_steps: MD steps they are drawn from.
        growth_steps: MD steps of the growth of sodium; 0 for none.
        surface_steps: MD steps of formate on hot copper (bond events, g(r), diffusion, spectrum); 0 for none.
        formate: whether the published frames are used (``MLIPJAX_DATA``).
        workers: processes that compute side by side; by default one per core, four at most, and one on an accelerator.
        out: folder of the run.
    """

    model: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    natives: tuple[str, ...] = NATIVE
    events: tuple[str, ...] = ("o-mos2", "v-mos2", "h2-cu111")
    labels: tuple[int, ...] = (10,)
    epochs: int = 10
    scratch_epochs: int = 16
    seeds: int = 1
    test: int = 22
    images: int = 5
    band_steps: int = 50
    workflow_labels: int = 8
    workflow_steps: int = 120
    growth_steps: int = 250
    surface_steps: int = 0
    formate: bool = True
    workers: int | None = None
    out: Path = Path("runs/reactive")

    def __post_init__(self) -> None:
        for name in self.natives:
            if is_foreign(name):
                raise refusal(name)
        if len(self.natives) < 2:
            raise ValueError(f"found natives={self.natives}; expected at least two: one to fine-tune, and the oracle.")
        if unknown := [name for name in self.events if name not in EVENTS]:
            raise ValueError(f"no event is called {', '.join(unknown)}; there are {', '.join(EVENTS)}.")


PRESETS = {
    "quick": Config(),
    "full": Config(
        events=("o-mos2", "o-mose2", "o-mote2", "o-ws2", "o-wse2", "o-wte2", "v-mos2", "h2-cu111", "li-lifepo4"),
        labels=(10, 50, 200), epochs=60, scratch_epochs=120, seeds=3, images=7, band_steps=400, workflow_labels=40,
        workflow_steps=2000, growth_steps=10_000, surface_steps=20_000,
    ),
}  # fmt: skip
""""quick" is sized for two cores, "full" for an accelerator."""
