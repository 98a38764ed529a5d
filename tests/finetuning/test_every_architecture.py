"""Code written for NequIP, on tiny MACEs and a tiny SevenNet: fine-tuning, MD, monitors and sweeps."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from labelled_files import other_material, rock_salts
from tiny_nequip import LIKE_SEVENNET, random_params
from tiny_potential import tiny_batch

import mlipjax
from mlipjax import md, monitoring, tree
from mlipjax.calculator import Calculator
from mlipjax.data import Dataset, Example
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.retain import REPLAY_HEAD, add_head
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.models import MACEConfig, mace, nequip
from mlipjax.optim import Optimizer, OptimizerConfig, make_strategy
from mlipjax.optim.groups import split
from mlipjax.optim.lora import Adapters, adapt
from mlipjax.potential import Model
from mlipjax.train import TrainState, evaluate, sweep

SPECIES = (3, 9, 11, 17)
LIKE_MACE = MACEConfig(
    species=SPECIES,
    cutoff=3.5,
    hidden_irreps="4x0e + 4x1o",
    lmax=1,
    correlation=(2, 2),
    radial_hidden=(8,),
    avg_n_neighbors=6.0,
    readout_hidden=4,
)
POTENTIALS = {
    "mace": mace(LIKE_MACE),
    "nonlinear mace": mace(
        dataclasses.replace(LIKE_MACE, interactions=("nonlinear", "nonlinear"), edge_irreps="3x0e + 3x1o", scale=0.1)
    ),
    "sevennet": nequip(
        dataclasses.replace(LIKE_SEVENNET, species=SPECIES, cutoff=3.5, n_layers=2, envelope_onset=3.0, scale=1.0)
    ),
}
every_architecture = pytest.mark.parametrize("name", POTENTIALS)


@functools.cache
def model(name):
    """Drawn by numpy, nothing to compile."""
    potential = POTENTIALS[name]
    if name != "mace":
        return Model(potential, random_params(potential))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    return Model(potential, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes))


@functools.cache
def data(name):
    """Rock salts labelled by the same potential with other weights."""
    potential, params = model(name)
    teacher = Calculator(potential, other_material(params))
    examples = []
    for i, system in enumerate(rock_salts(6)):
        atoms = system.to_ase()
        atoms.calc = teacher
        labels = mlipjax.Labels.create(
            len(atoms), atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        )
        examples.append(Example(system, labels, {"run": i // 2}))
    return Dataset.from_examples(examples[:4]), Dataset.from_examples(examples[4:])


def trained_paths(params, strategy):
    trainable, _ = split(params, strategy.rules)
    return {path for path, leaf in tree.flatten_paths(trainable).items() if leaf is not None}


@every_architecture
def test_layers_are_frozen_from_the_embedding_up(name):
    _, params = model(name)
    trained = trained_paths(params, make_strategy("freeze", params, freeze_layers=1))
    assert trained == {path for path in tree.flatten_paths(params) if path.startswith(("layer_1/", "readout_"))}
    assert trained_paths(params, make_strategy("naive", params)) == set(tree.flatten_paths(params))


@every_architecture
def test_every_layer_has_its_learning_rate(name):
    potential, params = model(name)
    strategy = make_strategy("llrd", params)
    powers = tree.match_paths(tree.flatten_paths(params), strategy.rules)
    assert {path.split("/")[0]: group.power for path, group in powers.items()} == {
        **{name: 2 for name in params if name.startswith("embedding")},
        "layer_0": 2,
        "layer_1": 1,
        **{f"readout_{head}": 0 for head in potential.heads},
    }


@every_architecture
def test_adapters_go_onto_all_equivariant_linear_maps(name):
    potential, params = model(name)
    strategy = make_strategy("lora", params, lora_rank=2)
    assert set(strategy.adapters.paths(params)) == {
        path for path in tree.flatten_paths(params) if any(f"/{kind}" in path for kind in ("linear_", "skip"))
    }
    adapted, more = adapt(potential, params, Adapters(2), jax.random.key(2))
    assert adapted.module.feature_sizes == (4, 4)
    assert tree.count(more) > tree.count(params)


@every_architecture
def test_a_head_can_be_added(name):
    potential, params = add_head(model(name))
    assert potential.heads == (*model(name).potential.heads, REPLAY_HEAD)
    template = jax.eval_shape(potential.init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, template)


SETTINGS = FinetuneSettings(
    epochs=8, batch_size=2, learning_rate=1e-2, e0s="estimate", ignore=("units", "sign"), replay_size=4
)


@pytest.mark.slow
@every_architecture
@pytest.mark.parametrize("strategy", ["naive", "llrd", "lora", "pseudo-replay"])
def test_fine_tuning_lowers_the_error_and_leaves_a_model(strategy, name, tmp_path):
    start = model(name)
    train, valid = data(name)
    settings = dataclasses.replace(SETTINGS, strategy=strategy, **({"lora_rank": 2} if strategy == "lora" else {}))
    result = mlipjax.finetune(start, train, valid=valid, settings=settings, out=tmp_path)
    before, after = (evaluate(one, train) for one in (start, result.model))
    assert after["force_mae_meV_per_A"] < 0.95 * before["force_mae_meV_per_A"]
    tuned = mlipjax.load(tmp_path)
    # adapters are merged; the head of the replayed structures stays
    assert dataclasses.replace(tuned.potential.config, heads=start.potential.heads) == start.potential.config
    assert evaluate(tuned, train)["force_mae_meV_per_A"] == after["force_mae_meV_per_A"]


@pytest.mark.slow
@every_architecture
def test_md_runs_and_is_watched(name):
    start = rock_salts(1)[0]
    rng = np.random.default_rng(1)
    frames = [moved(start, start.positions + 0.02 * rng.standard_normal((8, 3))) for _ in range(80)]
    fitted = monitoring.fit_monitor(
        monitoring.frame_features(model(name), frames, dtype="float64"),
        [i % 4 for i in range(80)],
        level=0.05,
        n_components=2,
    )
    watch = monitoring.Watch(fitted, model(name), every=1)
    steps = {}
    for timestep in (0.2, 0.1):
        run = md.run(
            model(name),
            md.Start(start),
            md.make_ensemble("nve", timestep_fs=timestep, temperature_K=50.0),
            round(4.0 / timestep),
            key=jax.random.key(0),
            n_replicas=2,
            chunk_steps=10,
            limits=md.Limits(temperature_K=1e9, contact_ratio=0.0),
            on_chunk=watch,
        )
        steps[timestep] = np.asarray(run.state.dynamics.position)
    # both ends are those of the same trajectory, but for the error of the integrator
    np.testing.assert_allclose(steps[0.2], steps[0.1], atol=2e-3)
    assert np.abs(steps[0.1] - start.positions).max() > 0.01
    last = [moved(start, positions) for positions in steps[0.1]]
    expected = monitoring.read_frames(fitted, monitoring.frame_features(model(name), last, dtype="float64"))
    np.testing.assert_allclose(watch.frame[-1], expected.frame, rtol=1e-8)


def moved(system, positions):
    return dataclasses.replace(system, positions=positions)


@pytest.mark.slow
@every_architecture
def test_settings_of_a_sweep_equal_separate_runs(name):
    potential, params = model(name)
    rules = sweep.layer_rules(params)
    optimizer = Optimizer(OptimizerConfig(rules=rules, total_steps=3))
    train, _ = data(name)
    batches = sweep.stack([tiny_batch(train.subset([i, i + 1]), potential, n_neighbors=48) for i in (0, 2)])
    settings = sweep.grid((0,), (1e-3, 1e-2), (1.0, 0.5), (0, 1))[:3]
    states = [TrainState.create(params, optimizer, jax.random.key(s.seed)) for s in settings]
    orders = [np.array([0, 1, 0])] * len(settings)
    hypers = [sweep.hyper_of(s, rules, LossWeights(), np.float64) for s in settings]
    run = sweep.one_run(potential, optimizer, huber_loss())
    mapped = sweep.over_settings(lambda arguments, shared: run(*arguments, shared), 2)
    together, losses = mapped((sweep.stack(states), np.stack(orders), sweep.stack(hypers)), batches)
    separate = jax.jit(run)
    for k, arguments in enumerate(zip(states, orders, hypers, strict=True)):
        state, alone = separate(*arguments, batches)
        np.testing.assert_allclose(losses[k], alone, rtol=1e-9)
        assert np.ptp(alone) > 0.0
        for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(together.params), strict=True):
            np.testing.assert_allclose(other[k], one, rtol=1e-8, atol=1e-12)
