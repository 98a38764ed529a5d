"""Train the embedded universal models: on GFN1-xTB labels, and on those of a teacher at PBE level.

Claim: a model of 30 000 parameters learns 22 elements well enough to start a fine-tune from, and runs more
than 100 MD steps/s for 50 atoms on two cores.

    python -m experiments.pretrain --preset embedded                 # as data/universal was made; hours
    python -m experiments.pretrain.distil --out runs/universal_data  # 89 elements, labelled by nequix-oam-1-pft; hours
    python -m experiments.pretrain --preset universal-pbe --out runs/universal-pbe
    python -m experiments.pretrain.judge --model runs/universal-pbe  # beside its teacher, on DFT it has never seen
    python -m experiments.pretrain --denoise-epochs 5 --out runs/denoised

Isolated-atom energies are a least-squares fit of the training energies by composition: the network then starts from
energies of some tenths of an eV per atom in molecules, liquids and crystals alike.

Preset universal-pbe is a second model, distilled from nequix-oam-1-pft for 89 elements: skip connections of every
element's own and a nuclear repulsion cost no time, and are most of its parameters. It is not finished.

Denoising (``--denoise-epochs``) is the self-supervised first stage of S3: atoms of the unlabelled structures are
displaced by Gaussian noise of width s, and the *forces* of the potential learn to point back, ``F = -noise / s^2``
up to a factor (denoising score matching, Zaidi et al., ICLR 2023, arXiv 2206.00133). No head is needed for it.

Expected (``expected.json``) of preset embedded:

    force MAE: 261 ± 40 meV/Å (n = 177, 1 seed)
    energy MAE: 117 ± 25 meV/atom (n = 177, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from experiments.lab.paths import PRETRAINING


@dataclasses.dataclass(frozen=True)
class Config:
    """Pretrain the embedded model.

    Attributes:
        data: labelled structures, as ``experiments.pretrain.data`` writes them.
        out: folder of the run; the model is in it at the end (the denoised one in ``OUT-denoise``).
        epochs: passes over the training set.
        batch_size: structures per optimiser step.
        learning_rate: peak learning rate.
        denoise_epochs: passes of coordinate denoising before the supervised training.
        denoise_sigma: width of the noise in Å.
        hidden_irreps: features between layers.
        n_layers: message-passing layers.
        lmax: highest degree of the spherical harmonics.
        cutoff: Å.
        embedding: scalars that an element is mapped to first; 0 for its one-hot vector.
        per_species_skip: whether skip connections have weights of their own for every element.
        zbl: whether a screened nuclear repulsion is added.
        seed: of the split, the parameters, the order of structures and the noise.
    """

    data: Path = PRETRAINING
    out: Path = Path("runs/pretrain")
    epochs: int = 40
    batch_size: int = 16
    learning_rate: float = 5e-3
    denoise_epochs: int = 0
    denoise_sigma: float = 0.1
    hidden_irreps: str = "32x0e + 16x1o + 8x2e"
    n_layers: int = 3
    lmax: int = 2
    cutoff: float = 4.5
    embedding: int = 0
    per_species_skip: bool = False
    zbl: bool = False
    seed: int = 0


PRESETS = {
    "standard": Config(),
    "embedded": Config(epochs=30),
    "universal-pbe": Config(
        data=Path("runs/universal_data/universal_pbe.npz"),
        out=Path("runs/universal-pbe"),
        epochs=20,
        batch_size=24,
        embedding=32,
        per_species_skip=True,
        zbl=True,
    ),
}
""""embedded" is how the embedded model was made."""
