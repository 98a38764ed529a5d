"""Hessian-vector products as labels: arrays of a file, or differences of forces between displaced structures.

A structure has one probe ``v`` and the product ``H v`` of its Hessian with it. Probes are scaled to ``|v|² = 3 n``:
then the mean square of an error over atoms and components estimates that of the whole matrix, ``|ΔH|² / 3 n``, without
bias, for random probes as for atoms that are displaced in turn (Hutchinson, Commun. Stat. Simul. 18, 1059 (1989)).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlipjax.data.dataset import Dataset, Example
from mlipjax.data.labels import BadLabelError, label_value
from mlipjax.lattice import minimum_image
from mlipjax.system import Labels, System

if TYPE_CHECKING:
    from ase import Atoms

PROBE, PRODUCT = "hvp_probe", "hvp"
NAMES = frozenset({PROBE, PRODUCT})
"""Names of both in files and in ``Labels.properties``."""
LARGEST_STEP = 0.1
"""Å: atoms of two structures whose forces make a product are no further apart."""
_SMALLEST_STEP = 1e-4
_SAME_CELL = 1e-6


def product_labels(probe: np.ndarray, product: np.ndarray) -> Labels:
    """Labels of a structure of which a product alone is known.

    Args:
        probe: (n, 3) in any unit, not zero.
        product: (n, 3) eV/Å^2 times that unit.
    """
    scale = np.sqrt(probe.size) / np.linalg.norm(probe)
    return Labels.create(len(probe), properties={PROBE: scale * probe, PRODUCT: scale * product})


def read_product(atoms: Atoms, where: str, *, in_ase_units: bool = True) -> Mapping[str, np.ndarray]:
    """Return probe and product that the arrays of a structure hold, scaled.

    Args:
        atoms: the structure.
        where: file and structure, for messages.
        in_ase_units: whether its labels are in eV and Å.

    Raises:
        ValueError: if one of both is missing, is not (n, 3) finite numbers, the probe is zero, or units are others.
    """
    for missing, present in ((PROBE, PRODUCT), (PRODUCT, PROBE)):
        if missing not in atoms.arrays:
            raise ValueError(f"{where}: {present!r} without {missing!r}; a product needs both, (n, 3) each.")
    if not in_ase_units:
        raise ValueError(f"{where}: {PRODUCT!r} is read in eV/Å^2 alone; convert it, and the other labels, first.")
    try:
        probe, product = (
            label_value("forces", atoms.arrays[name], len(atoms), repr(name)) for name in (PROBE, PRODUCT)
        )
    except BadLabelError as error:
        raise ValueError(f"{where}: {error}; correct it, or remove {PROBE!r} and {PRODUCT!r}.") from None
    if not np.linalg.norm(probe) > 0.0:
        raise ValueError(f"{where}: {PROBE!r} is zero, so {PRODUCT!r} says nothing; give a probe, or leave both out.")
    return product_labels(probe, product).properties


def products_in(dataset: Dataset) -> Dataset:
    """Return the structures that have a product; maybe none."""
    return dataset.subset(index for index, labels in enumerate(dataset.labels) if PRODUCT in labels.properties)


def products_of_displacements(dataset: Dataset) -> Dataset:
    """Make products of differences of forces.

    Every structure is compared with the nearest one before it of the same atoms and cell: ``H v = -(F(r + v/2) -
    F(r - v/2))`` at the mean ``r`` of both, to second order in their distance ``v``. Plus and minus displacements, one
    structure at rest with displaced ones, and random displacements about one structure are all such sets.

    Args:
        dataset: structures with forces, in eV/Å.

    Returns:
        Structures at the means, one fewer than there are of the same atoms and cell near each other.

    Raises:
        ValueError: naming the first structure that has no forces, no other near it, or equals another.
    """
    alike: dict[bytes, list[int]] = {}
    examples: list[Example] = []
    alone: dict[int, None] = {}
    for index, (system, labels, info) in enumerate(dataset):
        if not labels.forces_weight > 0.0:
            raise ValueError(f"{dataset.where(index)}: no forces, and no {PROBE!r} and {PRODUCT!r} either; give these.")
        before = alike.setdefault(_kind(system), [])
        other, step = _nearest(system, [dataset.systems[place] for place in before])
        before.append(index)
        if other is None:
            alone[index] = None
            continue
        place = before[other]
        if np.linalg.norm(step) < _SMALLEST_STEP:
            raise ValueError(f"{dataset.where(index)}: the same as {dataset.where(place)}; leave one of them out.")
        alone.pop(place, None)
        change = np.asarray(labels.forces, np.float64) - np.asarray(dataset.labels[place].forces, np.float64)
        middle = system.replace(positions=system.positions - 0.5 * step)  # pyright: ignore[reportAttributeAccessIssue]
        examples.append(Example(middle, product_labels(step, -change), info))
    for index in alone:
        raise ValueError(
            f"{dataset.where(index)}: no other structure of its atoms and cell is within {LARGEST_STEP} Å; products "
            f"are differences of forces between displaced structures, or stand in a file as {PROBE!r} and {PRODUCT!r}."
        )
    return Dataset.from_examples(examples)


def with_products(systems: Sequence[System], probes: Iterable[np.ndarray], products: Iterable[np.ndarray]) -> Dataset:
    """Label structures with products alone."""
    pairs = zip(systems, probes, products, strict=True)
    return Dataset.from_examples(Example(system, product_labels(v, hv), {}) for system, v, hv in pairs)


def random_probes(systems: Sequence[System], seed: int) -> list[np.ndarray]:
    """Standard normal probes (n, 3) of structures, each a function of the seed and its place."""
    return [
        np.random.default_rng([seed, place]).normal(size=(system.n_atoms, 3)) for place, system in enumerate(systems)
    ]


def _kind(system: System) -> bytes:
    """Atoms and cell, equal for structures that are displaced against each other."""
    cell = np.rint(np.asarray(system.cell, np.float64) / _SAME_CELL).astype(np.int64)
    return np.asarray(system.atomic_numbers, np.int32).tobytes() + cell.tobytes() + bytes(system.pbc)


def _nearest(system: System, others: Sequence[System]) -> tuple[int | None, np.ndarray]:
    """The nearest of other structures, if one is near, and the displacements (n, 3) from there."""
    if not others:
        return None, np.zeros((0, 3))
    vectors = np.asarray(system.positions) - np.stack([np.asarray(other.positions) for other in others])
    steps = minimum_image(vectors, np.asarray(system.cell), system.pbc)
    place = int(np.argmin(np.sum(steps**2, axis=(1, 2))))
    near = bool(np.linalg.norm(steps[place], axis=1).max() <= LARGEST_STEP)
    return (place if near else None), steps[place]
