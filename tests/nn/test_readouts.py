"""Property heads: pooling, equivariance, padding, and a backbone that does not notice them."""

import jax
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, molecule, random_params
from tiny_potential import CUTOFF, init_params, tiny_potential

from mlipjax.graph import batch_graphs
from mlipjax.models import nequip
from mlipjax.nn.readouts import PropertyHead, init_head, input_moments, read_scalar

HEADS = (
    PropertyHead("gap", hidden=(5,), mean=2.0, std=3.0),
    PropertyHead("volume", "extensive", hidden=(5,), layers="all", mean=1.0, std=0.5),
    PropertyHead("noise", "vector", hidden=(4,)),
)


@pytest.fixture(scope="module")
def model():
    potential = nequip(SMALLEST).replace(properties=HEADS)
    return potential, random_params(potential), jax.jit(potential.property_values)


def test_the_force_field_does_not_notice_heads():
    plain = tiny_potential()
    potential = plain.replace(properties=HEADS[:2])
    params = init_params(potential)
    backbone = {name: group for name, group in params.items() if not name.startswith("property_")}
    graph = batch_graphs([molecule()], CUTOFF, dtype=np.float64)
    with_heads, without = (jax.jit(p.apply)(q, graph) for p, q in ((potential, params), (plain, backbone)))
    np.testing.assert_array_equal(with_heads.forces, without.forces)
    assert np.abs(without.forces).max() > 0.0
    assert sorted(with_heads.properties) == ["gap", "volume"]
    assert without.properties == {}
    drawn = potential.init(jax.random.key(0))
    alone = plain.init(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, {name: drawn[name] for name in alone}, dict(alone))


def test_a_backbone_without_vectors_says_so():
    with pytest.raises(ValueError, match="offers no equivariant features"):
        jax.eval_shape(tiny_potential().replace(properties=HEADS).init, jax.random.key(0))


def test_scalar_heads_fit_the_other_architecture():
    from mlipjax.models import MACEConfig, mace

    config = MACEConfig(species=(1, 6, 8), cutoff=4.0, hidden_irreps="4x0e + 4x1o", lmax=1, correlation=(2, 2))
    potential = mace(config).replace(properties=HEADS[:2])
    params = jax.eval_shape(potential.init, jax.random.key(0))
    assert params["property_volume"]["statistics"]["mean"].shape == (sum(potential.module.feature_sizes),)
    found = jax.eval_shape(potential.property_values, params, graph_of(molecule(), dtype=np.float32))
    assert {name: value.shape for name, value in found.items()} == {"gap": (3,), "volume": (3,)}


def test_statistics_standardise_the_inputs():
    head = PropertyHead("gap", hidden=(), mean=0.0, std=1.0)
    graph = graph_of(molecule(), molecule(1))
    features = np.where(graph.atom_mask[:, None], np.random.default_rng(0).normal(size=(16, 3)), 0.0)
    params = init_head(head, jax.random.key(0), 3, 0, np.float64)
    count, total, squares = input_moments(head, graph, features)
    pooled = np.stack([features[:6].mean(axis=0), features[6:12].mean(axis=0)])
    assert count == 2
    np.testing.assert_allclose([total, squares], [pooled.sum(axis=0), (pooled**2).sum(axis=0)])
    mean, std = pooled.mean(axis=0), pooled.std(axis=0)
    found = read_scalar(head, {**params, "statistics": {"mean": mean, "std": std}}, graph, features)
    output = params["network"]["output"]
    np.testing.assert_allclose(found[:2], ((pooled - mean) / std) @ output["kernel"][:, 0] + output["bias"][0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "band gap"}, "letters, digits"),
        ({"kind": "median"}, "unknown kind 'median'"),
        ({"std": 0.0}, "must be positive"),
        ({"kind": "vector", "mean": 1.0}, "not equivariant"),
    ],
)
def test_heads_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PropertyHead(**{"name": "gap", **wrong})
