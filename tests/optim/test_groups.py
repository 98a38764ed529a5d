import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_potential import init_params, tiny_potential

from mlipjax.optim import Group, group_multipliers, merge, split

RULES = (("embedding/.*", None), ("layer_0/.*", Group(power=2)), (".*", Group(scale=0.5)))


@pytest.fixture(scope="module")
def params():
    return init_params(tiny_potential())


def test_split_takes_every_leaf_once_and_merge_restores_all(params):
    trainable, frozen = split(params, RULES)
    assert len(jax.tree.leaves(trainable)) + len(jax.tree.leaves(frozen)) == len(jax.tree.leaves(params))
    assert jax.tree.leaves(frozen)[0] is params["embedding"]["embedding"]
    restored = merge(trainable, frozen)
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    assert all(a is b for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(params), strict=True))


def test_multipliers_are_scale_times_decay_to_the_power(params):
    trainable, _ = split(params, RULES)
    multipliers = group_multipliers(trainable, RULES, 0.7, (9.0, 1.5, 0.5))
    assert multipliers["embedding"]["embedding"] is None
    assert multipliers["layer_0"]["kernel"] == pytest.approx(1.5 * 0.7**2)
    assert multipliers["readout_energy"]["kernel"] == 0.5
    assert jax.tree.structure(multipliers) == jax.tree.structure(trainable)


def test_multipliers_can_be_differentiated(params):
    trainable, _ = split(params, RULES)

    def total(decay, scales):
        return jnp.sum(jnp.array(jax.tree.leaves(group_multipliers(trainable, RULES, decay, scales))))

    d_decay, d_scales = jax.grad(total, argnums=(0, 1))(0.7, jnp.array([0.0, 1.0, 1.0]))
    n_first = len(jax.tree.leaves(params["layer_0"]))
    np.testing.assert_allclose(d_decay, n_first * 2 * 0.7)
    np.testing.assert_allclose(d_scales, [0.0, n_first * 0.49, 3.0])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("layer_0/.*", Group()),), "no rule matches"),
        ((("layer_7/.*", None), (".*", Group())), "takes no parameter"),
        (((".*", None),), "all 6 parameters are frozen"),
    ],
)
def test_bad_rules_are_refused(params, rules, message):
    with pytest.raises(ValueError, match=message):
        split(params, rules)
