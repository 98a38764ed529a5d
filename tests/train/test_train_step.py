import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_potential import init_params, labelled_dataset, tiny_batch, tiny_potential

from mlipjax.losses import LossWeights, huber_loss, label_counts, mse_loss
from mlipjax.optim import Group, Hyper, Optimizer, OptimizerConfig, make_strategy
from mlipjax.train import ForceField, TrainState, accumulate, apply_gradient, fit, loss_gradient, train_step

SIZES = {"n_atoms": 24, "n_neighbors": 48, "n_graphs": 4}
# elements 6 and 8 of a set without them keep gradients of exactly zero: the case in which roots have no slope
RULES = (("embedding/.*", None), ("layer_0/.*", Group(power=2)), ("layer_1/.*", Group(power=1)), (".*", Group()))
HYPER = Hyper(0.02, 0.6, (0.0, 1.0, 1.0, 1.0), LossWeights())


@pytest.fixture(scope="module")
def dataset():
    return labelled_dataset((5, 7, 4, 6, 3, 8, 5, 4))


@pytest.fixture(scope="module")
def model():
    potential = tiny_potential()
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=8, warmup_steps=2, clip=0.5))
    return potential, optimizer, TrainState.create(init_params(potential), optimizer, jax.random.key(0))


@pytest.fixture(scope="module")
def step(model):
    potential, optimizer, _ = model
    return jax.jit(train_step(potential, optimizer, huber_loss()))


@pytest.fixture(scope="module")
def run(model):
    potential, optimizer, _ = model
    return jax.jit(fit(potential, optimizer, huber_loss()))


def batches(dataset, potential, groups):
    parts = [tiny_batch(dataset.subset(group), potential, **SIZES) for group in groups]
    return parts, jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def plain(state):
    return state.replace(key=jax.random.key_data(state.key))


def test_accumulated_micro_batches_equal_the_large_batch(dataset, model, step):
    potential, optimizer, state = model
    # labels that are missing here and there make the micro-batches' own means unequal
    weight = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.5, 1.0, 0.0])
    labels = [
        labels.replace(energy_weight=weight[i], forces_weight=weight[-1 - i]) for i, labels in enumerate(dataset.labels)
    ]
    dataset = dataset.__class__(dataset.systems, tuple(labels), dataset.infos)
    dataset = dataset.subset(range(4))
    whole = tiny_batch(dataset, potential, **SIZES)
    expected, info = step(state, whole, HYPER)

    micro, _ = batches(dataset, potential, [(0, 1), (2,), (3,)])
    counts = jax.tree.map(lambda *n: sum(n), *(label_counts(part.labels, part.graph) for part in micro))
    gradient = jax.jit(loss_gradient(ForceField(potential, huber_loss()), optimizer))
    total = accumulate(gradient(state.params, part, HYPER.weights, counts) for part in micro)
    found, micro_info = jax.jit(apply_gradient(optimizer))(state, total, HYPER)
    assert_trees_close(micro_info, info, rtol=1e-11)
    assert_trees_close(plain(found), plain(expected), rtol=1e-9, atol=1e-13)


def test_accumulating_nothing_is_an_error():
    with pytest.raises(ValueError, match="no micro-batch"):
        accumulate([])


