"""Checks of labelled structures by themselves: elements, labels, cells, distances, forces, ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from mlipjax.data import Dataset
from mlipjax.doctor.findings import Collector, Finding
from mlipjax.graph import neighbor_table
from mlipjax.potential import Potential
from mlipjax.system import System

# Contacts further apart than this say nothing about overlaps or about bonds across a boundary.
_REACH = 3.2
_OVERLAP = 0.4
_CLOSE = 0.5
_BONDED = 1.25
_TOUCHING = 2.2
_GAP = 2.0
_VOLUME_PER_ATOM = 1.0
_NET_FORCE = 0.02
_LARGE_FORCE = 50.0
_FLOAT32 = 2.0**-24
# Geometry is looked at in this many structures of a set at most, at equal distances.
_GEOMETRIES = 1000

Datasets = Mapping[str, Dataset]


def check_structures(potential: Potential, datasets: Datasets, *, dtype: str = "float32") -> list[Finding]:
    """Run all checks that need no prediction.

    Args:
        potential: which elements it knows.
        datasets: structures and labels by the name that findings call them.
        dtype: precision of training.
    """
    findings = [*check_elements(potential, datasets), *check_labels(datasets), *check_net_forces(datasets)]
    return [*findings, *check_geometry(datasets), *check_range(datasets, dtype)]


def check_elements(potential: Potential, datasets: Datasets) -> list[Finding]:
    """Structures with elements that the potential does not know are fatal."""
    from ase.data import chemical_symbols

    known = set(potential.species)
    unknown: set[int] = set()
    frames = []
    for name, index, system in _systems(datasets):
        new = {int(z) for z in np.unique(system.atomic_numbers)} - known
        if new:
            unknown |= new
            frames.append((name, index))
    if not frames:
        return []
    symbols = ", ".join(chemical_symbols[z] for z in sorted(unknown))
    remedy = "Choose a model that knows them (mlipjax models), or remove these structures."
    return [Finding("fatal", "elements", f"the model does not know {symbols}", remedy, tuple(frames))]


def check_labels(datasets: Datasets) -> list[Finding]:
    """A set without energies and forces is fatal; one that lacks some of them is not what most users want."""
    findings = []
    for name, dataset in datasets.items():
        counts = dataset.count_labels()
        if not counts["energy"] and not counts["forces"]:
            message = f"none of {len(dataset)} structures of {name} has an energy or forces"
            findings.append(
                Finding("fatal", "labels", message, "Label them, or name the keys under which the file has them.")
            )
            continue
        for kind in ("energy", "forces", "stress"):
            missing = [i for i, labels in enumerate(dataset.labels) if not getattr(labels, f"{kind}_weight") > 0.0]
            if missing:
                periodic = any(all(dataset.systems[i].pbc) for i in missing)
                severity = "info" if kind == "stress" else "warning"
                if kind == "stress" and not periodic:
                    continue
                message = f"{len(missing)} of {len(dataset)} structures have no {kind}"
                remedy = "They are trained on their other labels only; add the labels if the code computed them."
                findings.append(Finding(severity, "labels", message, remedy, tuple((name, i) for i in missing)))
    return findings


def check_net_forces(datasets: Datasets) -> list[Finding]:
    """Forces of an isolated or periodic structure add up to zero; an invariant model cannot learn others."""
    net = Collector(
        "warning",
        "net-force",
        "forces do not add up to zero, the largest sum is {worst} eV/Å per atom",
        "Write raw forces (ASE zeroes those of constrained atoms: get_forces(apply_constraint=False)), converge them "
        "better, or subtract the mean if the code leaves a drift.",
    )
    for name, dataset in datasets.items():
        for index, (system, labels, _) in enumerate(dataset):
            if labels.forces_weight > 0.0:
                drift = float(np.linalg.norm(np.sum(labels.forces, axis=0))) / system.n_atoms
                if drift > _NET_FORCE:
                    net.add(name, index, drift, f"{drift:.3g}")
    return net.findings()


def check_geometry(datasets: Datasets) -> list[Finding]:
    """Cells that are far too small, atoms on top of each other, and periodic structures stored without periodicity."""
    cell = Collector(
        "fatal",
        "cell",
        "the cell is far too small for its atoms, down to {worst} Å^3 per atom",
        "Check the unit of the cell: it must be Å, lattice vectors as rows.",
    )
    overlap = Collector(
        "fatal",
        "distances",
        "atoms lie on top of each other, down to {worst} Å",
        "Check the unit of positions (Å) and remove broken structures.",
    )
    close = Collector(
        "warning",
        "distances",
        "atoms come closer than half the sum of their covalent radii, down to {worst} of it",
        "Fine if the short-range wall is meant to be there; otherwise remove these structures.",
    )
    open_cell = Collector(
        "fatal",
        "periodicity",
        "atoms touch their neighbours across the boundary of lattice vector {worst}, along which pbc is false",
        "Set pbc to true along the directions in which the structure goes on (for a slab at least the two in its "
        "plane); the stored flags cut it into a cluster.",
    )
    for name, index, system in _systems(datasets, _GEOMETRIES):
        if all(system.pbc) and (volume := _volume_per_atom(system)) < _VOLUME_PER_ATOM:
            cell.add(name, index, 1.0 / max(volume, 1e-12), f"{volume:.3g}")
            continue
        shortest, ratio = _shortest(system)
        if shortest < _OVERLAP:
            overlap.add(name, index, 1.0 / max(shortest, 1e-12), f"{shortest:.3g}")
        elif ratio < _CLOSE:
            close.add(name, index, 1.0 / ratio, f"{ratio:.2f}")
        cut = [axis for axis in range(3) if _is_cut(system, axis)]
        if cut:
            open_cell.add(name, index, len(cut), " and ".join(map(str, cut)))
    return [finding for kind in (cell, overlap, close, open_cell) for finding in kind.findings()]


def check_range(datasets: Datasets, dtype: str) -> list[Finding]:
    """Labels of extreme size, and coordinates that single precision cannot resolve."""
    large = Collector(
        "warning",
        "range",
        f"forces above {_LARGE_FORCE:g} eV/Å, up to {{worst}}",
        "Such structures dominate no Huber loss but teach little; remove them unless the wall is the purpose.",
    )
    far = Collector(
        "fatal",
        "range",
        f"positions as large as {{worst}} Å, where {dtype} resolves no bond",
        "Wrap the structures into their cells, or move them to the origin.",
    )
    resolution = _FLOAT32 if dtype == "float32" else 2.0**-53
    for name, dataset in datasets.items():
        for index, (system, labels, _) in enumerate(dataset):
            force = float(np.max(np.abs(labels.forces), initial=0.0)) if labels.forces_weight > 0.0 else 0.0
            if force > _LARGE_FORCE:
                large.add(name, index, force, f"{force:.3g}")
            position = float(np.max(np.abs(system.positions)))
            if resolution * position > 1e-3:
                far.add(name, index, position, f"{position:.3g}")
    return large.findings() + far.findings()


def _systems(datasets: Datasets, limit: int | None = None) -> Iterator[tuple[str, int, System]]:
    for name, dataset in datasets.items():
        n = len(dataset)
        chosen = range(n) if limit is None or n <= limit else np.linspace(0, n - 1, limit).round().astype(int)
        for index in chosen:
            yield name, int(index), dataset.systems[int(index)]


def _volume_per_atom(system: System) -> float:
    return abs(float(np.linalg.det(np.asarray(system.cell, np.float64)))) / system.n_atoms


def _contacts(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, distance over the sum of covalent radii, and lattice translation of all short contacts."""
    from ase.data import covalent_radii

    table = neighbor_table(system, _REACH, closest=0.0)
    first, slot = np.nonzero(table.mask)
    second, shifts = table.neighbors[first, slot], table.shifts[first, slot]
    positions, cell = np.asarray(system.positions, np.float64), np.asarray(system.cell, np.float64)
    distance = np.linalg.norm(positions[second] - positions[first] + shifts @ cell, axis=1)
    radii = covalent_radii[np.asarray(system.atomic_numbers)]
    return distance, distance / (radii[first] + radii[second]), shifts


