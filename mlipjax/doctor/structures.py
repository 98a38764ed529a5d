"""Labelled structures by themselves: elements, labels, cells, distances, net forces, ranges."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from mlipjax.data import Dataset, Example
from mlipjax.doctor.findings import Finding
from mlipjax.elements import covalent_radii, listed
from mlipjax.graph import neighbor_table
from mlipjax.potential import Potential
from mlipjax.system import System

# Contacts further apart than this say nothing about overlaps or about bonds across a boundary.
_REACH = 3.2
_OVERLAP, _CLOSE = 0.4, 0.5
_BONDED, _TOUCHING, _GAP = 1.25, 2.2, 2.0
_VOLUME_PER_ATOM = 1.0
_NET_FORCE, _LARGE_FORCE = 0.02, 50.0
# Å: positions that single or double precision knows no better than this hold no bonds.
_RESOLUTION = 1e-3
# Geometry is looked at in this many structures of a set at most, at equal distances.
_GEOMETRIES = 1000

Datasets = Mapping[str, Dataset]


# Ways in which a structure can be wrong: findings whose message may say ``{worst}``, without their frames.
NET_FORCE = Finding(
    "warning",
    "net-force",
    "forces do not add up to zero, the largest sum is {worst} eV/Å per atom",
    "Write raw forces (ASE zeroes those of constrained atoms: get_forces(apply_constraint=False)), converge them "
    "better, or subtract the mean if the code leaves a drift.",
)
TINY_CELL = Finding(
    "fatal",
    "cell",
    "the cell is far too small for its atoms, down to {worst} Å^3 per atom",
    "Check the unit of the cell: it must be Å, lattice vectors as rows.",
)
OVERLAP = Finding(
    "fatal",
    "distances",
    "atoms lie on top of each other, down to {worst} Å",
    "Check the unit of positions (Å) and remove broken structures.",
)
CLOSE = Finding(
    "warning",
    "distances",
    "atoms come closer than half the sum of their covalent radii, down to {worst} of it",
    "Fine if the short-range wall is meant to be there; otherwise remove these structures.",
)
CUT = Finding(
    "fatal",
    "periodicity",
    "atoms touch their neighbours across the boundary of lattice vector {worst}, along which pbc is false",
    "Set pbc to true along the directions in which the structure goes on (for a slab at least the two in its "
    "plane); the stored flags cut it into a cluster.",
)
LARGE_FORCE = Finding(
    "warning",
    "range",
    f"forces above {_LARGE_FORCE:g} eV/Å, up to {{worst}}",
    "Such structures dominate no Huber loss but teach little; remove them unless the wall is the purpose.",
)
FAR = Finding(
    "fatal",
    "range",
    "positions as large as {worst} resolves no bond",
    "Wrap the structures into their cells, or move them to the origin.",
)
HYPOTHESES = (NET_FORCE, TINY_CELL, OVERLAP, CLOSE, CUT, LARGE_FORCE, FAR)


def check_structures(potential: Potential, datasets: Datasets, *, dtype: str = "float32") -> list[Finding]:
    """Run all checks of structures and labels by themselves.

    Args:
        potential: which elements it knows.
        datasets: structures and labels by the name that findings call them.
        dtype: precision of training.
    """
    findings = [*_check_elements(potential, datasets), *_check_presence(datasets)]
    wrong: dict[Finding, list[tuple[float, str, tuple[str, int]]]] = defaultdict(list)
    for name, dataset in datasets.items():
        sampled = set(np.linspace(0, len(dataset) - 1, min(len(dataset), _GEOMETRIES)).round().astype(int).tolist())
        for index, example in enumerate(dataset):
            answers = [
                *_examine_numbers(example, dtype),
                *(_examine_geometry(example.system) if index in sampled else ()),
            ]
            for hypothesis, badness, shown in answers:
                wrong[hypothesis].append((badness, shown, (name, index)))
    for hypothesis in filter(wrong.get, HYPOTHESES):
        found = wrong[hypothesis]
        message = hypothesis.message.format(worst=max(found, key=lambda answer: answer[0])[1])
        frames = tuple(frame for _, _, frame in found)
        findings.append(hypothesis._replace(message=message, frames=frames))
    return findings


def _examine_numbers(example: Example, dtype: str) -> Iterator[tuple[Finding, float, str]]:
    """Hypotheses that hold for a structure, how badly, and the number in words: size of forces and of positions."""
    system, labels, _ = example
    if labels.forces_weight > 0.0:
        # of an isolated or periodic structure; an invariant model cannot learn others
        drift = float(np.linalg.norm(np.sum(labels.forces, axis=0))) / system.n_atoms
        force = float(np.max(np.abs(labels.forces), initial=0.0))
        if drift > _NET_FORCE:
            yield NET_FORCE, drift, f"{drift:.3g}"
        if force > _LARGE_FORCE:
            yield LARGE_FORCE, force, f"{force:.3g}"
    position = float(np.max(np.abs(system.positions)))
    if position * (2.0**-24 if dtype == "float32" else 2.0**-53) > _RESOLUTION:
        yield FAR, position, f"{position:.3g} Å, where {dtype}"


def _examine_geometry(system: System) -> Iterator[tuple[Finding, float, str]]:
    """The same of its cell, distances and boundaries."""
    volume = system.volume / system.n_atoms
    if all(system.pbc) and volume < _VOLUME_PER_ATOM:
        yield TINY_CELL, -volume, f"{volume:.3g}"
        return
    distances, ratios, _ = _contacts(system)
    distance, ratio = distances.min(initial=np.inf), ratios.min(initial=np.inf)
    if distance < _OVERLAP:
        yield OVERLAP, -distance, f"{distance:.3g}"
    elif ratio < _CLOSE:
        yield CLOSE, -ratio, f"{ratio:.2f}"
    if cut := [axis for axis in range(3) if _is_cut(system, axis)]:
        yield CUT, len(cut), " and ".join(map(str, cut))


def _check_elements(potential: Potential, datasets: Datasets) -> list[Finding]:
    """Structures with elements that the potential does not know are fatal."""
    known = set(potential.species)
    new = {
        (name, index): unknown
        for name, dataset in datasets.items()
        for index, system in enumerate(dataset.systems)
        if (unknown := set(np.asarray(system.atomic_numbers).tolist()) - known)
    }
    if not new:
        return []
    symbols = listed(sorted(set().union(*new.values())))
    remedy = "Choose a model that knows them (mlipjax models), or remove these structures."
    return [Finding("fatal", "elements", f"the model does not know {symbols}", remedy, tuple(new))]


def _check_presence(datasets: Datasets) -> list[Finding]:
    """A set without energies and forces is fatal; one that lacks some of them is not what most users want."""
    findings = []
    for name, dataset in datasets.items():
        counts = dataset.count_labels()
        if not counts["energy"] and not counts["forces"]:
            message = f"none of {len(dataset)} structures of {name} has an energy or forces"
            remedy = "Label them, or name the keys under which the file has them."
            findings.append(Finding("fatal", "labels", message, remedy))
            continue
        for kind in counts:
            missing = [i for i, labels in enumerate(dataset.labels) if not getattr(labels, f"{kind}_weight") > 0.0]
            if not missing or (kind == "stress" and not any(all(dataset.systems[i].pbc) for i in missing)):
                continue
            message = f"{len(missing)} of {len(dataset)} structures have no {kind}"
            remedy = "They are trained on their other labels only; add the labels if the code computed them."
            severity = "info" if kind == "stress" else "warning"
            findings.append(Finding(severity, "labels", message, remedy, tuple((name, i) for i in missing)))
    return findings


def _contacts(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, distance over the sum of covalent radii, and lattice translation of all short contacts."""
    table = neighbor_table(system, _REACH, closest=0.0)
    first, slot = np.nonzero(table.mask)
    second, shifts = table.neighbors[first, slot], table.shifts[first, slot]
    positions, cell = np.asarray(system.positions, np.float64), np.asarray(system.cell, np.float64)
    distance = np.linalg.norm(positions[second] - positions[first] + shifts @ cell, axis=1)
    radii = covalent_radii(system.atomic_numbers)
    return distance, distance / (radii[first] + radii[second]), shifts


def _is_cut(system: System, axis: int) -> bool:
    """Return whether the structure goes on across a boundary that is stored as not periodic.

    Either bonds cross it, or atoms fill the cell up to it and touch what is beyond.
    """
    if system.pbc[axis] or system.volume < 1e-6:
        return False
    x, y, z = (flag or other == axis for other, flag in enumerate(system.pbc))
    distance, ratio, shifts = _contacts(dataclasses.replace(system, pbc=(x, y, z)))
    crossing = shifts[:, axis] != 0
    if np.any(distance[crossing] < _OVERLAP):
        return False  # the cell is not that of these atoms
    # every contact is listed from both sides
    if np.sum(ratio[crossing] < _BONDED) >= 4:
        return True
    cell = np.asarray(system.cell, np.float64)
    normal = np.cross(cell[axis - 2], cell[axis - 1])
    height = np.asarray(system.positions, np.float64) @ normal
    gap = (system.volume - np.ptp(height)) / np.linalg.norm(normal)
    return bool(gap < _GAP and np.sum(ratio[crossing] < _TOUCHING) >= 0.2 * system.n_atoms)
