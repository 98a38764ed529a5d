import numpy as np
import pytest
from tiny_potential import init_params, tiny_potential

from mlipjax import tree
from mlipjax.losses import LossWeights
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import MODES, group_multipliers, make_mode, published_multipliers, split


@pytest.fixture(scope="module")
def params():
    return init_params(tiny_potential(n_layers=4).replace(properties=(PropertyHead("gap", hidden=(3,)),)))


def multipliers(strategy, params):
    trainable, _ = split(params, strategy.rules)
    hyper = strategy.hyper(LossWeights())
    return tree.flatten_paths(group_multipliers(trainable, strategy.rules, hyper.decay, hyper.scales))


@pytest.mark.parametrize("name", MODES)
def test_modes_train_what_they_say(params, name):
    strategy = make_mode(name, params)
    found = multipliers(strategy, params)
    trained = {path.split("/")[0] for path, value in found.items() if value is not None}
    layers = {"embedding", *(f"layer_{i}" for i in range(4))}
    expected = {"lp": set(), "mft": layers | {"readout_energy"}}.get(name, layers)
    assert trained == expected | {"property_gap"}
    assert {value for value in found.values() if value is not None} == {1.0}
    assert all(found[f"property_gap/statistics/{part}"] is None for part in ("mean", "std"))
    assert strategy.from_scratch == (name == "scratch")
    shown = {row[0]: row for row in strategy.explain()}
    assert shown["learning_rate"][1:] == ("0.001", "S3: 1e-3")


def test_the_published_table_is_mapped_by_depth(params):
    assert published_multipliers(4) == (0.30, 0.40, 0.55, 0.625)
    assert published_multipliers(2) == (0.30, 0.625)
    np.testing.assert_allclose(published_multipliers(3), (0.30, 0.475, 0.625))
    found = multipliers(make_mode("ft", params, layer_multipliers=published_multipliers(4)), params)
    assert [found[f"layer_{i}/kernel"] for i in range(4)] == [0.30, 0.40, 0.55, 0.625]
    assert (found["embedding/embedding"], found["property_gap/network/output/kernel"]) == (0.30, 1.0)


def test_a_constant_ratio_decays_downwards(params):
    found = multipliers(make_mode("mft", params, layer_decay=0.5), params)
    assert [found[f"layer_{i}/kernel"] for i in (3, 2, 1, 0)] == [0.5, 0.25, 0.125, 0.0625]
    assert found["readout_energy/kernel"] == found["property_gap/network/hidden_0/kernel"] == 1.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("naive", {}, "unknown mode 'naive'"),
        ("lp", {"layer_decay": 0.5}, "lp trains no layers"),
        ("ft", {"layer_decay": 1.5}, r"\(0, 1\]"),
        ("ft", {"layer_multipliers": (0.3, 0.4)}, "needs 4 numbers"),
    ],
)
def test_modes_that_cannot_be_honoured_are_refused(params, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_mode(name, params, **options)