def test_frozen_leaves_stay_the_same_to_the_last_bit(dataset):
    potential = tiny_potential()
    params = init_params(potential)
    strategy = make_strategy("freeze", params)
    optimizer = Optimizer(strategy.optimizer_config(4))
    state = TrainState.create(params, optimizer, jax.random.key(0))
    _, stacked = batches(dataset, potential, [(0, 1), (2, 3), (4, 5), (6, 7)])
    end, _ = jax.jit(fit(potential, optimizer, mse_loss()))(state, stacked, strategy.hyper(LossWeights()))
    for after in (end.params, end.ema_params):
        for frozen_name in ("embedding", "layer_0"):
            jax.tree.map(np.testing.assert_array_equal, after[frozen_name], params[frozen_name])
        for trained_name in ("layer_1", "readout_energy"):
            assert not np.array_equal(after[trained_name]["kernel"], params[trained_name]["kernel"])
    assert len(jax.tree.leaves(end.opt_state)) == len(jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize("broken", ["energy", "forces"])
def test_a_gradient_that_is_not_finite_changes_nothing(dataset, model, step, broken):
    potential, _, state = model
    batch = tiny_batch(dataset.subset((0, 1)), potential, **SIZES)
    state, info = step(state, batch, HYPER)
    assert info.finite
    label = np.array(getattr(batch.labels, broken))
    label[0] = np.nan
    after, info = step(state, batch.replace(labels=batch.labels.replace(**{broken: label})), HYPER)
    assert not info.finite
    assert np.isnan(info.loss)
    assert_trees_close(plain(after), plain(state), rtol=0)


def test_fit_equals_a_loop_of_steps(dataset, model, step, run):
    potential, _, state = model
    parts, stacked = batches(dataset, potential, [(0, 1), (2, 3), (4, 5)])
    end, infos = run(state, stacked, HYPER)
    losses = []
    for part in parts:
        state, info = step(state, part, HYPER)
        losses.append(info.loss)
    assert int(end.step) == 3
    np.testing.assert_allclose(infos.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(end.epoch_loss, sum(losses), rtol=1e-12)
    assert_trees_close(plain(end), plain(state), rtol=1e-10, atol=1e-14)


def test_vmapped_learning_rates_equal_separate_runs(dataset, model, run):
    potential, optimizer, state = model
    _, stacked = batches(dataset, potential, [(0, 1), (2, 3), (4, 5)])
    rates = jnp.array([1e-3, 1e-2, 5e-2])
    axes = Hyper(0, None, None, None)
    many = jax.jit(jax.vmap(fit(potential, optimizer, huber_loss()), in_axes=(None, None, axes)))
    ends, infos = many(state, stacked, HYPER.replace(learning_rate=rates))
    for i, rate in enumerate(rates):
        end, info = run(state, stacked, HYPER.replace(learning_rate=rate))
        assert_trees_close(infos.loss[i], info.loss, rtol=1e-9)
        ith = jax.tree.map(lambda leaf, i=i: leaf[i], ends.params)
        assert_trees_close(ith, end.params, rtol=1e-8, atol=1e-12)


@functools.cache
def held_out_loss(checkpoint=False):
    """Loss on held-out structures after training, as a function of learning rate, decay and energy weight."""
    dataset = labelled_dataset((5, 7, 4, 6, 3, 8, 5, 4))
    potential = tiny_potential()
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=6, warmup_steps=2, clip=0.5))
    params = init_params(potential)
    _, stacked = batches(dataset, potential, [(0, 1), (2,), (3, 4)] * 2)
    test = tiny_batch(dataset.subset((5, 6)), potential, **SIZES)
    loss = huber_loss(1e-2, 1e-1, 1e-2)
    run = fit(potential, optimizer, loss, checkpoint=checkpoint)

    def final(numbers):
        hyper = HYPER.replace(learning_rate=numbers[0], decay=numbers[1], weights=LossWeights(numbers[2], 1.0, 1.0))
        state = TrainState.create(params, optimizer, jax.random.key(0))
        state, _ = run(state, stacked, hyper)
        return loss(potential.apply(state.params, test.graph), test.labels, test.graph, LossWeights())[0]

    return jax.jit(final), jax.jit(jax.grad(final))


def test_gradient_through_training_agrees_with_central_differences():
    final, gradient = held_out_loss()
    point, step = np.array([0.02, 0.6, 1.0]), np.array([1e-6, 1e-5, 1e-5])
    found = np.asarray(gradient(point))
    differences = np.array(
        [(final(point + step * row) - final(point - step * row)) / (2 * step @ row) for row in np.eye(3)]
    )
    cosine = found @ differences / np.linalg.norm(found) / np.linalg.norm(differences)
    assert cosine > 0.99999
    assert np.all(np.abs(found) > 1e-6)
    np.testing.assert_allclose(found, differences, rtol=1e-4)


@pytest.mark.slow
def test_checkpointing_does_not_change_the_gradient():
    point = np.array([0.02, 0.6, 1.0])
    np.testing.assert_allclose(held_out_loss(True)[1](point), held_out_loss()[1](point), rtol=1e-9)


def test_float32_state_stays_float32_in_64_bit_mode(dataset):
    potential = tiny_potential()
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=4, warmup_steps=1))
    state = TrainState.create(init_params(potential, dtype=jnp.float32), optimizer, jax.random.key(0))
    batch = tiny_batch(dataset.subset((0, 1)), potential, dtype=np.float32, **SIZES)
    after, _ = jax.eval_shape(train_step(potential, optimizer, huber_loss()), state, batch, HYPER)
    assert jax.tree.map(lambda leaf: leaf.dtype, after) == jax.tree.map(lambda leaf: leaf.dtype, state)
