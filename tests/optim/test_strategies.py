import numpy as np
import pytest
from tiny_nequip import SMALLEST, random_params
from tiny_potential import init_params, tiny_potential

from mlipjax import tree
from mlipjax.defaults import BY_MUON
from mlipjax.losses import LossWeights
from mlipjax.models import nequip
from mlipjax.optim import STRATEGIES, Adam, Muon, Optimizer, choose_strategy, group_multipliers, make_strategy, split


@pytest.fixture(scope="module")
def params():
    return init_params(tiny_potential(n_layers=4))


def multipliers(strategy, params):
    hyper = strategy.hyper(LossWeights(), params, params if strategy.pull == "ewc" else None)
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
    options = {"lora_rank": 2} if name == "lora" else {}
    strategy = make_strategy(name, random_params(nequip(SMALLEST)) if name == "lora" else params, **options)
    rows = strategy.explain()
    assert {"learning_rate", "clip", "ema_decay", "schedule", "rules"} <= {row[0] for row in rows}
    assert all(value and reason for _, value, reason in rows)
    Optimizer(strategy.optimizer_config(total_steps=7))


def test_an_optimiser_brings_its_learning_rate(params):
    usual, adam = make_strategy("naive", params), make_strategy("naive", params, optimizer="adam")
    assert (usual.optimizer, usual.learning_rate) == (Muon(), 1e-3)
    assert (adam.optimizer, adam.learning_rate) == (Adam(), 5e-4)
    assert adam.optimizer_config(10).direction == Adam()
    assert ("optimizer", "Adam", "given") in adam.explain()
    # what it was already changes nothing but the reason
    replay = make_strategy("pseudo-replay", params, optimizer="adam")
    assert (replay.optimizer, replay.learning_rate) == (Adam(), 1e-4)
    assert make_strategy("pseudo-replay", params, optimizer="muon").learning_rate == 1e-3


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_was_measured_goes_by_muon_and_the_rest_by_adam(params, name):
    options = {"lora_rank": 2} if name == "lora" else {}
    strategy = make_strategy(name, random_params(nequip(SMALLEST)) if name == "lora" else params, **options)
    assert isinstance(strategy.optimizer, Muon) == (name in BY_MUON)


def test_given_settings_replace_defaults_and_are_marked(params):
    strategy = make_strategy("naive", params).override(learning_rate=2e-3, clip=None)
    assert (strategy.learning_rate, strategy.clip) == (2e-3, 1.0)
    shown = {name: (value, reason) for name, value, reason in strategy.explain()}
    assert shown["learning_rate"] == ("0.002", "given")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lora2", {}, "unknown strategy 'lora2'; choose one of naive"),
        ("naive", {"optimizer": "soap"}, "unknown optimizer 'soap'; choose one of muon, adam"),
        ("naive", {"freeze_layers": 1}, "has no option freeze_layers"),
        ("freeze", {"freeze_layers": 5}, "between 0 and 4"),
        ("llrd", {"layer_multipliers": (0.5,)}, "needs 4 numbers"),
        ("llrd", {"layer_multipliers": (0.5,) * 4, "layer_decay": 0.9}, "no layer_decay beside them"),
        ("llrd", {"layer_decay": 0.0}, r"must lie in \(0, 1\]"),
        ("lora", {"l2sp": 0.1}, "strategy 'lora' has no option l2sp: a pull acts on weights that adapters leave"),
        ("replay", {"lora_rank": 4}, "strategy 'replay' has no option lora_rank: .* worse than either alone"),
        ("scratch", {"ewc": 0.1}, "strategy 'scratch' has no option ewc: fresh parameters have no pretrained weights"),
        ("naive", {"l2sp": 0.1, "ewc": 0.1}, "l2sp 0.1 and ewc 0.1 are the same pull"),
        ("naive", {"l2sp": -1.0}, "l2sp is a strength and must not be negative"),
        ("replay", {"freeze_layers": 1, "layer_decay": 0.5}, "contradict each other"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(params, name, options, message):
    with pytest.raises(ValueError, match=message):
        make_strategy(name, params, **options)


def test_layers_must_be_numbered_from_zero():
    with pytest.raises(ValueError, match=r"found layers \[1\]"):
        make_strategy("llrd", {"layer_1": {"w": np.ones(1)}, "readout": {"w": np.ones(1)}})


RECIPE = {
    "lora": (1e-3, 0.99, 10.0),
    "replay": (1e-4, 0.9999, 1.0),
    "pseudo-replay": (1e-4, 0.9999, 1.0),
}


@pytest.mark.parametrize("name", RECIPE)
def test_rates_follow_the_recipe(params, name):
    if name == "lora":
        params = random_params(nequip(SMALLEST))
    strategy = make_strategy(name, params, **({"lora_rank": 2} if name == "lora" else {}))
    assert (strategy.learning_rate, strategy.ema_decay, strategy.clip) == RECIPE[name]
    assert "recipe" in strategy.reasons["learning_rate"]


@pytest.mark.parametrize("name", ["l2sp", "ewc", "replay", "pseudo-replay"])
def test_layers_can_be_frozen_or_slowed_down_beside_a_loss_term(params, name):
    frozen = multipliers(make_strategy(name, params, freeze_layers=1), params)
    assert {path.split("/")[0] for path, value in frozen.items() if value is None} == {"embedding", "layer_0"}
    slowed = multipliers(make_strategy(name, params, layer_decay=0.5), params)
    assert slowed["layer_2/kernel"] == 0.25


@pytest.mark.parametrize("name", ["naive", "freeze", "llrd", "replay", "pseudo-replay"])
def test_a_pull_can_be_added(params, name):
    strategy = make_strategy(name, params, l2sp=0.3)
    hyper = strategy.hyper(LossWeights(), params)
    assert (hyper.pull.strength, hyper.pull.anchor, hyper.pull.importance) == (0.3, params, None)
    assert ("pull_strength", "0.3", "given") in strategy.explain()
    assert make_strategy(name, params).hyper(LossWeights()).pull is None


def test_a_pull_without_its_anchor_is_refused(params):
    with pytest.raises(ValueError, match="hyper needs anchor and importance"):
        make_strategy("ewc", params).hyper(LossWeights(), params)
    with pytest.raises(ValueError, match="hyper needs anchor"):
        make_strategy("l2sp", params).hyper(LossWeights())


@pytest.mark.parametrize(
    ("frames", "compositions", "name"),
    [(8, 1, "pseudo-replay"), (29, 9, "pseudo-replay"), (50, 1, "naive"), (50, 20, "lora"), (5000, 300, "naive")],
)
def test_the_strategy_chosen_by_size_says_why(frames, compositions, name):
    found, why = choose_strategy(frames, compositions)
    assert found == name
    assert f"{frames} frames" in why
    assert "recipe" in why
