"""S2: Cr migrating in Sb2Te3 as a probe of interpolation and extrapolation at once.

Claim (arXiv 2509.00090): universal, scratch and fine-tuned models all get equilibrium right; barriers tell them apart,
fine-tuning wins on migration and can lose on interlayer sliding; latent encodings do not overlap.

    python -m experiments.migration                       # three seeds; 49 CPU minutes, so about 25 on two cores
    python -m experiments.migration --preset full         # more labels, all paths in full; for a GPU
    python -m experiments.migration --oracle ase:my_dft:make_calculator

Geometry is that of the published images (``MLIPJAX_DATA``; not shipped). Reference is the *oracle*: unless the user
gives a DFT calculator it is a stronger universal model, and "error" means distance from that model, not from nature.
Training data follow S1: dynamics with the universal model from both ends of one path (61 atoms: in domain), frames
relabelled by the oracle, fine-tuned. The 81-atom paths are never seen in training (out of domain) and never pooled with
the 61-atom one. The publication's own energies are unconverged candidates, drawn for orientation only. The same command
again resumes.

Expected (``expected.json``) of preset quick:

    profile RMSE in domain, fine-tuned, several T: 238 ± 40 meV (n = 5, 3 seeds)
    profile RMSE in domain, nequix-mp-1: 414 ± 10 meV (n = 5, 1 seed)
    profile RMSE in domain, nequix-omat-1: 123 ± 10 meV (n = 5, 1 seed)
    profile RMSE in domain, scratch: 562 ± 120 meV (n = 5, 3 seeds)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

ID_PATH = "neb_61_1-4"
"""Path whose ends start the trajectories that are labelled; the others are out of domain."""

OOD_PATHS = ("neb_81_1", "neb_81_2")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare universal, fine-tuned and scratch models on migration and sliding.

    Attributes:
        model: universal model that samples and is fine-tuned.
        others: more universal models, zero-shot: names or files, or ase:module:factory (published images only).
        oracle: labels and reference: teacher:MODEL, or ase:MODULE:FACTORY for DFT.
        temperature: K, of the one-temperature arm.
        temperatures: K, of the several-temperature arm.
        labels: frames of every arm.
        valid: frames of the validation trajectory.
        every: steps between frames.
        timestep: fs.
        scratch_percent: part of the labels that the second scratch model gets.
        epochs, scratch_epochs: passes over the training frames.
        learning_rate: of fine-tunes; by default the strategy's.
        batch_size: frames per optimiser step.
        arms: which of the trained models; by default all.
        seeds: fine-tunes per arm.
        band_seeds: how many of them relax bands of their own; the others are asked for fixed-path barriers only.
        paths: published paths that are probed; the first one must be the 61-atom one.
        n_images: images of self-consistent bands, ends included (of published ones at most).
        fmax: eV/Å, of bands.
        lattice_fmax: eV/Å, of the crystal.
        max_steps: evaluations at most, of ends and of bands each.
        crystal_steps: evaluations at most, of the crystal.
        sliding_points: shifts along each vector.
        workers: processes that compute side by side; by default one per core, four at most, and one on an accelerator.
        out: folder of the run.
    """

    model: str = "nequix-mp-1"
    others: tuple[str, ...] = ("nequix-omat-1",)
    oracle: str = "teacher:nequix-oam-1-pft"
    temperature: float = 600.0
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0)
    labels: int = 16
    valid: int = 4
    every: int = 15
    timestep: float = 2.0
    scratch_percent: float = 50.0
    epochs: int = 6
    scratch_epochs: int = 12
    learning_rate: float | None = 2e-4
    batch_size: int = 4
    arms: tuple[str, ...] = ()
    seeds: int = 3
    band_seeds: int = 1
    paths: tuple[str, ...] = (ID_PATH, "neb_81_1")
    n_images: int = 5
    fmax: float = 0.1
    lattice_fmax: float = 0.03
    max_steps: int = 100
    crystal_steps: int = 60
    sliding_points: int = 5
    workers: int | None = None
    out: Path = Path("runs/migration")


PRESETS = {
    "quick": Config(),
    "full": Config(
        band_seeds=3, labels=200, epochs=60, scratch_epochs=200, n_images=10, max_steps=500, fmax=0.05,
        crystal_steps=500, sliding_points=13, paths=(ID_PATH, *OOD_PATHS), every=50,
    ),
}  # fmt: skip
""""quick" is sized for two cores, "full" for an accelerator."""
