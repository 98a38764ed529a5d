import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlipjax import tree

PARAMS = {
    "layer_0": {"radial": {"kernel": np.ones((3, 4))}, "norm": {"scale": np.ones(4)}},
    "layer_1": {"radial": {"kernel": np.ones((4, 4))}},
    "readout": {"pbe": {"kernel": np.ones((4, 1))}},
}

names = st.text(st.characters(blacklist_characters="/", codec="utf-8"), min_size=1, max_size=4)
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=4), max_leaves=12
).filter(lambda value: isinstance(value, dict))


@given(trees)
def test_paths_round_trip_in_leaf_order(params):
    flat = tree.flatten_paths(params)
    assert tree.unflatten_paths(flat) == params
    assert list(flat.values()) == jax.tree.leaves(params)


@pytest.mark.parametrize("bad", [{"a/b": 1}, {"": 1}, {1: 2}])
def test_ambiguous_names_are_refused(bad):
    with pytest.raises(ValueError, match="not usable"):
        tree.flatten_paths(bad)


@pytest.mark.parametrize("paths", [{"a": 1, "a/b": 2}, {"a/b": 1, "a": 2}])
def test_a_leaf_cannot_be_a_group(paths):
    with pytest.raises(ValueError, match="path 'a"):
        tree.unflatten_paths(paths)


def test_first_matching_rule_wins():
    rules = [("layer_0/norm/.*", None), (r"layer_(\d+)/.*", 0.5), ("readout/.*", 1.0)]
    assert tree.match_paths(tree.flatten_paths(PARAMS), rules) == {
        "layer_0/norm/scale": None,
        "layer_0/radial/kernel": 0.5,
        "layer_1/radial/kernel": 0.5,
        "readout/pbe/kernel": 1.0,
    }


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("layer_.*", 1)], "no rule matches 'readout/pbe/kernel'"),
        ([("readout", 1), (".*", 0)], "rule 'readout' takes no parameter.*whole paths"),
        ([(".*", 0), ("readout/.*", 1)], "rule 'readout/.*' takes no parameter: earlier rules"),
        ([("readout/.*", 1), (".*", 0), (".*", 2)], None),
        ([("layer_(", 1)], "not a regular expression"),
    ],
)
def test_rules_must_cover_everything_and_all_be_used(rules, message):
    if message is None:  # a last ".*" may be left without work
        assert set(tree.match_paths(tree.flatten_paths(PARAMS), rules).values()) == {0, 1}
    else:
        with pytest.raises(ValueError, match=message):
            tree.match_paths(tree.flatten_paths(PARAMS), rules)


def test_cast_leaves_integers_alone():
    params = {"kernel": np.full(3, 1 / 3), "index": np.arange(3, dtype=np.int32)}
    single = tree.cast(params, jnp.float32)
    assert single["kernel"].dtype == jnp.float32
    assert single["index"].dtype == jnp.int32
    np.testing.assert_array_equal(single["kernel"], np.full(3, 1 / 3, np.float32))


def test_cast_to_float64_without_x64_is_an_error_not_float32():
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit mode"):
        tree.cast({"kernel": np.ones(3, np.float32)}, "float64")


def test_count():
    assert tree.count(PARAMS) == 12 + 4 + 16 + 4
    assert tree.count({"scale": np.float32(1.0)}) == 1
