import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_nequip import (
    SMALLEST,
    graph_of,
    molecule,
    predict,
    random_params,
    skewed_crystal,
    slab,
    small_potential,
)

from mlipjax import tree
from mlipjax.models import nequip
from mlipjax.potential import apply, sum_over_atoms


@functools.cache
def smallest():
    potential = nequip(SMALLEST, [-13.5, -1030.25, -2040.125])
    return potential, random_params(potential), jax.jit(potential.apply, static_argnames="stress")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_initial_parameters_have_the_dtype_asked_for(dtype):
    init = functools.partial(smallest()[0].init, dtype=dtype)
    leaves = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}


def test_initial_parameters_depend_on_the_key_alone():
    first, again, other = (smallest()[0].init(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["readout_energy"]["kernel"], other["readout_energy"]["kernel"])
    assert np.std(first["layer_1"]["linear_up"]["0e"]) == pytest.approx(1.0, abs=0.5)
    np.testing.assert_array_equal(first["layer_0"]["norm"]["scale_1o"], 1.0)


def test_paths_of_parameters_are_those_that_rules_rely_on():
    paths = list(tree.flatten_paths(smallest()[1]))
    modules = {f"layer_{i}/{name}" for i in (0, 1) for name in ("radial", "linear_up", "linear_down", "skip", "norm")}
    assert {path.rsplit("/", 1)[0] for path in paths} == modules | {"readout_energy"}


def test_energies_of_atoms_sum_to_those_of_structures():
    prediction = predict(skewed_crystal(), molecule(), slab())
    sums = [prediction.node_energy[rows].sum() for rows in (slice(0, 5), slice(5, 11), slice(11, 15))]
    np.testing.assert_allclose(prediction.energy, sums, rtol=1e-12)


def test_sums_over_atoms_also_of_structures_without_atoms():
    graph = graph_of(molecule())
    np.testing.assert_array_equal(sum_over_atoms(graph, jnp.asarray(graph.atom_mask, float)), [6.0, 0.0, 0.0])


def test_features_of_every_layer_side_by_side():
    potential, _, _ = small_potential()
    assert potential.feature_slices == (slice(0, 8), slice(8, 16))
    features = predict(molecule()).features
    assert features.shape == (16, 16)
    assert (np.abs(features[:6]).max(axis=0) > 0.0).all()


def test_forces_without_stress_are_the_same():
    _, params, apply = smallest()
    graph = graph_of(skewed_crystal())
    both, forces = apply(params, graph), apply(params, graph, stress=False)
    np.testing.assert_allclose(forces.forces, both.forces, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(forces.stress, 0.0)
    assert np.abs(both.stress).max() > 1e-4


def test_float32_agrees_with_float64():
    _, params, apply = smallest()
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    systems = skewed_crystal(), molecule(), slab()
    low, high = apply(single, graph_of(*systems, dtype=np.float32)), apply(params, graph_of(*systems))
    for name in ("energy", "forces", "stress", "features"):
        assert getattr(low, name).dtype == np.float32
        np.testing.assert_allclose(getattr(low, name), getattr(high, name), rtol=1e-4, atol=2e-5)


def test_reference_energies():
    potential = smallest()[0]
    assert potential.e0s.dtype == np.float64
    assert potential.reference_energy(np.array([8, 1, 1])) == -2040.125 - 2 * 13.5
    other = potential.replace(e0s=2.0 * potential.e0s)
    assert other.reference_energy([6]) == -2060.5
    assert potential.reference_energy([6]) == -1030.25
    assert other.module is potential.module


def test_unknown_elements_are_named():
    potential = smallest()[0]
    potential.check_elements([8, 1, 6, 1])
    with pytest.raises(
        ValueError, match=r"this potential does not know He, Fe; it knows H, C, O\. Choose another"
    ) as error:
        potential.reference_energy(np.array([26, 8, 2, 2]))
    assert "\n" not in str(error.value)


def test_two_loads_of_a_model_are_equal_and_share_one_program_whatever_their_energy_zero():
    one, params, _ = smallest()
    other = nequip(SMALLEST, [1.0, 2.0, 3.0])
    assert one == other
    assert hash(one) == hash(other)
    assert one != nequip(dataclasses.replace(SMALLEST, cutoff=SMALLEST.cutoff + 0.5))
    graph = graph_of(molecule())
    jax.clear_caches()
    first = apply(one, params, graph)
    compiled = apply._cache_size()
    second = apply(other, jax.tree.map(lambda leaf: leaf + 0.0, params), graph)
    assert apply._cache_size() == compiled == 1
    np.testing.assert_array_equal(first.energy, second.energy)
