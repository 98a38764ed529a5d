import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from graph_cases import CASES, ase_edges, assert_reversal, system, table_edges
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlipjax.graph import CoincidingAtoms, batch_graphs, coincidences, edge_vectors, neighbor_table, neighbor_tables


@pytest.mark.parametrize("name", CASES)
def test_edges_are_those_of_ase(name):
    atoms, cutoff = CASES[name]
    table = neighbor_table(system(atoms), cutoff)
    expected = ase_edges(atoms, cutoff)
    np.testing.assert_array_equal(table_edges(table), expected)
    assert table.n_edges == len(expected)
    assert table.max_count == table.mask.sum(axis=1).max()
    assert_reversal(table)


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("factor", [0.5**0.5, 1.0, 1.5**0.5, 2.0**0.5, 2.0])
def test_pairs_exactly_on_the_cutoff_fall_where_ase_puts_them(factor, cubic):
    atoms = bulk("Cu", a=3.61, cubic=cubic)
    table = neighbor_table(system(atoms), 3.61 * factor)
    np.testing.assert_array_equal(table_edges(table), ase_edges(atoms, 3.61 * factor))
    assert_reversal(table)


def test_the_cutoff_itself_is_excluded():
    dimer = system(Atoms("H2", [[0, 0, 0], [0, 0, 2.0]]))
    assert neighbor_table(dimer, 2.0).n_edges == 0
    assert neighbor_table(dimer, np.nextafter(2.0, 3.0)).n_edges == 2


def test_table_is_invariant_to_wrapping():
    atoms, cutoff = CASES["liquid"]
    wrapped = atoms.copy()
    wrapped.wrap()
    lengths = []
    for structure in (atoms, wrapped):
        table = neighbor_table(system(structure), cutoff)
        vectors = (
            structure.positions[table.neighbors] - structure.positions[:, None] + table.shifts @ structure.cell.array
        )
        lengths.append(np.sort(np.linalg.norm(vectors[table.mask], axis=-1)))
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-12)
    assert lengths[0].max() < cutoff


def test_atoms_far_apart_do_not_exhaust_memory():
    positions = np.random.default_rng(0).uniform(0.0, 1e7, (50, 3))
    positions[1] = positions[0] + [0.0, 0.0, 1.0]
    table = neighbor_table(system(Atoms("H50", positions=positions)), 5.0)
    np.testing.assert_array_equal(table_edges(table), [[0, 1, 0, 0, 0], [1, 0, 0, 0, 0]])


def test_given_width_is_kept_or_refused():
    structure = system(bulk("Cu", a=3.61))
    assert neighbor_table(structure, 3.0, n_neighbors=20).neighbors.shape == (1, 20)
    assert_reversal(neighbor_table(structure, 3.0, n_neighbors=20))
    with pytest.raises(ValueError, match=r"12 neighbours.*n_neighbors=11"):
        neighbor_table(structure, 3.0, n_neighbors=11)


@pytest.mark.parametrize(
    ("atoms", "cutoff", "message"),
    [
        (Atoms("H"), 0.0, "cutoff is 0.0"),
        (Atoms("H"), np.nan, "cutoff is nan"),
        (Atoms(), 1.0, "at least one atom"),
        (Atoms("H", [[np.nan, 0, 0]]), 1.0, "not finite"),
        (Atoms("H", pbc=True), 1.0, "pbc to False"),
        (
            Atoms("H", cell=[[1, 0, 0], [2, 0, 0], [0, 0, 1]], pbc=(True, True, False)),
            1.0,
            "linearly dependent",
        ),
    ],
)
def test_bad_input_is_refused(atoms, cutoff, message):
    with pytest.raises(ValueError, match=message):
        neighbor_table(system(atoms), cutoff)


