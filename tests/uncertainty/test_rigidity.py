"""The posterior of the last layer against Bayesian linear regression, laws of physics, and its own draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bars_case import (
    HOW,
    applied,
    atom_features,
    errors_and_systems,
    force_features,
    graph,
    model,
    paths,
    posterior,
    rattled,
)
from tiny_nequip import molecule, skewed_crystal, slab

import mlipjax
from mlipjax import uncertainty
from mlipjax.system import System


def test_the_variance_is_that_of_bayesian_linear_regression():
    """With prior variance a²/s² and noise a², the posterior variance of f·w is a² f^T (F^T F + s²)^-1 f."""
    rng = np.random.default_rng(2)
    f, new, noise, ridge = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), 0.3, 0.05
    s2 = ridge * np.trace(f.T @ f) / 4
    covariance = np.linalg.inv(f.T @ f / noise**2 + np.eye(4) * s2 / noise**2)
    variance = noise**2 * uncertainty.rigidity_of(f.T @ f, ridge=ridge).variance(jnp.asarray(new))
    np.testing.assert_allclose(variance, np.einsum("ni,ij,nj->n", new, covariance, new), rtol=1e-9)


def test_features_outside_the_training_span_have_a_large_variance():
    rng = np.random.default_rng(4)
    f = np.concatenate([rng.normal(size=(50, 3)), np.zeros((50, 1))], axis=1)
    fitted = uncertainty.rigidity_of(f.T @ f)
    inside, outside = fitted.variance(jnp.asarray([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    assert outside > 1000 * inside


def test_fitting_is_linear_regression_on_energies_and_all_forces():
    """One structure, all its forces in the matrix by random moves without number: the posterior in closed form."""
    errors, held_out = errors_and_systems()
    train = [rattled(molecule(), 0.1, seed) for seed in range(8)]
    potential, params = model()
    energy_rows, force_rows = [], []
    for system in train:
        one = graph(systems=[system])
        features = atom_features(potential, params, one, one.positions, paths())
        energy_rows.append(np.asarray(features).sum(axis=0) / system.n_atoms)
        slopes = force_features(potential, params, one, paths(), jnp.eye(features.shape[1]))
        force_rows.append(np.asarray(slopes)[:, : system.n_atoms].reshape(features.shape[1], -1).T)
    sizes = [system.n_atoms for system in held_out]
    noise = np.sqrt(np.mean((errors.energy / sizes) ** 2)), np.sqrt(np.mean(np.square(errors.forces)))
    energies, forces = np.array(energy_rows) / noise[0], np.concatenate(force_rows) / noise[1]

    without = uncertainty.fit_rigidity(model(), train, held_out, errors, moves=0, how=HOW)
    np.testing.assert_allclose(_matrix(without), energies.T @ energies, atol=1e-8 * np.abs(energies).max() ** 2)
    many = uncertainty.fit_rigidity(model(), train, held_out, errors, moves=400, how=HOW)
    exact = energies.T @ energies + forces.T @ forces
    assert np.abs(_matrix(many) - exact).max() < 0.1 * np.abs(exact).max()

    one = graph(systems=[held_out[0]])
    found = uncertainty.spread(many, potential, params, one)
    inverse = float(many.scale[0]) ** 2 * np.linalg.inv(_matrix(many) + float(many.ridge) * np.eye(len(exact)))
    f = np.asarray(atom_features(potential, params, one, one.positions, paths())).sum(axis=0)
    np.testing.assert_allclose(found.energy[0] ** 2, f @ inverse @ f, rtol=1e-8)


def _matrix(rigidity):
    return rigidity.basis @ np.diag(rigidity.eigenvalues) @ rigidity.basis.T


def test_scale_and_ridge_come_back_from_errors_that_have_them():
    """Errors of forces drawn from the posterior with a known alpha and s."""
    rng = np.random.default_rng(0)
    train = [rattled(molecule(), 0.1, seed) for seed in range(8)]
    held_out = [rattled(molecule(), 0.1 + 0.3 * (i % 2), 100 + i) for i in range(40)]
    forces = [np.full((system.n_atoms, 3), 1.0) for system in held_out]
    none = uncertainty.Errors(np.full(40, np.nan), forces, list(range(40)))
    start = uncertainty.fit_rigidity(model(), train, held_out, none, moves=8, how=HOW)
    ridge, alpha = np.sort(start.eigenvalues)[2], 0.7
    truth = start.replace(ridge=np.asarray(ridge), scale=np.array([alpha, alpha]))
    spreads = uncertainty.spreads_of(truth, model(), held_out, how=HOW)
    drawn = [rng.normal(size=own.forces.shape) * own.forces for own in spreads]
    errors = uncertainty.Errors(np.full(40, np.nan), drawn, list(range(40)))
    found = uncertainty.fit_rigidity(model(), train, held_out, errors, moves=8, how=HOW)
    # the matrix is in units of the noise, which was 1
    unit = np.sqrt(np.mean(np.concatenate([own.ravel() for own in drawn]) ** 2))
    assert found.scale[1] * unit == pytest.approx(alpha, rel=0.1)
    assert found.ridge * unit**2 == pytest.approx(ridge, rel=1.0)
    scores = uncertainty.score(uncertainty.spreads_of(found, model(), held_out, how=HOW), errors)
    assert scores["forces"]["coverage_68"] == pytest.approx(0.683, abs=0.03)
    assert scores["forces"]["coverage_95"] == pytest.approx(0.95, abs=0.02)
    assert scores["energy"] is None


def test_error_bars_turn_with_the_structure_and_do_not_know_the_order_of_atoms():
    potential, params = model()
    spread = functools.partial(uncertainty.spread, posterior(), potential, params)
    system = skewed_crystal()
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    order = np.array([3, 1, 4, 0, 2])
    turned = System(system.positions @ rotation, system.atomic_numbers, system.cell @ rotation, system.pbc)
    mixed = System(system.positions[order], system.atomic_numbers[order], system.cell, system.pbc)
    plain, there, other = (spread(graph(systems=[own])) for own in (system, turned, mixed))
    for found in (there, other):
        np.testing.assert_allclose(found.energy[0], plain.energy[0], rtol=1e-8)
    np.testing.assert_allclose(there.energies, plain.energies, rtol=1e-8)
    np.testing.assert_allclose(other.energies[:5], plain.energies[order], rtol=1e-8)
    np.testing.assert_allclose(other.forces[:5], plain.forces[order], rtol=1e-7)
    # variances along axes are a tensor's diagonal: its trace stays
    norms = [np.linalg.norm(found.forces, axis=1) for found in (plain, there)]
    np.testing.assert_allclose(*norms, rtol=1e-7)
    assert plain.forces[:5].min() > 0.0
    assert np.abs(plain.forces[5:]).max() == np.abs(plain.energies[5:]).max() == 0.0


def test_structures_of_a_batch_have_the_error_bars_they_have_alone():
    systems = [skewed_crystal(), slab(), molecule()]
    together = uncertainty.spreads_of(posterior(), model(), systems, how=HOW)
    for system, found in zip(systems, together, strict=True):
        (alone,) = uncertainty.spreads_of(posterior(), model(), [system], how=HOW)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-7)


def test_error_bars_of_a_trained_model_grow_with_the_distance_from_training():
    potential, params = mlipjax.load("universal")
    last = uncertainty.last_layer_paths(params, "energy")

    def features(amount, seeds):
        systems = [rattled(molecule(0), amount, seed) for seed in seeds]
        ((_, batch),) = uncertainty.Computed(batch_size=64).batches(mlipjax.Model(potential, params), systems)
        atoms = atom_features(potential, params, batch, batch.positions, last)
        return np.asarray(uncertainty.sum_features(batch, atoms), np.float64)

    train = features(0.05, range(48))
    fitted = uncertainty.rigidity_of(train.T @ train, ridge=1e-9)
    found = [np.sqrt(fitted.variance(features(amount, range(100, 148)))).mean() for amount in (0.05, 0.1, 0.2, 0.4)]
    assert found[0] < 10.0  # inside: of the order of the noise
    assert (np.diff(np.log(found)) > 0.5).all()


def test_draws_from_the_posterior_spread_as_it_does():
    potential, params = model()
    drawn = uncertainty.shallow_ensemble(posterior(), params, jax.random.key(0), 800, len(potential.species))
    batch = graph()
    exact, found = (uncertainty.spread(own, potential, params, batch) for own in (posterior(), drawn))
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(other, one, rtol=0.12, atol=1e-9)  # 1 / sqrt(2 · 799) = 2.5 % each
    with pytest.raises(ValueError, match="two members at least"):
        uncertainty.shallow_ensemble(posterior(), params, jax.random.key(0), 1, 3)


def test_a_committee_spreads_as_its_predictions_do():
    potential, params = model()
    keys = jax.random.split(jax.random.key(1), 2)
    others = [jax.tree.map(lambda leaf, k=k: leaf * (1 + 0.1 * jax.random.normal(k, leaf.shape)), params) for k in keys]
    e0s = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.25, 0.0]])
    joined = uncertainty.committee(params, others, e0s)
    system, batch = molecule(), graph(systems=[molecule()])
    found = uncertainty.spread(joined.replace(scale=jnp.array([2.0, 3.0])), potential, params, batch)
    each = [applied(potential, own, batch) for own in (params, *others)]
    atoms = np.array([row[np.searchsorted(potential.species, system.atomic_numbers)] for row in e0s])
    energies = np.array([own.node_energy[: system.n_atoms] for own in each]) + atoms
    np.testing.assert_allclose(found.energy[0], 2.0 * energies.sum(axis=1).std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found.energies[: system.n_atoms], 2.0 * energies.std(axis=0, ddof=1), rtol=1e-9)
    forces = np.array([own.forces for own in each])
    np.testing.assert_allclose(found.forces, 3.0 * forces.std(axis=0, ddof=1), atol=1e-9)
    with pytest.raises(ValueError, match="two members at least"):
        uncertainty.committee(params, [], e0s[:1])
    with pytest.raises(ValueError, match="other parameters than the model"):
        uncertainty.committee(params, [{"readout_energy": {"kernel": jnp.ones((2, 1))}}], e0s[:2])


def test_a_committee_is_calibrated_in_closed_form_and_every_group_counts_once():
    spreads = [uncertainty.Spread(np.array([1.0]), np.ones(2), np.ones((2, 3))) for _ in range(4)]
    energy = np.array([3.0, 3.0, 3.0, 1.0])  # three frames of one trajectory, one of another
    forces = [np.full((2, 3), 2.0)] * 4
    joined = uncertainty.Ensemble({}, np.zeros((2, 1)), np.array([1.0, 0.5]))
    found = uncertainty.calibrated(joined, spreads, uncertainty.Errors(energy, forces, ["a", "a", "a", "b"]))
    np.testing.assert_allclose(found.scale, [np.sqrt((9.0 + 1.0) / 2), 0.5 * 2.0])
    nothing = uncertainty.Errors(np.full(4, np.nan), [np.full((2, 3), np.nan)] * 4, list("aaab"))
    with pytest.raises(ValueError, match="no energy and no forces"):
        uncertainty.calibrated(joined, spreads, nothing)
