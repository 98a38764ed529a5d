"""Which optimiser fine-tunes a universal potential with the fewest gradients: the defaults of ``mlipjax finetune``.

Claim: one frame per step and orthogonal steps (Muon) reach with at most 160 gradients of one frame each what four
frames per step and Adam, the defaults until then, need 980 for: 66 meV/Å on a round of the 197-atom liquid that was
held out. Rule, written before the final runs: recipes are chosen by the force RMSE on the round before the last, which
the last test does not use (``--stage choice``); the best one becomes the default if its force RMSE on the last round,
after as many frames, is lower than that of ``before`` for each of two models and two systems, with a paired 95 %
interval over seeds and frames that leaves 1 out.

    python -m experiments.defaults                     # 3 seeds, 2 models, 2 systems: 35 minutes of one quiet core
    python -m experiments.defaults --stage choice --recipes before adam muon muon-mse --models nequix-mp-1 \
        --systems chclca --epochs 2 --seeds 1 --out runs/choice       # 80 gradients of each: 80 seconds of a recipe

A step is one evaluation of the gradient on its batch: with one frame per step gradients, steps and frames are the same
number, with four frames a step costs four times as much. Learning rates go by the number of steps (warm-up over a
tenth of them, then cosine). Energies are counted from the labels' own zero (``--e0s estimate``). The published frames
must be at hand (``MLIPJAX_DATA``). Every run is kept as soon as it is done; the same command again resumes.

Expected (``expected.json``) of preset final:

    force RMSE, nequix-mp-1, chclca: 51.9 ± 5.2 meV/Å (n = 8, 3 seeds)
    force RMSE / before, nequix-mp-1, chclca: 0.63 ± 0.08 (n = 8, 3 seeds)
    force RMSE, nequix-mp-1, liclcocl2: 13.9 ± 1.4 meV/Å (n = 11, 3 seeds)
    force RMSE / before, nequix-mp-1, liclcocl2: 0.77 ± 0.08 (n = 11, 3 seeds)
    force RMSE, universal, chclca: 244 ± 24 meV/Å (n = 8, 3 seeds)
    force RMSE / before, universal, chclca: 0.54 ± 0.08 (n = 8, 3 seeds)
    force RMSE, universal, liclcocl2: 80.4 ± 8 meV/Å (n = 11, 3 seeds)
    force RMSE / before, universal, liclcocl2: 0.54 ± 0.08 (n = 11, 3 seeds)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

Stage = Literal["choice", "final"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare recipes at equal frames.

    Attributes:
        stage: "choice" holds out the last round but one and leaves the last one alone, "final" holds out the last.
        recipes: names of ``experiments.defaults.recipes.RECIPES``; the first is what others are compared with.
        models: pretrained potentials.
        systems: published frames (``experiments.lab.s0``); the arm "periodic" is used.
        epochs: passes over the training frames.
        seeds: fine-tunes of each recipe, model and system, which differ in the order of frames.
        retained: MPtrj structures of up to 24 atoms on which is measured what a model forgot (if it was trained on
            their level of theory); 0 for none.
        out: folder of the run.
        workers: processes; by default one for each core.
    """

    stage: Stage = "final"
    recipes: tuple[str, ...] = ("before", "muon")
    models: tuple[str, ...] = ("nequix-mp-1", "universal")
    systems: tuple[str, ...] = ("chclca", "liclcocl2")
    epochs: int = 3
    seeds: int = 3
    retained: int = 100
    out: Path = Path("runs/defaults")
    workers: int | None = None


PRESETS = {"final": Config()}
