import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_potential import init_params, labelled_dataset, tiny_potential

from mlipjax.losses import LossTerms, LossWeights, huber_loss, label_counts, mse_loss
from mlipjax.train import make_batch

SIZES = (5, 9, 3, 12)
WEIGHTS = LossWeights(1.0, 2.0, 3.0)


@pytest.fixture(scope="module")
def setup():
    dataset = labelled_dataset(SIZES)
    potential = tiny_potential()
    return dataset, potential, init_params(potential)


def batch_of(potential, dataset, indices, **sizes):
    part = dataset.subset(indices)
    return make_batch(potential, part.systems, part.labels, dtype=np.float64, **sizes)


HUBER = huber_loss()


@functools.partial(jax.jit, static_argnames=("potential", "loss"))
def evaluate(potential, params, batch, counts=None, loss=HUBER):
    return loss(potential.apply(params, batch.graph), batch.labels, batch.graph, WEIGHTS, counts)


def _value(potential, params, batch, counts=None):
    return evaluate(potential, params, batch, counts)[0]


VALUE_AND_GRADIENT = jax.jit(jax.value_and_grad(_value, argnums=1), static_argnums=0)


def test_value_equals_the_formula_written_with_numpy(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, range(4), n_atoms=40, n_graphs=6)
    prediction = jax.jit(potential.apply)(params, batch.graph)
    loss, terms = evaluate(potential, params, batch)

    def huber(squared, delta):
        return np.sqrt(squared + delta**2) - delta

    energy, forces, stress, start = [], [], [], 0
    for index, (system, label, _) in enumerate(dataset):
        stop = start + system.n_atoms
        total = float(prediction.energy[index]) + potential.reference_energy(system.atomic_numbers)
        energy.append(huber(((total - label.energy) / system.n_atoms) ** 2, 1e-3))
        forces.extend(huber(((prediction.forces[start:stop] - label.forces) ** 2).mean(axis=1), 1e-2))
        stress.append(huber(((prediction.stress[index] - label.stress) ** 2).mean(), 1e-4))
        start = stop
    expected = [np.mean(term) for term in (energy, forces, stress)]
    assert len(forces) == sum(SIZES)
    np.testing.assert_allclose(terms, expected, rtol=1e-9)
    np.testing.assert_allclose(loss, np.dot(expected, [1.0, 2.0, 3.0]), rtol=1e-9)


def test_single_batched_and_padded_agree(setup):
    dataset, potential, params = setup
    whole = batch_of(potential, dataset, range(4))
    counts = label_counts(whole.labels, whole.graph)
    value, slope = VALUE_AND_GRADIENT(potential, params, whole, counts)
    padded = batch_of(potential, dataset, range(4), n_atoms=57, n_neighbors=80, n_graphs=9)
    singles = [batch_of(potential, dataset, [i], n_atoms=16, n_neighbors=48, n_graphs=2) for i in range(4)]
    for parts in ([padded], singles):
        results = [VALUE_AND_GRADIENT(potential, params, part, counts) for part in parts]
        summed = jax.tree.map(lambda *leaves: sum(leaves), *results)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13), summed, (value, slope))


def test_mse_terms_are_mean_squares(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, [1])
    prediction = jax.jit(potential.apply)(params, batch.graph)
    terms = evaluate(potential, params, batch, loss=mse_loss())[1]
    residuals = (
        (prediction.energy[0] - batch.labels.energy[0]) / SIZES[1],
        (prediction.forces - batch.labels.forces)[: SIZES[1]],
        (prediction.stress - batch.labels.stress)[0],
    )
    np.testing.assert_allclose(terms, [np.mean(np.square(r)) for r in residuals], rtol=1e-12)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30, -7.5])
@pytest.mark.parametrize("term", ["energy", "forces", "stress"])
def test_missing_label_contributes_exactly_nothing(setup, term, garbage):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, range(4), n_atoms=40, n_graphs=6)
    weight = f"{term}_weight"
    missing = batch.labels.replace(**{weight: getattr(batch.labels, weight) * np.array([1, 0, 1, 1, 0, 0])})
    filled = np.array(getattr(batch.labels, term))
    owner = batch.graph.graph_index == 1 if term == "forces" else np.arange(6) == 1
    filled[owner] = garbage

    def value_and_gradient(labels):
        return VALUE_AND_GRADIENT(potential, params, batch.replace(labels=labels))

    clean = value_and_gradient(missing)
    dirty = value_and_gradient(missing.replace(**{term: filled}))
    jax.tree.map(np.testing.assert_array_equal, dirty, clean)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dirty))
    assert not np.allclose(clean[0], value_and_gradient(batch.labels)[0])


def test_a_batch_without_labels_has_zero_loss_and_gradient(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, range(4))
    none = jnp.zeros(4)
    labels = batch.labels.replace(energy_weight=none, forces_weight=none, stress_weight=none)
    loss, gradient = VALUE_AND_GRADIENT(potential, params, batch.replace(labels=labels))
    assert loss == 0.0
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(gradient))


def test_counts_are_of_labelled_structures_and_atoms(setup):
    dataset, potential, _ = setup
    batch = batch_of(potential, dataset, range(4), n_atoms=40, n_graphs=6)
    keep = np.array([0.5, 0, 1, 0, 0, 0])
    counts = label_counts(batch.labels.replace(forces_weight=keep), batch.graph)
    assert LossTerms(*map(float, counts)) == LossTerms(4.0, SIZES[0] + SIZES[2], 4.0)


def test_label_weight_scales_a_structures_share(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, [1])
    half = batch.labels.replace(
        **{f"{t}_weight": 0.5 * getattr(batch.labels, f"{t}_weight") for t in LossTerms._fields}
    )
    full = evaluate(potential, params, batch)[0]
    np.testing.assert_allclose(evaluate(potential, params, batch.replace(labels=half))[0], 0.5 * full)


def test_loss_does_not_depend_on_orientation(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, [3])
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = batch.replace(
        graph=batch.graph.replace(positions=batch.graph.positions @ rotation, cells=batch.graph.cells @ rotation),
        labels=batch.labels.replace(
            forces=batch.labels.forces @ rotation, stress=rotation.T @ batch.labels.stress @ rotation
        ),
    )
    np.testing.assert_allclose(
        evaluate(potential, params, turned)[0], evaluate(potential, params, batch)[0], rtol=1e-12
    )


def test_huber_is_absolute_far_from_zero_quadratic_near_it_and_smooth_at_it(setup):
    dataset, potential, params = setup
    batch = batch_of(potential, dataset, [2])
    prediction = jax.jit(potential.apply)(params, batch.graph)
    exact = batch.labels.replace(energy=prediction.energy, forces=prediction.forces, stress=prediction.stress)

    def energy_term(error):
        labels = exact.replace(energy=prediction.energy - 3 * error)
        return huber_loss(energy_delta=1e-3)(prediction, labels, batch.graph, LossWeights(1.0, 1.0, 1.0))[0]

    np.testing.assert_allclose(energy_term(10.0), 10.0, rtol=1e-3)
    np.testing.assert_allclose(energy_term(1e-5), 1e-10 / 2e-3, rtol=1e-3)
    slope, curvature = jax.grad(energy_term)(0.0), jax.grad(jax.grad(energy_term))(0.0)
    np.testing.assert_allclose([slope, curvature], [0.0, 1e3], atol=1e-9)
