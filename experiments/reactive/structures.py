"""Reactive events of ``experiments.reactive`` as pairs of structures: before and after."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, mx2
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal

from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class Event:
    """A rearrangement whose barrier is asked for.

    Attributes:
        name: short.
        what: in words, for tables.
        start, end: structures with the same atoms in the same order.
        free: (n,) atoms that may move.
        published_eV: a published DFT barrier, or ``None``: then the oracle's is the reference.
    """

    name: str
    what: str
    start: System
    end: System
    free: np.ndarray
    published_eV: float | None = None


# Lattice constant and layer thickness (Å) of the 2H monolayers (PBE), and published DFT barriers of an oxygen adatom's
# jump between neighbouring chalcogen atoms, eV.
_TMD = {
    "MoS2": (3.18, 3.13, 2.53),
    "MoSe2": (3.32, 3.34, 1.55),
    "MoTe2": (3.55, 3.61, 0.90),
    "WS2": (3.19, 3.14, 2.68),
    "WSe2": (3.32, 3.36, 1.66),
    "WTe2": (3.56, 3.63, 1.01),
}


def oxygen_on(formula: str) -> Event:
    """An oxygen adatom on a 3 x 3 monolayer, from the top of one chalcogen atom to that of its neighbour."""
    lattice, thickness, published = _TMD[formula]
    layer = mx2(formula, a=lattice, thickness=thickness, size=(3, 3, 1), vacuum=8.0)
    layer.pbc = True
    tops = np.flatnonzero(layer.positions[:, 2] > layer.positions[:, 2].mean() + 0.5)
    here = tops[0]
    there = tops[np.argsort(layer.get_distances(here, tops, mic=True))[1]]
    height = {"S": 1.49, "Se": 1.66, "Te": 1.85}[layer[here].symbol]
    ends = []
    for site in (here, there):
        atoms = layer.copy()
        hop = layer.get_distance(here, site, mic=True, vector=True) if site != here else np.zeros(3)
        atoms.append("O")
        atoms.positions[-1] = layer.positions[here] + hop + [0.0, 0.0, height]
        ends.append(atoms)
    what = f"O adatom on {formula}, jump between neighbouring {layer[here].symbol} atoms"
    return _event(f"o-{formula.lower()}", what, *ends, published=published)


def sulfur_vacancy() -> Event:
    """A sulfur atom of a 3 x 3 MoS2 monolayer jumps into the vacancy beside it."""
    layer = mx2("MoS2", a=3.18, thickness=3.13, size=(3, 3, 1), vacuum=8.0)
    layer.pbc = True
    tops = np.flatnonzero(layer.positions[:, 2] > layer.positions[:, 2].mean() + 0.5)
    hole = tops[0]
    jumper = tops[np.argsort(layer.get_distances(hole, tops, mic=True))[1]]
    start = layer.copy()
    end = layer.copy()
    end.positions[jumper] += layer.get_distance(jumper, hole, mic=True, vector=True)
    for atoms in (start, end):
        del atoms[hole]
    return _event("v-mos2", "S vacancy jump in MoS2", start, end)


def hydrogen_on_copper() -> Event:
    """H2 above a bridge of Cu(111) falls apart into the two hollows beside it; the lower layers are fixed."""
    slab = fcc111("Cu", (2, 2, 3), a=3.63, vacuum=7.0)
    slab.pbc = True
    top = slab.positions[:, 2].max()
    fixed = slab.positions[:, 2] < top - 1.0
    bridge = _site(slab, "bridge")
    hollows = [_site(slab, name) for name in ("fcc", "hcp")]
    # the pair of hollows on either side of a bridge
    cell = slab.cell.array[:2, :2]
    cells = list(itertools.product((-1, 0, 1), repeat=2))
    images = [[hollow + np.array(n) @ cell for n in cells] for hollow in hollows]
    near = [min(points, key=lambda point: float(np.linalg.norm(point - bridge))) for points in images]
    axis = (near[1] - near[0]) / np.linalg.norm(near[1] - near[0])
    start, end = slab.copy(), slab.copy()
    for sign, hollow in zip((-1.0, 1.0), near, strict=True):
        start.append("H")
        start.positions[-1] = [*(bridge + sign * 0.375 * axis), top + 3.0]
        end.append("H")
        end.positions[-1] = [*hollow, top + 0.95]
    free = np.append(~fixed, [True, True])
    return _event("h2-cu111", "H2 dissociation on Cu(111)", start, end, free=free)


def lithium_in_phosphate() -> Event:
    """A lithium ion of LiFePO4 jumps along [010] into a vacancy, in 1 x 2 x 1 cells."""
    atoms = crystal(
        ["Li", "Fe", "P", "O", "O", "O"],
        [
            (0, 0, 0), (0.2822, 0.25, 0.9747), (0.0948, 0.25, 0.4182),
            (0.0968, 0.25, 0.7428), (0.4571, 0.25, 0.2060), (0.1656, 0.0465, 0.2848),
        ],
        spacegroup=62,
        cellpar=[10.338, 6.011, 4.695, 90, 90, 90],
    ).repeat((1, 2, 1))  # fmt: skip
    ions = np.flatnonzero(atoms.numbers == 3)
    hole = ions[0]
    apart = np.array(
        [atoms.get_distance(hole, ion, mic=True, vector=True) if ion != hole else [9e9] * 3 for ion in ions]
    )
    along = np.abs(apart[:, 1]) + 10.0 * np.abs(apart[:, [0, 2]]).sum(axis=1)
    jumper = ions[np.argmin(along)]
    start, end = atoms.copy(), atoms.copy()
    end.positions[jumper] += atoms.get_distance(jumper, hole, mic=True, vector=True)
    for structure in (start, end):
        del structure[hole]
    return _event("li-lifepo4", "Li migration in LiFePO4 along [010]", start, end, published=0.27)


EVENTS: dict[str, Callable[[], Event]] = {
    **{f"o-{formula.lower()}": (lambda formula=formula: oxygen_on(formula)) for formula in _TMD},
    "v-mos2": sulfur_vacancy,
    "h2-cu111": hydrogen_on_copper,
    "li-lifepo4": lithium_in_phosphate,
}


def sodium() -> System:
    """3 x 3 x 7 cells of bcc sodium (126 atoms), whose upper half is to be melted."""
    return System.from_ase(bulk("Na", "bcc", a=4.23, cubic=True).repeat((3, 3, 7)))


def half_molten(solid: System, liquid: System, least: float = 2.8) -> System:
    """Lower half of the crystal, upper half of the melt (same cell, same number of atoms in all).

    Atoms of the melt that come too close to the crystal are taken from the contact planes last, and pushed away from
    each other and from the crystal, which stays as it is: at contacts that no training set has, a universal potential
    may well be attractive, and cannot be asked to ease them.

    Args:
        solid: crystal in an orthorhombic cell.
        liquid: melt in the same cell.
        least: Å, shortest distance of the result; those of liquid sodium are about 2.9 Å.

    Raises:
        ValueError: if there is not room enough.
    """
    height = np.asarray(solid.cell)[2, 2]
    below = np.asarray(solid.positions)[:, 2] % height < 0.5 * height - 1e-6
    crystal_part = np.asarray(solid.positions)[below]
    liquid_positions = np.asarray(liquid.positions) % np.diag(np.asarray(solid.cell))
    depth = np.minimum(liquid_positions[:, 2] - 0.5 * height, height - liquid_positions[:, 2])
    chosen = np.argsort(-depth)[: len(below) - len(crystal_part)]
    atoms = dataclasses.replace(solid, positions=np.concatenate([crystal_part, liquid_positions[chosen]])).to_ase()
    for _ in range(500):
        i, distances, vectors = neighbor_list("idD", atoms, least - 1e-3)
        if len(i) == 0:
            return dataclasses.replace(solid, positions=atoms.positions)
        push = np.zeros_like(atoms.positions)
        np.add.at(push, i, 0.5 * (distances - least)[:, None] * vectors / np.maximum(distances, 1e-9)[:, None])
        push[: len(crystal_part)] = 0.0
        atoms.positions += push
    raise ValueError(f"crystal and melt cannot be joined with all atoms {least} Å apart; use a larger cell.")


def _event(
    name: str, what: str, start: Atoms, end: Atoms, free: np.ndarray | None = None, published: float | None = None
) -> Event:
    free = np.ones(len(start), bool) if free is None else free
    return Event(name, what, System.from_ase(start), System.from_ase(end), free, published)


def _site(slab: Atoms, site: str) -> np.ndarray:
    """Lateral position of a named site."""
    probe = slab.copy()
    add_adsorbate(probe, "H", 1.0, site)
    return probe.positions[-1, :2].copy()
