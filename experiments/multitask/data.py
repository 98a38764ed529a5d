"""Data of ``experiments.multitask``: properties with in- and out-of-domain tests, and structures of the force field."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.lab.embedded import read as read_pretraining
from experiments.lab.paths import PRETRAINING
from mlipjax.data import Dataset, read_dataset, split_dataset
from mlipjax.data.ood import density_split, element_split
from mlipjax.data.properties import label_property, open_properties, targets
from mlipjax.models import registry
from mlipjax.potential import Potential

_MATERIALS = ("mptrj_1k", "alexandria_1k", "mpf_tp")
_PARTS = ("train", "valid", "id_test", "ood_test")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Data on which all modes are compared.

    Attributes:
        name: of the property, with its unit.
        unit: of the property.
        train, valid, id_test, ood_test: its structures and values.
        domain: in words, what out-of-domain means.
    """

    name: str
    unit: str
    train: Dataset
    valid: Dataset
    id_test: Dataset
    ood_test: Dataset
    domain: str

    def shortened(self, n_test: int, n_valid: int) -> Bench:
        """The same with at most so many test and validation structures, drawn once and for all."""
        return dataclasses.replace(
            self,
            valid=_draw(self.valid, n_valid),
            id_test=_draw(self.id_test, n_test),
            ood_test=_draw(self.ood_test, n_test),
        )

    def training(self, n: int) -> Dataset:
        """The first ``n`` of the training structures in an order drawn once: larger sets contain smaller ones.

        Raises:
            ValueError: if there are fewer.
        """
        if n > len(self.train):
            raise ValueError(f"{n} training structures were asked for, there are {len(self.train)}.")
        order = np.random.default_rng(1).permutation(len(self.train))
        return self.train.subset(np.sort(order[:n]))


def _draw(data: Dataset, n: int) -> Dataset:
    if n >= len(data):
        return data
    return data.subset(np.sort(np.random.default_rng(2).choice(len(data), n, replace=False)))


def load_qm9_gap(cache: Path) -> Bench:
    """S3's split of the HOMO-LUMO gap of QM9, mapped from disk.

    Raises:
        FileNotFoundError: if the files are not at hand; says where they belong.
    """
    folder = registry.data_folder() / "qm9_gap"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the QM9 gaps of S3's split are not in {folder}; put train, valid, id_test and ood_test.npz there, or "
            "point MLIPJAX_DATA to their folder."
        )
    parts = {name: open_properties(folder / f"{name}.npz", "gap_hartree", cache=cache / name) for name in _PARTS}
    return Bench(
        "HOMO-LUMO gap of QM9", "Hartree", **parts, domain="gaps outside [0.1704, 0.3317] Hartree (S3's label tails)"
    )


def load_materials(potential: Potential, ood: str, largest: int) -> Bench:
    """Energy per atom beyond what composition explains, PBE(+U), of crystals.

    The label is the residual of a least-squares fit of the energy per atom to the fractions of elements, over all
    structures used: what bonding and structure add. They are those of MPtrj, Alexandria and the high-temperature set
    whose elements the model knows.

    Args:
        potential: elements.
        ood: "tail" (kernel density of the label) or symbols of elements such as "O" or "F,Cl".
        largest: atoms of the largest structure that is used.

    Raises:
        FileNotFoundError: if the structures are not at hand.
        ValueError: if a symbol is none.
    """
    from ase.data import atomic_numbers

    folder = registry.data_folder() / "materials"
    data = Dataset((), (), ())
    for name in _MATERIALS:
        data = data + read_dataset(folder / f"{name}.extxyz")
    known = set(potential.species)
    fits = [i for i, s in enumerate(data.systems) if s.n_atoms <= largest and set(map(int, s.atomic_numbers)) <= known]
    data = data.subset(fits)
    key = "energy_beyond_composition"
    everything = label_property(data.systems, key, beyond_composition(data))
    if ood == "tail":
        split = density_split(targets(everything, key), id_test=0.1, valid=0.1)
    else:
        symbols = ood.split(",")
        if unknown := [symbol for symbol in symbols if symbol not in atomic_numbers]:
            raise ValueError(f"--ood takes 'tail' or symbols of elements, found {unknown[0]!r}.")
        numbers = [np.asarray(system.atomic_numbers) for system in data.systems]
        split = element_split(numbers, [atomic_numbers[s] for s in symbols], id_test=0.1, valid=0.1)
    parts = {name: everything.subset(getattr(split, name)) for name in _PARTS}
    return Bench("energy beyond composition of crystals", "eV/atom", **parts, domain=split.description)


def beyond_composition(data: Dataset) -> np.ndarray:
    """Energy per atom minus its least-squares fit to the fractions of elements, eV/atom: (n,)."""
    numbers = [np.asarray(system.atomic_numbers) for system in data.systems]
    fractions = np.array([[np.mean(part == z) for z in data.elements] for part in numbers])
    energy = np.array([float(x.energy) / len(part) for x, part in zip(data.labels, numbers, strict=True)])
    fitted, *_ = np.linalg.lstsq(fractions, energy, rcond=None)
    return energy - fractions @ fitted


def force_field_parts(model: str, potential: Potential, largest: int) -> tuple[Dataset, Dataset, str]:
    """Structures with labels of the model's own level of theory: to replay, to test what is left, and what they are.

    The embedded model has its training set at hand; for the others it is a thousand structures of MPtrj.
    """
    if model == "universal":
        data, source = read_pretraining(PRETRAINING), "the embedded model's training set (GFN1-xTB)"
    else:
        data, source = read_dataset(registry.data_folder() / "materials" / "mptrj_1k.extxyz"), "MPtrj (PBE+U)"
    known = set(potential.species)
    small = [i for i, s in enumerate(data.systems) if 3 <= s.n_atoms <= largest and _known(s.atomic_numbers, known)]
    split = split_dataset(data.subset(small), valid=0.1, seed=0)
    return split.train, split.valid, f"{source}, structures of 3 to {largest} atoms"


def _known(numbers: Sequence[int], known: set[int]) -> bool:
    return {int(z) for z in numbers} <= known
