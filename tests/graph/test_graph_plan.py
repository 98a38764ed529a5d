import itertools

import ase.io
import numpy as np
import pytest

from mlipjax.graph import batch_graphs, neighbor_table, plan_batches, shuffle_plan
from mlipjax.graph.plan import _covering_sizes
from mlipjax.system import System


@pytest.fixture
def sizes():
    """Atoms and neighbour counts of an uneven data set of 203 structures."""
    rng = np.random.default_rng(0)
    atoms = rng.geometric(0.05, 203) + 1
    return atoms, rng.integers(0, 90, 203)


def shapes(plans):
    return {(plan.n_atoms, plan.n_neighbors, plan.n_graphs) for plan in plans}


def check_plan(plans, atoms, counts):
    assert sorted(i for plan in plans for i in plan.indices) == list(range(len(atoms)))
    for plan in plans:
        members = list(plan.indices)
        assert 1 <= len(members) <= plan.n_graphs
        assert atoms[members].sum() <= plan.n_atoms
        assert counts[members].max() <= plan.n_neighbors


@pytest.mark.parametrize("batch_size", [1, 8, 300])
def test_a_plan_holds_every_structure_once_in_few_shapes(sizes, batch_size):
    plans = plan_batches(*sizes, batch_size, n_widths=3, n_lengths=2)
    check_plan(plans, *sizes)
    assert len(shapes(plans)) <= 6
    assert len(plans) == -(-len(sizes[0]) // batch_size)
    assert plans == plan_batches(*sizes, batch_size, n_widths=3, n_lengths=2)


def test_more_shapes_waste_less(sizes):
    costs = [
        sum(plan.n_atoms * plan.n_neighbors for plan in plan_batches(*sizes, 8, n_widths=widths, n_lengths=lengths))
        for widths, lengths in [(1, 1), (2, 1), (4, 1), (4, 2)]
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.6 * costs[0]


def test_shuffling_draws_new_batches_of_the_same_shapes(sizes):
    plans = plan_batches(*sizes, 8)
    first, again, other = (shuffle_plan(plans, sizes[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for epoch in (first, other):
        check_plan(epoch, *sizes)
        assert shapes(epoch) == shapes(plans)
    assert {plan.indices for plan in first} != {plan.indices for plan in other}


def test_equal_structures_are_shuffled_freely():
    plans = plan_batches([5] * 64, [10] * 64, 8)
    assert shapes(plans) == {(40, 12, 8)}
    epoch = shuffle_plan(plans, [5] * 64, np.random.default_rng(0))
    assert np.abs(np.corrcoef([i for plan in epoch for i in plan.indices], range(64))[0, 1]) < 0.5


def test_sizes_chosen_are_the_best():
    rng = np.random.default_rng(0)
    for _ in range(100):
        needed, weights, n_sizes = rng.integers(1, 12, 8), rng.integers(1, 9, 8), rng.integers(1, 5)

        def cost(sizes, needed=needed, weights=weights):
            return np.sum(weights * np.asarray(sizes)[np.searchsorted(sizes, needed)])

        found = _covering_sizes(needed, weights, n_sizes)
        below = np.unique(needed)[:-1]
        subsets = itertools.chain.from_iterable(itertools.combinations(below, r) for r in range(n_sizes))
        assert len(found) <= n_sizes
        assert cost(found) == min(cost([*subset, needed.max()]) for subset in subsets)


@pytest.mark.parametrize(
    ("arguments", "message"), [(([], [], 2), "found 0 atom counts"), (([1], [1], 0), "must be positive")]
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_batches(*arguments)


def test_real_crystals_waste_little(shared_data):
    systems = [System.from_ase(a) for a in ase.io.read(shared_data / "materials" / "mptrj_1k.extxyz", ":300")]
    tables = [neighbor_table(s, 5.0) for s in systems]
    plans = plan_batches([t.n_atoms for t in tables], [t.max_count for t in tables], 8)
    used = slots = 0
    for plan in plans:
        batch = batch_graphs(
            [systems[i] for i in plan.indices],
            5.0,
            **plan.sizes,
            tables=[tables[i] for i in plan.indices],
        )
        used += batch.edge_mask.sum()
        slots += batch.edge_mask.size
    assert len(shapes(plans)) <= 8
    assert 1.0 - used / slots < 0.35