@st.composite
def triclinic(draw):
    """Random atoms in a random cell that is not too flat, partly outside of it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, pbc = draw(st.integers(1, 6)), draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    cell = rng.normal(size=(3, 3)) * draw(st.floats(1.0, 6.0))
    volume = abs(np.linalg.det(cell))
    assume(volume > max(2.0 * count, 0.1 * np.prod(np.linalg.norm(cell, axis=1))))
    positions = rng.uniform(-1.0, 2.0, (count, 3)) @ cell
    return Atoms(numbers=np.ones(count), positions=positions, cell=cell, pbc=pbc)


@settings(max_examples=150, deadline=None)
@given(atoms=triclinic(), cutoff=st.floats(1.0, 6.0))
def test_edges_are_those_of_ase_in_random_cells(atoms, cutoff):
    table = neighbor_table(system(atoms), cutoff)
    np.testing.assert_array_equal(table_edges(table), ase_edges(atoms, cutoff))
    assert_reversal(table)


def test_vectors_point_from_an_atom_to_its_neighbour():
    atoms, cutoff = CASES["skewed, 2 atoms"]
    table = neighbor_table(system(atoms), cutoff)
    vectors = (atoms.positions[table.neighbors] - atoms.positions[:, None] + table.shifts @ atoms.cell.array)[
        table.mask
    ]
    expected = neighbor_list("D", atoms, cutoff)
    np.testing.assert_allclose(np.sort(vectors, axis=0), np.sort(expected, axis=0), atol=1e-12)
    reverse = vectors_by_slot(atoms, table)[table.reverse.ravel()]
    np.testing.assert_array_equal(reverse, -vectors_by_slot(atoms, table))


def vectors_by_slot(atoms, table):
    vectors = atoms.positions[table.neighbors] - atoms.positions[:, None] + table.shifts @ atoms.cell.array
    return np.where(table.mask[..., None], vectors, 0.0).reshape(-1, 3)


@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-3])
def test_atoms_at_one_place_are_refused_by_name(distance):
    atoms = Atoms("HCO", [[0, 0, 0], [5.0, 0.0, 0.0], [9.0 - distance, 0, 0]], cell=[9, 9, 9], pbc=True)
    with pytest.raises(CoincidingAtoms, match=f"atoms H 0 and O 2 are {distance:.3g} Å apart"):
        neighbor_table(system(atoms), 4.0)
    assert neighbor_table(system(atoms), 4.0, closest=0.0).n_edges >= 2
    good, single = Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]), Atoms("H", cell=[4, 4, 0.02], pbc=True)
    with pytest.raises(CoincidingAtoms, match="structure 1: atoms H 0"):
        list(neighbor_tables([system(good), system(atoms)], 4.0))
    found = coincidences([system(good), system(atoms), system(single)])
    assert list(found) == [1, 2]
    assert "atom H 0 and its periodic image" in found[2]


def test_atoms_that_are_merely_close_are_kept():
    assert neighbor_table(system(Atoms("H2", [[0, 0, 0], [0, 0, 0.1]])), 4.0).n_edges == 2
    assert coincidences([system(Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]))]) == {}


@pytest.mark.parametrize("name", ["skewed, 2 atoms", "upright slab", "wire", "molecule", "cell shorter than cutoff"])
def test_batches_do_not_depend_on_which_images_a_structure_names(name):
    atoms, cutoff = CASES[name]
    rng = np.random.default_rng(0)
    moved = atoms.copy()
    cells = rng.integers(-500, 500, (len(atoms), 3)) * moved.pbc
    moved.positions += cells @ atoms.cell.array
    if not atoms.pbc.any():
        moved.positions += [1.1e5, -3.0e4, 2.0e4]
    graphs = [batch_graphs([system(a)], cutoff) for a in (atoms, moved)]
    lengths = []
    for graph in graphs:
        assert np.abs(graph.positions).max() < 200.0
        vectors = np.asarray(edge_vectors(graph, graph.positions, graph.cells))
        length = np.linalg.norm(vectors, axis=-1)
        lengths.append(np.sort(np.where(graph.edge_mask, length, 0.0), axis=1))
    np.testing.assert_allclose(lengths[1], lengths[0], atol=2e-5)
