"""Graphs of structures that come one after the other are those of a search at each of them."""

import jax
import numpy as np
import pytest
from ase import Atoms
from graph_cases import CASES, ase_edges, assert_reversal, liquid, system, table_edges

from mlipjax.graph import CoincidingAtoms, GraphBatch
from mlipjax.graph.follow import Follower

CUTOFF = 3.0


def edges(graph: GraphBatch, atoms: Atoms) -> np.ndarray:
    """Edges of a padded graph, with translations between atoms where the structure has them."""
    own = jax.tree.map(np.asarray, graph)
    n = len(atoms)
    assert not own.edge_mask[n:].any()
    positions = atoms.positions - own.positions[:n]
    lattice = np.where(np.array(atoms.pbc)[:, None], atoms.cell.array, 0.0)
    images = np.rint((positions - positions[0]) @ np.linalg.pinv(lattice)).astype(int)
    found = table_edges(own)
    shifts = found[:, 2:] + images[found[:, 0]] - images[found[:, 1]]
    return np.unique(np.concatenate([found[:, :2], shifts], axis=1), axis=0)


def walk(atoms: Atoms, steps: int, size: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        atoms.positions += size * rng.normal(size=(len(atoms), 3))
        if all(atoms.pbc):
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.001 * rng.normal(size=(3, 3))), scale_atoms=True)
        yield atoms


@pytest.mark.parametrize("name", ["skewed, 2 atoms", "slab", "upright slab", "molecule", "liquid"])
@pytest.mark.parametrize("x64", [True, False])
def test_a_structure_that_moves_has_the_edges_of_ase(name, x64):
    atoms = CASES[name][0].copy()
    follower = Follower(CUTOFF, 0, np.float64 if x64 else np.float32)
    with jax.enable_x64(x64):
        for now in walk(atoms, 40, 0.02):
            graph = follower.graph(system(now))
            if x64:
                np.testing.assert_array_equal(edges(graph, now), np.unique(ase_edges(now, CUTOFF), axis=0))
            else:  # rounding may decide on a pair at the cutoff
                assert abs(int(graph.edge_mask.sum()) - len(ase_edges(now, CUTOFF))) <= 2
            assert_reversal(graph)
    assert 2 <= follower.n_searches < 20


def test_what_is_not_the_last_structure_moved_a_little_is_searched():
    follower = Follower(CUTOFF, 0, np.float64)
    atoms = liquid(60, 9.0)
    atoms.positions += 0.01 * np.arange(60)[:, None]
    wrapped = atoms.copy()
    wrapped.wrap()
    longer = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array * 1.2, pbc=True)
    other = atoms.copy()
    other.numbers[3] = 1
    with jax.enable_x64(True):
        for now in (atoms, atoms, wrapped, wrapped, longer, other, other, atoms, longer, longer):
            graph = follower.graph(system(now))
            np.testing.assert_array_equal(edges(graph, now), np.unique(ase_edges(now, CUTOFF), axis=0))
            np.testing.assert_array_equal(graph.atomic_numbers[: len(now)], now.numbers)


def test_a_structure_that_grows_denser_gets_more_slots():
    follower = Follower(CUTOFF, 0, np.float64)
    atoms = liquid(80, 11.0)
    slots = []
    with jax.enable_x64(True):
        for _ in range(25):
            atoms.set_cell(atoms.cell.array * 0.985, scale_atoms=True)
            graph = follower.graph(system(atoms))
            slots.append(graph.neighbors.shape[1])
            np.testing.assert_array_equal(edges(graph, atoms), np.unique(ase_edges(atoms, CUTOFF), axis=0))
    assert slots[-1] > slots[0]


def test_atoms_that_come_to_coincide_are_refused():
    follower = Follower(CUTOFF, 0, np.float64)
    atoms = Atoms("O3", [[0, 0, 0], [0.3, 0, 0], [5, 0, 0]], cell=[8, 8, 8], pbc=True)
    with jax.enable_x64(True):
        follower.graph(system(atoms))
        follower.graph(system(atoms))
        atoms.positions[1, 0] = 0.12
        follower.graph(system(atoms))
        atoms.positions[1, 0] = 0.01
        with pytest.raises(CoincidingAtoms, match=r"atoms O 0 and O 1 are 0[.]01 Å apart"):
            follower.graph(system(atoms))
        atoms.positions[2, 1] = np.nan
        with pytest.raises(ValueError, match="position of atom 2 is not finite"):
            follower.graph(system(atoms))
