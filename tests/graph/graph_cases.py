"""Structures that neighbour tables tend to get wrong, and comparisons with ASE."""

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from mlipjax.graph import edge_vectors
from mlipjax.system import System


def liquid(n_atoms: int = 200, length: float = 13.0, seed: int = 0) -> Atoms:
    """Disordered atoms in a cubic cell, some of them outside of it."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0.0, length, (n_atoms, 3)) + length * rng.integers(-2, 3, (n_atoms, 3))
    return Atoms(numbers=np.full(n_atoms, 8), positions=positions, cell=np.eye(3) * length, pbc=True)


def _skewed() -> Atoms:
    atoms = bulk("Si", a=5.43)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.3, 0.0], [0.0, 1.1, -0.4], [0.1, 0.0, 0.9]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def _slab(vacuum: float | None) -> Atoms:
    atoms = fcc111("Cu", (2, 1, 3), vacuum=vacuum)
    atoms.rattle(0.1, seed=2)
    return atoms


def _upright_slab() -> Atoms:
    """Non-periodic direction first, and its lattice vector neither orthogonal nor of any meaning."""
    rng = np.random.default_rng(3)
    cell = [[0.2, 0.1, 0.1], [0.3, 4.0, 0.5], [-0.4, 1.0, 3.5]]
    return Atoms("H5", positions=rng.uniform(-4.0, 6.0, (5, 3)), cell=cell, pbc=(False, True, True))


def _wire() -> Atoms:
    rng = np.random.default_rng(4)
    return Atoms("H4", positions=rng.uniform(-3.0, 3.0, (4, 3)), cell=[0, 0, 2.5], pbc=(False, False, True))


CASES: dict[str, tuple[Atoms, float]] = {
    "fcc, 1 atom": (bulk("Cu", a=3.61), 6.0),
    "skewed, 2 atoms": (_skewed(), 6.0),
    "hexagonal": (bulk("Mg"), 6.0),
    "slab": (_slab(5.0), 6.0),
    "slab without third vector": (_slab(None), 6.0),
    "upright slab": (_upright_slab(), 5.0),
    "wire": (_wire(), 5.0),
    "molecule": (molecule("CH3CH2OH"), 6.0),
    "molecule in a cell": (Atoms("N2", [[9, 9, 9], [9, 9, 10.1]], cell=[5, 5, 5]), 3.0),
    "one atom": (Atoms("He"), 4.0),
    "liquid": (liquid(), 4.5),
    "cell shorter than cutoff": (
        Atoms("H", cell=[[2.0, 0, 0], [0.7, 1.9, 0], [-0.5, 0.6, 2.1]], pbc=True),
        6.0,
    ),
}


def ase_edges(atoms: Atoms, cutoff: float) -> np.ndarray:
    """Edges ``(i, j, S)`` of ASE's neighbour list, sorted, (E, 5)."""
    first, second, shifts = neighbor_list("ijS", atoms, cutoff)
    return sorted_rows(np.column_stack([first, second, shifts]))


def table_edges(table) -> np.ndarray:
    """Edges ``(i, j, S)`` of a host table, device table or graph, sorted, (E, 5)."""
    mask = np.asarray(table.mask if hasattr(table, "mask") else table.edge_mask)
    first = np.nonzero(mask)[0]
    return sorted_rows(np.column_stack([first, np.asarray(table.neighbors)[mask], np.asarray(table.shifts)[mask]]))


def sorted_rows(edges: np.ndarray) -> np.ndarray:
    return edges[np.lexsort(edges.T[::-1])]


def assert_reversal(table) -> None:
    """``reverse`` is its own inverse, leads from (i, j, S) to (j, i, -S), and keeps unused slots in place."""
    mask = np.asarray(table.mask if hasattr(table, "mask") else table.edge_mask)
    neighbors, shifts, reverse = (np.asarray(x) for x in (table.neighbors, table.shifts, table.reverse))
    n_atoms, width = mask.shape
    own = np.arange(n_atoms * width)
    atom = own // width
    flat = reverse.ravel()
    np.testing.assert_array_equal(flat[flat], own)
    np.testing.assert_array_equal(mask.ravel()[flat], mask.ravel())
    np.testing.assert_array_equal(neighbors.ravel()[flat], atom)
    np.testing.assert_array_equal(atom[flat], neighbors.ravel())
    np.testing.assert_array_equal(shifts.reshape(-1, 3)[flat], -shifts.reshape(-1, 3))
    np.testing.assert_array_equal(flat[~mask.ravel()], own[~mask.ravel()])
    # slots in use come first
    np.testing.assert_array_equal(mask, np.arange(width) < mask.sum(axis=1, keepdims=True))


def distances(graph) -> np.ndarray:
    """(N, K) lengths of the edges, 0 in unused slots."""
    return np.linalg.norm(np.asarray(edge_vectors(graph, graph.positions, graph.cells)), axis=-1)


def system(atoms: Atoms) -> System:
    return System.from_ase(atoms)
