"""Paths, sampling and labels of ``experiments.migration``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ase.io
import jax
import numpy as np

from experiments.migration.config import ID_PATH, Config
from mlipjax import md
from mlipjax.data import Dataset, Example
from mlipjax.md.schedule import default_chunk_steps
from mlipjax.models import registry
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Model
from mlipjax.system import System

_FOLDER = "cr_sb2te3"


@dataclasses.dataclass(frozen=True)
class MigrationPath:
    """A published path, used as geometry.

    Attributes:
        name: of the file.
        images: structures.
        candidate_eV: (P,) energies of the publication relative to the first image: unconverged, for orientation only.
        in_domain: whether the training data start on it.
    """

    name: str
    images: list[System]
    candidate_eV: np.ndarray
    in_domain: bool

    def band(self, n_images: int) -> list[System]:
        """At most ``n_images`` of the images, ends included, evenly chosen."""
        n = min(n_images, len(self.images))
        return [self.images[i] for i in np.unique(np.linspace(0, len(self.images) - 1, n).round().astype(int))]


def load_path(name: str) -> MigrationPath:
    """Read a path.

    Raises:
        FileNotFoundError: if the reference data are not at hand.
    """
    file = registry.data_folder() / _FOLDER / f"{name}.extxyz"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing: set MLIPJAX_DATA to the folder with the reference data.")
    frames: Any = ase.io.read(file, ":")
    energies = np.array([frame.info["dft_relative_energy_eV"] for frame in frames], np.float64)
    return MigrationPath(name, [System.from_ase(frame) for frame in frames], energies, name == ID_PATH)


def pristine() -> System:
    """Sb2Te3 without Cr: the hexagonal cell of three quintuple layers that the 61-atom cell is a 2 x 2 supercell of.

    Lattice constants are those of that cell, inner coordinates Sb 0.399 and Te 0.211 (space group 166).
    """
    from ase.spacegroup import crystal

    cell = np.asarray(load_path(ID_PATH).images[0].cell)
    a, c = float(np.linalg.norm(cell[0]) / 2.0), float(cell[2, 2])
    sites = [(0, 0, 0.399), (0, 0, 0.211), (0, 0, 0)]
    return System.from_ase(crystal(["Sb", "Te", "Te"], sites, spacegroup=166, cellpar=[a, a, c, 90, 90, 120]))


class Sampler:
    """Molecular dynamics with the universal model from both ends of the ID path; resumes.

    Args:
        config: of the experiment.
        model: the universal one.
    """

    def __init__(self, config: Config, model: Model) -> None:
        self.config, self.model = config, model.cast("float32")
        images = load_path(ID_PATH).images
        self.starts = {"start": images[0], "end": images[-1]}
        hottest = max(config.temperature, *config.temperatures)
        # one program for all trajectories: tables with room for displaced atoms, one length of chunks for all
        self.spec = md.VerletSpec.for_systems(_displaced(list(self.starts.values())), model.potential.cutoff)
        longest = default_chunk_steps(np.asarray(images[0].atomic_numbers), hottest, config.timestep, self.spec.skin)
        self.chunk_steps = max(n for n in range(1, min(longest, config.every) + 1) if config.every % n == 0)

    def frames(self, temperature: float, end: str, n: int, seed: int = 0) -> list[System]:
        """``n`` frames of one trajectory."""
        if n == 0:
            return []
        c = self.config
        system = self.starts[end]
        file = c.out / "md" / f"{end}-{temperature:.0f}K-{seed}.extxyz"
        file.parent.mkdir(parents=True, exist_ok=True)
        ensemble = md.make_ensemble("nvt", timestep_fs=c.timestep, temperature_K=temperature)
        md.run(
            self.model,
            md.Start(system),
            ensemble,
            n * c.every,
            key=jax.random.key(1000 * seed + int(temperature) + (end == "end")),
            trajectory=file,
            frame_every=c.every,
            checkpoint=file.with_suffix(".checkpoint"),
            spec=self.spec,
            chunk_steps=self.chunk_steps,
        )
        found: Any = ase.io.read(file, ":")
        return [dataclasses.replace(system, positions=frame.positions) for frame in found][:n]


def _displaced(systems: list[System], sigma: float = 0.2) -> list[System]:
    """Structures with atoms as far from their sites as heat moves them (``sigma`` in Å for each coordinate)."""
    rng = np.random.default_rng(0)
    return [
        dataclasses.replace(
            system, positions=np.asarray(system.positions) + sigma * rng.normal(size=(system.n_atoms, 3))
        )
        for system in systems
        for _ in range(3)
    ]


SETS = ("single", "several", "valid")
"""Names of training sets."""


def training_sets(sampler: Sampler, labeller: Labeller, config: Config) -> dict[str, Dataset]:
    """Labelled frames at one temperature, as many at several, and a validation trajectory of its own."""
    n = config.labels
    single = {(config.temperature, end): n // 2 for end in sampler.starts}
    share = _shares(n, [(t, end) for t in config.temperatures for end in sampler.starts])
    longest = {key: max(single.get(key, 0), share.get(key, 0)) for key in {*single, *share}}
    runs = {key: sampler.frames(*key, count) for key, count in longest.items()}
    valid = sampler.frames(config.temperature, "start", config.valid, seed=1)
    one, several = ({key: runs[key][:count] for key, count in part.items()} for part in (single, share))
    parts = (one, several, {(config.temperature, "valid"): valid})
    return {name: _labelled(part, labeller) for name, part in zip(SETS, parts, strict=True)}


def _shares(n: int, keys: list[tuple[float, str]]) -> dict[tuple[float, str], int]:
    """Divide ``n`` frames as evenly as possible."""
    return {key: n // len(keys) + (index < n % len(keys)) for index, key in enumerate(keys)}


def _labelled(runs: dict[tuple[float, str], list[System]], labeller: Labeller) -> Dataset:
    examples = []
    for (temperature, end), systems in runs.items():
        for system, outcome in zip(systems, labeller.label(systems), strict=True):
            if not isinstance(outcome, Failure):
                examples.append(Example(system, outcome, {"run": f"{end}-{temperature:.0f}K"}))
    return Dataset.from_examples(examples)


def thinned(data: Dataset, percent: float) -> Dataset:
    """Every trajectory's first ``percent`` of frames, at least two frames in all."""
    groups: dict[Any, list[int]] = {}
    for index, info in enumerate(data.infos):
        groups.setdefault(info["run"], []).append(index)
    chosen = [i for rows in groups.values() for i in rows[: round(len(rows) * percent / 100.0)]]
    return data.subset(chosen if len(chosen) >= 2 else range(min(2, len(data))))


def model_folder(out: Path, arm: str, seed: int) -> Path:
    """Folder of a fine-tune."""
    return out / "models" / f"{arm}-{seed}"
