import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, molecule, random_params, skewed_crystal
from tiny_potential import init_params, tiny_potential

from mlipjax import tree
from mlipjax.models import nequip
from mlipjax.optim import Adapters, Optimizer, adapt, make_strategy, merge_adapters

CONFIG = Adapters(rank=2, alpha=3.0)


def energies_of(potential):
    """Compiled node energies: enough where forces follow from them, and quicker to compile."""
    return jax.jit(lambda params, graph: potential.node_energy(params, graph, graph.positions)[0])


@functools.cache
def case():
    """(potential, params, adapted potential, its params, node energies of both, compiled)."""
    potential = nequip(SMALLEST)
    params = random_params(potential)
    adapted, own = adapt(potential, params, CONFIG, jax.random.key(0))
    return potential, params, adapted, own, energies_of(potential), energies_of(adapted)


def trained(dtype="float64"):
    """Parameters whose adapters are as large as their kernels."""
    own = tree.cast(case()[3], dtype)
    rng = np.random.default_rng(1)
    return {**own, "adapters": jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(dtype), own["adapters"])}


def test_adapters_change_nothing_at_the_start():
    _, params, _, own, energies, adapted_energies = case()
    graph = graph_of(skewed_crystal(), molecule())
    np.testing.assert_allclose(adapted_energies(own, graph), energies(params, graph), rtol=1e-12, atol=1e-12)


def test_merged_equals_unmerged_in_energies():
    _, params, _, _, energies, adapted_energies = case()
    graph, tuned = graph_of(skewed_crystal(), molecule()), trained()
    merged = merge_adapters(tuned, CONFIG.scale)
    assert jax.tree.structure(merged) == jax.tree.structure(params)
    expected = energies(merged, graph)
    np.testing.assert_allclose(adapted_energies(tuned, graph), expected, rtol=1e-12, atol=1e-12)
    assert not np.allclose(expected, energies(params, graph), rtol=1e-2)


def test_merged_equals_unmerged_to_1e_6_in_single_precision():
    potential, _, adapted, *_ = case()
    graph, tuned = graph_of(skewed_crystal(), dtype="float32"), trained("float32")
    a = jax.jit(potential.apply)(merge_adapters(tuned, CONFIG.scale), graph)
    b = jax.jit(adapted.apply)(tuned, graph)
    for name in ("energy", "forces", "stress"):
        np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=1e-6, atol=1e-6)
    assert np.max(np.abs(a.forces)) > 1e-2


def test_every_equivariant_linear_map_has_an_adapter_of_its_rank():
    potential, params, _, own, *_ = case()
    flat = tree.flatten_paths(params)
    kernels = [leaf.shape for path, leaf in flat.items() if path.split("/")[1] in ("linear_up", "linear_down", "skip")]
    expected = sum(min(2, *shape) * sum(shape) for shape in kernels)
    assert tree.count(own["adapters"]) == expected
    with_radial = adapt(potential, params, dataclasses.replace(CONFIG, radial=True), jax.random.key(0))[1]
    radial = [leaf.shape for path, leaf in flat.items() if "/radial/" in path]
    assert tree.count(with_radial["adapters"]) == expected + sum(2 * sum(shape) for shape in radial)


def test_kernels_per_element_get_adapters_per_element():
    potential = nequip(dataclasses.replace(SMALLEST, per_species_skip=True))
    params = random_params(potential)
    _, own = adapt(potential, params, CONFIG, jax.random.key(0))
    assert own["adapters"]["layer_1"]["skip"]["0e"]["a"].shape == (3, 4, 2)
    assert jax.tree.structure(merge_adapters(own, 1.0)) == jax.tree.structure(params)


def test_only_adapters_and_readouts_are_trained():
    potential, params, _, own, *_ = case()
    strategy = make_strategy("lora", params, lora_rank=2)
    optimizer = Optimizer(strategy.optimizer_config(10))
    trainable, frozen = optimizer.split(own)
    readout = tree.count(params["readout_energy"])
    assert tree.count(trainable) == tree.count(own["adapters"]) + readout
    assert tree.count(frozen) == tree.count(params) - readout
    attached, own = strategy.attach(potential, params, jax.random.key(0))
    assert jax.tree.structure(jax.eval_shape(attached.init, jax.random.key(0))) == jax.tree.structure(own)
    jax.tree.map(np.testing.assert_array_equal, strategy.detach(own), params)


def test_ranks_that_restrict_nothing_and_potentials_without_linear_maps_are_refused():
    params = case()[1]
    with pytest.raises(ValueError, match="rank 9 is no restriction: the largest kernel has rank 4"):
        Adapters(9).paths(params)
    with pytest.raises(ValueError, match="no parameter is an equivariant linear map"):
        make_strategy("lora", init_params(tiny_potential()))
    with pytest.raises(ValueError, match="rank of at least 1"):
        Adapters(0)
