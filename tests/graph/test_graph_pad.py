import numpy as np
import pytest
from graph_cases import CASES, assert_reversal, distances, system, table_edges

from mlipjax.graph import batch_graphs, bucket_size, neighbor_table

CUTOFF = 4.0
NAMES = ["fcc, 1 atom", "molecule", "slab", "one atom"]


@pytest.fixture(scope="module")
def systems():
    return [system(CASES[name][0]) for name in NAMES]


def test_bucket_sizes_hold_their_number_and_waste_little():
    for n in range(1, 3000):
        size = bucket_size(n)
        assert n <= size <= 1.125 * n
        assert bucket_size(size) == size
        assert n <= bucket_size(n, multiple=4) < max(1.125 * n, n + 4)
        assert bucket_size(n, multiple=4) % 4 == 0
    assert len({bucket_size(n) for n in range(100, 1001)}) < 30
    assert (bucket_size(0), bucket_size(0, multiple=4)) == (1, 4)


def test_a_batch_holds_the_edges_of_its_structures(systems):
    batch = batch_graphs(systems, CUTOFF, n_atoms=64, n_neighbors=100, n_graphs=7, tasks=[0, 2, 1, 1])
    assert batch.sizes == (64, 100, 7)
    assert_reversal(batch)
    start, edges = 0, []
    for index, structure in enumerate(systems):
        own = table_edges(neighbor_table(structure, CUTOFF))
        edges.append(own + np.array([start, start, 0, 0, 0]))
        atoms = slice(start, start + structure.n_atoms)
        assert (batch.graph_index[atoms] == index).all()
        np.testing.assert_array_equal(batch.atomic_numbers[atoms], structure.atomic_numbers)
        start += structure.n_atoms
    np.testing.assert_array_equal(table_edges(batch), np.concatenate(edges))
    assert batch.atom_mask.sum() == start
    assert not batch.edge_mask[start:].any()
    assert (batch.graph_index[start:] == 6).all()
    assert (np.diff(batch.graph_index) >= 0).all()
    np.testing.assert_array_equal(batch.n_atoms, [*(s.n_atoms for s in systems), 0, 0, 0])
    np.testing.assert_array_equal(batch.graph_mask, [True] * 4 + [False] * 3)
    np.testing.assert_array_equal(batch.task, [0, 2, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_over_edges_do_not_depend_on_padding_or_company(systems, dtype):
    def pair_sums(batch):
        lengths = distances(batch)
        per_atom = np.where(batch.edge_mask, (CUTOFF - lengths) ** 2, 0.0).sum(axis=1)
        return np.bincount(batch.graph_index, per_atom, minlength=len(batch.n_atoms))

    alone = [pair_sums(batch_graphs([s], CUTOFF, dtype=dtype))[0] for s in systems]
    together = batch_graphs(systems, CUTOFF, dtype=dtype)
    padded = batch_graphs(systems, CUTOFF, n_atoms=90, n_neighbors=200, n_graphs=6, dtype=dtype)
    assert together.positions.dtype == together.cells.dtype == dtype
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(pair_sums(together)[:4], alone, rtol=tolerance)
    np.testing.assert_allclose(pair_sums(padded)[:4], alone, rtol=tolerance)
    assert (pair_sums(padded)[4:] == 0.0).all()


def test_known_tables_give_the_same_batch(systems):
    tables = [neighbor_table(s, CUTOFF, n_neighbors=128) for s in systems]
    known, searched = batch_graphs(systems, CUTOFF, tables=tables), batch_graphs(systems, CUTOFF)
    for name in ("neighbors", "shifts", "edge_mask", "reverse", "positions"):
        np.testing.assert_array_equal(getattr(known, name), getattr(searched, name))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_atoms": 10}, "n_atoms=10 is too small.*need 17"),
        ({"n_neighbors": 3}, "n_neighbors=3 is too small.*need 18"),
        ({"n_graphs": 3}, "n_graphs=3 is too small.*need 4"),
        ({"tasks": [0]}, "1 task indices for 4 structures"),
        ({"tables": []}, r"tables have \[\] rows"),
    ],
)
def test_what_does_not_fit_is_refused(systems, sizes, message):
    with pytest.raises(ValueError, match=message):
        batch_graphs(systems, CUTOFF, **sizes)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="at least one structure"):
        batch_graphs([], CUTOFF)
