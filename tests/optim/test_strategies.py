import numpy as np
import pytest
from tiny_potential import init_params, tiny_potential

from mlipjax import tree
from mlipjax.losses import LossWeights
from mlipjax.optim import STRATEGIES, group_multipliers, make_optimizer, make_strategy, split


@pytest.fixture(scope="module")
def params():
    return init_params(tiny_potential(n_layers=4))


def multipliers(strategy, params):
    hyper = strategy.hyper(LossWeights())
    trainable, _ = split(params, strategy.rules)
    return tree.flatten_paths(group_multipliers(trainable, strategy.rules, hyper.decay, hyper.scales))


@pytest.mark.parametrize("name", ["naive", "scratch"])
def test_naive_and_scratch_train_everything_alike(params, name):
    strategy = make_strategy(name, params)
    assert set(multipliers(strategy, params).values()) == {1.0}
    assert strategy.from_scratch == (name == "scratch")


@pytest.mark.parametrize(("given", "depth"), [(None, 2), (0, 0), (1, 1), (4, 4)])
def test_freeze_holds_the_lower_layers(params, given, depth):
    found = multipliers(make_strategy("freeze", params, freeze_layers=given), params)
    frozen = {path.split("/")[0] for path, value in found.items() if value is None}
    assert frozen == {f"layer_{i}" for i in range(depth)} | ({"embedding"} if depth else set())


def test_llrd_decays_by_a_constant_ratio_downwards(params):
    found = multipliers(make_strategy("llrd", params), params)
    assert found["readout_energy/kernel"] == 1.0
    np.testing.assert_allclose([found[f"layer_{i}/kernel"] for i in (3, 2, 1, 0)], 0.75 ** np.arange(1, 5))
    assert found["embedding/embedding"] == found["layer_0/bias"]


def test_llrd_takes_another_ratio(params):
    strategy = make_strategy("llrd", params, layer_decay=0.5)
    assert multipliers(strategy, params)["layer_2/kernel"] == 0.25
    assert ("decay", "0.5", "given") in strategy.explain()


def test_llrd_takes_a_table(params):
    table = (0.3, 0.4, 0.55, 0.625)
    found = multipliers(make_strategy("llrd", params, layer_multipliers=table), params)
    assert tuple(found[f"layer_{i}/kernel"] for i in range(4)) == table
    assert (found["embedding/embedding"], found["readout_energy/kernel"]) == (0.3, 1.0)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_setting_is_shown_with_its_reason(params, name):
    strategy = make_strategy(name, params)
    rows = strategy.explain()
    assert {"learning_rate", "clip", "ema_decay", "schedule", "rules"} <= {row[0] for row in rows}
    assert all(value and reason for _, value, reason in rows)
    make_optimizer(strategy.optimizer_config(total_steps=7))


def test_given_settings_replace_defaults_and_are_marked(params):
    strategy = make_strategy("naive", params).override(learning_rate=2e-3, clip=None)
    assert (strategy.learning_rate, strategy.clip) == (2e-3, 1.0)
    shown = {name: (value, reason) for name, value, reason in strategy.explain()}
    assert shown["learning_rate"] == ("0.002", "given")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora2", {}, "unknown strategy 'lora2'; choose one of naive"),
        ("naive", {"freeze_layers": 1}, "has no option freeze_layers"),
        ("freeze", {"freeze_layers": 5}, "between 0 and 4"),
        ("llrd", {"layer_multipliers": (0.5,)}, "needs 4 numbers"),
        ("llrd", {"layer_multipliers": (0.5,) * 4, "layer_decay": 0.9}, "no layer_decay beside them"),
        ("llrd", {"layer_decay": 0.0}, r"must lie in \(0, 1\]"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(params, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, params, **options)


def test_layers_must_be_numbered_from_zero():
    with pytest.raises(ValueError, match=r"found layers \[1\]"):
        make_strategy("llrd", {"layer_1": {"w": np.ones(1)}, "readout": {"w": np.ones(1)}})