def _shortest(system: System) -> tuple[float, float]:
    distance, ratio, _ = _contacts(system)
    return (float(distance.min()), float(ratio.min())) if len(distance) else (np.inf, np.inf)


def _is_cut(system: System, axis: int) -> bool:
    """Whether the structure goes on across a boundary that is stored as not periodic.

    Either bonds cross it, or atoms fill the cell up to it and touch what is beyond.
    """
    cell = np.asarray(system.cell, np.float64)
    if system.pbc[axis] or abs(np.linalg.det(cell)) < 1e-6:
        return False
    x, y, z = (flag or other == axis for other, flag in enumerate(system.pbc))
    closed = dataclasses.replace(system, pbc=(x, y, z))
    distance, ratio, shifts = _contacts(closed)
    crossing = shifts[:, axis] != 0
    if np.any(distance[crossing] < _OVERLAP):
        return False  # the cell is not that of these atoms
    # every contact is listed from both sides
    if np.sum(ratio[crossing] < _BONDED) >= 4:
        return True
    normal = np.cross(cell[axis - 2], cell[axis - 1])
    height = np.asarray(system.positions, np.float64) @ normal / np.linalg.norm(normal)
    gap = abs(np.linalg.det(cell)) / np.linalg.norm(normal) - np.ptp(height)
    return bool(gap < _GAP and np.sum(ratio[crossing] < _TOUCHING) >= 0.2 * system.n_atoms)
