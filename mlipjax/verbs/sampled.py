"""Structures for a teacher to label: those given, strained and rattled copies, molecular dynamics; or generated ones.

Whatever descends from one structure has its ``trajectory``: the group that the given structures name, or its place.
With fewer groups than three, which cannot be divided, every run and every copy is a group of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax import md, tree
from mlipjax.data import Dataset, Example, find_group_key, iread_atoms, read_dataset, write_store
from mlipjax.defaults import FRICTION_PER_PS
from mlipjax.finetuning.structures import element_structures
from mlipjax.graph import VerletSpec
from mlipjax.md import SimulationStopped, default_timestep, masses_of
from mlipjax.notices import notice
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Model
from mlipjax.probes.elastic import deformed
from mlipjax.settings import SamplingSettings
from mlipjax.system import Labels, System
from mlipjax.typing import Key
from mlipjax.verbs.simulate import checkpoint_of

Say = Callable[[str, int, int], None]
"""Is told of a piece of work, and how many parts of how many are done."""

GROUP = "trajectory"
_PART = 32
_LARGEST_FORCE = 50.0
"""eV/Å: atoms that are pushed harder are where no simulation goes, and their forces would be all that is learned."""
_TO_DIVIDE = 3


def generated(sampling: SamplingSettings, seed: int) -> Dataset:
    """Structures made from chemical elements alone (``element_structures``), without labels.

    Raises:
        ValueError: for no element, or one that does not exist.
    """
    from ase.data import atomic_numbers

    if strange := [symbol for symbol in sampling.elements if atomic_numbers.get(symbol, 0) < 1]:
        raise ValueError(f"{', '.join(strange)}: no such element; give symbols such as Cu (elements).")
    numbers = sorted({atomic_numbers[symbol] for symbol in sampling.elements})
    if not numbers:
        raise ValueError("structures are generated from elements; name one at least (elements).")
    systems = element_structures(numbers, sampling.generated or 12 * len(numbers), seed)
    return Dataset.from_examples(Example(system, Labels.create(system.n_atoms), {}) for system in systems)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Structures around given ones.

    Attributes:
        starts: structures given, whose labels are not looked at.
        sampling: how many and which.
        driver: of molecular dynamics; ``None`` without.
        folder: for its trajectories.
        dtype: of the driver.
        seed: of everything that is drawn.
        say: is told of progress.
    """

    starts: Dataset
    sampling: SamplingSettings
    driver: Model | None
    folder: Path
    dtype: str
    seed: int
    say: Say

    def __iter__(self) -> Iterator[tuple[System, dict[str, Any]]]:
        """Structures with ``trajectory`` and ``kind``; those on disk are read as they are asked for."""
        key = find_group_key(self.starts) or GROUP
        names = [str(info.get(key, f"structure {place}")) for place, info in enumerate(self.starts.infos)]
        alone = len(set(names)) < _TO_DIVIDE

        def told(place: int, kind: str) -> dict[str, Any]:
            return {GROUP: f"{names[place]}, {kind}" if alone else names[place], "kind": kind}

        for place, system in enumerate(self.starts.systems):
            yield system, told(place, "given")
            for copy in range(self.sampling.rattles):
                yield self._rattled(system, (place, copy)), told(place, f"rattled {copy}")
        runs = [(kelvin, run) for kelvin in self.sampling.temperatures for run in range(self.sampling.trajectories)]
        for number, (kelvin, run) in enumerate(runs):
            self.say("molecular dynamics", number, len(runs))
            # over all of the structures, however few runs there are
            place = (run * len(self.starts) // self.sampling.trajectories) % len(self.starts)
            key = jax.random.fold_in(jax.random.key(self.seed), number)
            file = self.folder / f"{kelvin:g}K-{run}.extxyz"
            for system in self._dynamics(self.starts.systems[place], kelvin, file, key):
                yield system, told(place, f"{kelvin:g} K, run {run}")

    def _rattled(self, system: System, place: tuple[int, int]) -> System:
        rng = np.random.default_rng([self.seed, *place])
        if all(system.pbc):
            strain = rng.uniform(-self.sampling.strain, self.sampling.strain, (3, 3))
            system = deformed(system, 0.5 * (strain + strain.T))
        moves = rng.normal(scale=rng.uniform(0.0, self.sampling.rattle), size=(system.n_atoms, 3))
        return dataclasses.replace(system, positions=system.positions + moves)

    @functools.cached_property
    def _specs(self) -> dict[Any, VerletSpec]:
        """Sizes of tables that hold all structures of a kind, so that one program is compiled for them."""
        assert self.driver is not None
        kinds: dict[Any, list[System]] = {}
        for system in self.starts.systems:
            kinds.setdefault(_kind(system), []).append(system)
        cutoff = self.driver.potential.cutoff
        return {kind: VerletSpec.for_systems(systems, cutoff) for kind, systems in kinds.items()}

    def _dynamics(self, system: System, kelvin: float, file: Path, key: Key) -> Iterator[System]:
        """Frames of a run, which goes on where it was stopped."""
        assert self.driver is not None
        timestep = default_timestep(system.atomic_numbers, masses_of(system))
        every = max(1, round(self.sampling.frame_spacing / timestep))
        model = self.driver._replace(params=tree.cast(self.driver.params, self.dtype))
        try:
            md.run(
                model,
                md.Start(system),
                md.make_ensemble("nvt", temperature_K=kelvin, timestep_fs=timestep, friction_per_ps=FRICTION_PER_PS),
                every * self.sampling.frames,
                key=key,
                trajectory=file,
                frame_every=every,
                checkpoint=checkpoint_of(file),
                spec=self._specs[_kind(system)],
            )
        except SimulationStopped as stopped:
            notice(f"{file.name}: {stopped} Its frames before that are labelled.")
        if file.is_file():
            yield from (System.from_ase(atoms) for atoms in iread_atoms(file))


def _kind(system: System) -> tuple[Any, ...]:
    return system.n_atoms, system.pbc, system.volume > 0.0


def label_structures(sampler: Sampler, labeller: Labeller, folder: Path) -> tuple[Dataset, int]:
    """Label structures into a folder of arrays, if it is not there yet; return it, and how many were left out.

    One part of the structures is in memory at a time. A label is kept by the labeller's store before it is used, so
    that nothing is labelled twice.

    Raises:
        ValueError: if no structure has a label.
    """
    left_out = 0

    def examples() -> Iterator[Example]:
        nonlocal left_out
        done, structures = 0, iter(sampler)
        while part := list(islice(structures, _PART)):
            for (system, info), labels in zip(part, labeller.label([system for system, _ in part]), strict=True):
                if isinstance(labels, Failure) or float(np.abs(labels.forces).max()) > _LARGEST_FORCE:
                    left_out += 1
                else:
                    yield Example(system, labels, info)
            done += len(part)
            sampler.say("labels", done, _count(sampler))

    if not folder.is_dir():
        write_store(folder, examples())
    found = read_dataset(folder)
    return found, left_out or _count(sampler) - len(found)


def _count(sampler: Sampler) -> int:
    """Structures that there will be, if no run stops early."""
    own, n = sampler.sampling, len(sampler.starts)
    return n * (1 + own.rattles) + len(own.temperatures) * own.trajectories * own.frames
