"""Which strategy learns a material and keeps what the model knew? Nine of them at equal frames, two models.

Claim (arXiv 2606.12704, seven strategies on five benchmarks): plain fine-tuning is best on the target, and only replay,
with true labels or with those of the frozen model, keeps what the model knew before.

    python -m experiments.strategies --preset quick       # the embedded model alone: 10 minutes on two cores
    python -m experiments.strategies                      # with nequix-mp-1, three seeds: 2 h 22 min of one core

Every strategy is what ``mlipjax finetune --strategy NAME`` gives, with its own optimiser and rate; "naive-adam" is
plain fine-tuning with Adam, because some strategies have their rates for Adam. All see the same 45 frames of the
197-atom liquid (periodic arm, PBE) as often, and keep the epoch that 5 more frames choose. Target: force RMSE on the 29
frames that the three arms hold out, each arm's group counts alike. Retained: force RMSE on structures of the model's
own level (MPtrj, or the embedded model's held-out groups), asked of the replay head where there is one; phonons of Si,
MgO and Al and holes in the short-range wall of all pairs of the liquid's elements, asked of the head that was tuned.
The frames must be at hand (``MLIPJAX_DATA``). The same command again resumes.

The rule, written before the run. Effects: target force RMSE over that of ``naive``, and growth of the retained force
RMSE over that of ``naive``. Smallest effects of interest: 5 % of the target (a ratio of 0.95), 10 % of the growth
(0.9). Intervals: bootstrap over seeds and frames, the same frames for both; 99.4 % for each of the eight comparisons on
the target, 95 % for the two of replay. Supported if, for every model, no strategy's target ratio has its interval below
0.95, and both replay strategies' growth ratios have theirs below 0.9. Contradicted if, for a model, a strategy's target
ratio has its interval below 0.95, or a replay strategy's growth ratio its interval above 0.9. Anything else is not
decided.

What would change our mind: rates tuned for each strategy on this material, longer runs (forgetting grows with them),
more replayed structures (48), and other materials: this is one liquid.

Expected (``expected.json``) of preset standard, found by the first run (guessed before it: 1.2 ± 0.3, 2 ± 0.7 and
1.2 ± 0.3):

    target force RMSE / naive, nequix-mp-1, pseudo-replay: 1.68 ± 0.25 (n = 29, 3 seeds)
    growth of retained force RMSE, nequix-mp-1, naive: 1.9 ± 0.5 (n = 100, 3 seeds)
    growth of retained force RMSE, nequix-mp-1, replay: 1.03 ± 0.05 (n = 100, 3 seeds)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

Variant = Literal[
    "naive", "naive-adam", "freeze", "llrd", "lora", "l2sp", "ewc", "replay", "pseudo-replay"
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare strategies.

    Attributes:
        models: pretrained potentials.
        variants: strategies, and "naive-adam"; "naive" is what others are compared with.
        system: published frames (``experiments.lab.s0``); the arm "periodic" is trained on.
        epochs: passes over the training frames.
        seeds: fine-tunes of each strategy and model: order of frames, adapters, generated structures.
        retained: structures of the model's own level that forgetting is measured on.
        replayed: others that "replay" trains on.
        largest: atoms of the largest of both.
        workers: fine-tunes computed side by side; by default one per core, up to 4.
        out: folder of the run.
    """

    models: tuple[str, ...] = ("universal", "nequix-mp-1")
    variants: tuple[Variant, ...] = (
        "naive", "naive-adam", "freeze", "llrd", "lora", "l2sp", "ewc", "replay", "pseudo-replay",
    )  # fmt: skip
    system: Literal["liclcocl2", "chclca"] = "chclca"
    epochs: int = 3
    seeds: int = 3
    retained: int = 100
    replayed: int = 48
    largest: int = 24
    workers: int | None = None
    out: Path = Path("runs/strategies")

    def __post_init__(self) -> None:
        if "naive" not in self.variants:
            raise ValueError(f"--variants must hold naive, which others are compared with; found {self.variants}")


PRESETS = {
    "standard": Config(),
    "quick": Config(models=("universal",), seeds=2),
    "full": Config(epochs=20, seeds=5, retained=500, replayed=400, largest=64),
}
""""standard" takes hours of two cores, "full" is for an accelerator."""
