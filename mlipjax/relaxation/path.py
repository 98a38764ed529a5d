"""Paths between two structures: images without jumps across the cell, IDPP interpolation, other numbers of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mlipjax.graph import neighbor_table
from mlipjax.lattice import minimum_image
from mlipjax.system import System

_PAIR_REACH = 5.0  # Å; the weight of a pair is 1 / d^4, so that longer ones hardly count
_EXCHANGE = 1.0  # Å; an atom that moves less has not changed places
_SHORTEST = 0.5  # Å, floor of distances in weights


def check_alike(systems: Sequence[System], noun: str = "structure") -> None:
    """Raise ``ValueError`` if structures, called ``noun`` in messages, differ in elements or periodicity."""
    first = systems[0]
    for index, system in enumerate(systems):
        if not np.array_equal(system.atomic_numbers, first.atomic_numbers):
            raise ValueError(f"{noun} {index} has other atoms (or another order) than {noun} 0; they must agree.")
        if system.pbc != first.pbc:
            raise ValueError(f"{noun} {index} has pbc={system.pbc}, {noun} 0 {first.pbc}; they must agree.")


def unwrapped(systems: Sequence[System]) -> np.ndarray:
    """Return positions (P, N, 3) in Å in which no atom jumps: each image is the nearest one to its predecessor.

    Raises:
        ValueError: if there are fewer than two images, or they differ in atoms, periodicity or cell.
    """
    if len(systems) < 2:
        raise ValueError(f"found {len(systems)} image; a path needs at least its two ends.")
    first = systems[0]
    check_alike(systems, "image")
    for index, system in enumerate(systems):
        if not np.allclose(system.cell, first.cell, atol=1e-4):
            raise ValueError(f"image {index} has another cell than image 0; a band needs one cell for all images.")
    positions = [np.asarray(first.positions, np.float64)]
    for system in systems[1:]:
        step = np.asarray(system.positions, np.float64) - positions[-1]
        positions.append(positions[-1] + minimum_image(step, first.cell, first.pbc))
    return np.stack(positions)


def exchanged_atoms(path: np.ndarray, system: System) -> list[tuple[int, int]]:
    """Pairs of atoms of one element of which one ends (about) where the other began.

    On a straight path they meet half-way, or go round each other: seldom what is meant by two files that list the
    same atoms in another order.

    Args:
        path: (P, N, 3) Å without jumps.
        system: gives elements, cell and periodicity.

    Returns:
        pairs (i, j): atom i goes to the place of j, j to that of another, and so on until one takes the place of i. (A
        row of atoms that move up, the last one into a hole, exchanges nothing.)
    """
    numbers = np.asarray(system.atomic_numbers)
    start, end = path[0], path[-1]
    moved = np.flatnonzero(np.linalg.norm(end - start, axis=1) > _EXCHANGE)
    goes: dict[int, int] = {}
    for i in moved.tolist():
        others = moved[(numbers[moved] == numbers[i]) & (moved != i)]
        apart = np.linalg.norm(minimum_image(end[i] - start[others], system.cell, system.pbc), axis=1)
        if len(others) and apart.min() < 0.5 * _EXCHANGE:
            goes[i] = int(others[np.argmin(apart)])
    return [(i, j) for i, j in goes.items() if _returns(goes, i)]


def _returns(goes: dict[int, int], start: int) -> bool:
    """Return whether going from place to place leads back to the first."""
    place = goes[start]
    for _ in goes:
        if place == start or place not in goes:
            break
        place = goes[place]
    return place == start


def arc_length(path: np.ndarray) -> np.ndarray:
    """(P,) distance along a path (P, N, 3) from its first image, Å."""
    steps = np.sqrt(np.sum(np.diff(path, axis=0) ** 2, axis=(1, 2)))
    return np.concatenate([[0.0], np.cumsum(steps)])


def resampled(path: np.ndarray, n_images: int) -> np.ndarray:
    """Return ``n_images`` images evenly spaced along the polygon through a path (P, N, 3)."""
    length = arc_length(path)
    if length[-1] == 0.0:
        return np.repeat(path[:1], n_images, axis=0)
    wanted = np.linspace(0.0, length[-1], n_images)
    before = np.clip(np.searchsorted(length, wanted, side="right") - 1, 0, len(path) - 2)
    span = length[before + 1] - length[before]
    part = (wanted - length[before]) / np.where(span > 0.0, span, 1.0)
    return path[before] + part[:, None, None] * (path[before + 1] - path[before])


def idpp(path: np.ndarray, system: System, free: np.ndarray | None = None) -> np.ndarray:
    """Move the inner images so that distances between neighbouring atoms change evenly from end to end.

    Image dependent pair potential, Smidstrup et al., J. Chem. Phys. 140, 214106 (2014): every image minimises
    ``sum_ij (d_ij - target_ij)^2 / target_ij^4`` for itself, from where it is. Pairs are those within 5 Å in any
    image, periodic ones included.

    Args:
        path: (P, N, 3) Å without jumps, usually straight.
        system: gives cell and periodicity.
        free: (N, 3) 1 where a coordinate may move, 0 where it stays on the path; all may by default.
    """
    free = np.ones(path.shape[1:]) if free is None else free
    first, second, shift = _pairs(path, system)
    if len(first) == 0:
        return path.copy()

    def distances(positions: np.ndarray) -> np.ndarray:
        return np.linalg.norm(positions[second] - positions[first] + shift, axis=1)

    start, end = distances(path[0]), distances(path[-1])
    result = path.copy()
    for index in range(1, len(path) - 1):
        part = index / (len(path) - 1)
        target = (1.0 - part) * start + part * end
        weight = np.maximum(target, _SHORTEST) ** -4.0
        result[index] = _minimise(path[index], free, (first, second, shift), target, weight)
    return result


def _minimise(positions, free, pairs, target, weight) -> np.ndarray:
    first, second, shift = pairs

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        r = x.reshape(-1, 3)
        vectors = r[second] - r[first] + shift
        distance = np.maximum(np.linalg.norm(vectors, axis=1), 1e-6)
        excess = distance - target
        pull = (2.0 * weight * excess / distance)[:, None] * vectors
        gradient = np.zeros_like(r)
        np.add.at(gradient, second, pull)
        np.add.at(gradient, first, -pull)
        return float(np.sum(weight * excess**2)), (gradient * free).ravel()

    # the objective is about (0.1 Å)^2 / (3 Å)^4 for a bad image: stop at a gradient far below that
    found = minimize(objective, positions.ravel(), jac=True, method="L-BFGS-B", options={"gtol": 1e-5, "maxiter": 200})
    return found.x.reshape(-1, 3)


def _pairs(path: np.ndarray, system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j) and Cartesian shifts of j that come within reach in any image, each once."""
    rows = []
    for positions in path:
        table = neighbor_table(dataclasses.replace(system, positions=positions), _PAIR_REACH, closest=0.0)
        atom, slot = np.nonzero(table.mask)
        rows.append(np.column_stack([atom, table.neighbors[atom, slot], table.shifts[atom, slot]]))
    found = np.unique(np.concatenate(rows), axis=0)
    i, j, shifts = found[:, 0], found[:, 1], found[:, 2:]
    return i[i < j], j[i < j], (shifts @ np.asarray(system.cell, np.float64))[i < j]
