import jax
import numpy as np
import pytest
from ase import Atoms
from tiny_potential import labelled_dataset, tiny_potential

from mlipjax.data import Dataset
from mlipjax.data.dataset import Example
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, make_batch
from mlipjax.train.batches import frames_per_step

SIZES = (5, 7, 4, 6, 3, 8, 5, 4, 12, 11, 5)


@pytest.fixture(scope="module")
def dataset():
    return labelled_dataset(SIZES)


def test_an_epoch_sees_every_structure_once_in_an_order_of_its_own(dataset):
    batches = LabelledBatches.create(tiny_potential(), dataset, 2)
    key = jax.random.key(3)
    epochs = [batches.epoch(key, epoch) for epoch in range(3)]
    for steps in epochs:
        assert len(steps) == batches.steps_per_epoch == 6
        assert sorted(i for plans in steps for plan in plans for i in plan.indices) == list(range(len(SIZES)))
    assert epochs[0] == batches.epoch(key, 0)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != batches.epoch(jax.random.key(4), 0)


def test_epochs_bring_no_new_shapes(dataset):
    batches = LabelledBatches.create(tiny_potential(), dataset, 3, passes=10**6)
    shapes = {batches.batch(plan).graph.sizes for plan in batches.plans}
    later = [plan for epoch in range(4) for plans in batches.epoch(jax.random.key(0), epoch) for plan in plans]
    assert {batches.batch(plan).graph.sizes for plan in later} == shapes


def test_more_passes_are_worth_more_shapes():
    potential, dataset = tiny_potential(), labelled_dataset(SIZES)

    def shapes_and_slots(passes):
        plans = LabelledBatches.create(potential, dataset, 2, passes=passes).plans
        sizes = [(plan.n_atoms, plan.n_neighbors) for plan in plans]
        return len(set(sizes)), sum(n * k for n, k in sizes)

    (few, padded), (many, tight) = shapes_and_slots(1), shapes_and_slots(10**6)
    assert few == 1 < many <= 8
    assert tight < padded


@pytest.mark.parametrize("max_slots", [10**9, 800, 1])
def test_micro_batches_divide_a_batch_evenly_and_respect_the_limit(dataset, max_slots):
    batches = LabelledBatches.create(tiny_potential(), dataset, 4, max_slots=max_slots)
    size = max(len(plan.indices) for plan in batches.plans)
    assert size * batches.accumulate == 4
    largest = max(plan.n_atoms * plan.n_neighbors for plan in batches.plans)
    assert largest <= max_slots or size == 1
    assert {10**9: 4, 800: 2, 1: 1}[max_slots] == size


@pytest.mark.parametrize(("n_atoms", "size"), [(2, 4), (50, 4), (66, 3), (100, 2), (101, 1), (500, 1)])
def test_large_structures_are_trained_on_one_by_one_and_small_ones_together(n_atoms, size):
    large = Example(System.from_ase(Atoms(f"H{n_atoms}")), Labels.create(n_atoms), {})
    isolated = Example(System.from_ase(Atoms("H")), Labels.create(1), {})
    frames = Dataset.from_examples([large, isolated, large])
    assert frames_per_step(frames) == size


def test_energies_lose_nothing_to_float32():
    """Two structures that differ by 1 meV at a total of 16 MeV: float32 alone resolves 1 eV there."""
    potential = tiny_potential(e0s=(-1.0, -30.0, -1e6))
    system = System(np.eye(3) * 2.0, np.full(3, 8, np.int32), np.zeros((3, 3)), (False,) * 3)
    labels = [Labels.create(3, -3e6 - 5.0 + shift) for shift in (0.0, 1e-3)]
    energy = make_batch(potential, [system] * 2, labels).labels.energy
    assert energy.dtype == np.float32
    np.testing.assert_allclose(np.diff(energy), 1e-3, rtol=1e-3)


def test_a_stress_of_a_molecule_is_not_trained_on():
    system = System(np.eye(3) * 2.0, np.full(3, 8, np.int32), np.zeros((3, 3)), (False,) * 3)
    batch = make_batch(tiny_potential(), [system], [Labels.create(3, 1.0, np.zeros((3, 3)), np.zeros((3, 3)))])
    assert batch.labels.stress_weight == 0.0
    assert batch.labels.forces_weight == 1.0


def test_what_cannot_be_batched_is_refused(dataset):
    potential = tiny_potential()
    with pytest.raises(ValueError, match="data set is empty"):
        LabelledBatches.create(potential, dataset.subset([]), 2)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        LabelledBatches.create(potential, dataset, 0)
    system = System(np.eye(3) * 2.0, np.array([8, 26, 26], np.int32), np.zeros((3, 3)), (False,) * 3)
    with pytest.raises(ValueError, match="does not know Fe"):
        make_batch(potential, [system], [Labels.create(3)])
    with pytest.raises(ValueError, match=r"forces have shape \(2, 3\)"):
        make_batch(potential, [dataset.systems[4]], [Labels.create(2, 0.0)])
