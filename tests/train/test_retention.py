"""Means that hold a fine-tune to what it knew: pulls, Fisher information, replay, and the choice of the epoch."""

import copy
import dataclasses

import jax
import numpy as np
import pytest
from test_train_loop import StopAt, assert_same, setup
from tiny_potential import init_params, labelled_dataset, tiny_potential

from mlipjax import tree
from mlipjax.losses import Pull, label_counts, pull_loss
from mlipjax.train import LabelledBatches, Listener, Prefactors, fisher_diagonal, predict, read_metrics
from mlipjax.train.tasks import compiled_gradient


def test_pull_is_the_formula():
    params = init_params(tiny_potential(), seed=1)
    anchor = init_params(tiny_potential(), seed=2)
    importance = jax.tree.map(np.abs, init_params(tiny_potential(), seed=3))
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (params, anchor, importance)]
    squares = (flat[0] - flat[1]) ** 2
    np.testing.assert_allclose(pull_loss(Pull(0.3, anchor), params), 0.15 * squares.sum())
    np.testing.assert_allclose(pull_loss(Pull(0.3, anchor, importance), params), 0.15 * (flat[2] * squares).sum())


def test_the_pull_is_added_once_whatever_the_micro_batches():
    run = copy.copy(setup())
    _, plain = run.step(run.state())
    assert run.train.accumulate == 2
    run.hyper = run.hyper.replace(pull=Pull(0.7, init_params(run.potential, seed=9)))
    _, pulled = run.step(run.state())
    np.testing.assert_allclose(pulled.loss - plain.loss, pull_loss(run.hyper.pull, run.params), rtol=1e-9)
    assert jax.tree.leaves(pulled.terms) == jax.tree.leaves(plain.terms)


@pytest.mark.parametrize("kind", ["l2sp", "ewc"])
def test_a_huge_pull_leaves_parameters_at_the_start(kind):
    run = copy.copy(setup())
    params = run.params
    importance = None
    if kind == "ewc":
        importance = fisher_diagonal(run.objective, run.optimizer, params, run.train, run.hyper.weights)
    free = run.run(epochs=20)
    run.hyper = run.hyper.replace(pull=Pull(1e6, params, importance))
    held = run.run(epochs=20)
    moved, kept = (tree.flatten_paths(state.params) for state in (free, held))
    start = tree.flatten_paths(params)
    # Adam's steps have the size of the learning rate however steep the pull: they go to and fro around the start
    far = np.concatenate([np.ravel(np.abs(moved[path] - start[path])) for path in start])
    near = np.concatenate([np.ravel(np.abs(kept[path] - start[path])) for path in start])
    if importance is not None:
        weights = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(importance)])
        far, near = far[weights > 0.1], near[weights > 0.1]
    assert np.sqrt(np.mean(near**2)) < 0.15 * np.sqrt(np.mean(far**2))
    before = run.validation_loss(params)
    after = [run.validation_loss(state.params) for state in (held, free)]
    assert abs(after[0] - before) < 0.3 * abs(after[1] - before)


def test_fisher_is_the_mean_of_squared_gradients_of_single_structures():
    run = setup()
    found = fisher_diagonal(run.objective, run.optimizer, run.params, run.train, run.hyper.weights)
    squares = []
    for plan in run.train.plans:
        assert len(plan.indices) == 1
        batch = run.train.batch(plan)
        counts = label_counts(batch.labels, batch.graph)
        weights = Prefactors.constant(run.hyper.weights)
        gradient = compiled_gradient(run.objective, run.optimizer, run.params, batch, weights, counts).gradient
        squares.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]) ** 2)
    expected = np.mean(squares, axis=0)
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])
    np.testing.assert_allclose(flat, expected / expected.mean(), rtol=1e-9)


def test_fisher_needs_labels_that_say_something():
    run = setup()
    none = run.train.dataset.subset(range(2))
    labels = tuple(label.replace(energy_weight=0.0, forces_weight=0.0, stress_weight=0.0) for label in none.labels)
    empty = LabelledBatches.create(run.potential, dataclasses.replace(none, labels=labels), 1, dtype=np.float64)
    with pytest.raises(ValueError, match="Fisher information of the 2 structures has the mean 0"):
        fisher_diagonal(run.objective, run.optimizer, run.params, empty, run.hyper.weights)


def replayed(run, seed=7):
    dataset = labelled_dataset((5, 7, 4, 6), seed=seed)
    return LabelledBatches.create(run.potential, dataset, 2, dtype=np.float64, max_slots=1)


def test_replay_adds_its_own_mean_times_its_weight():
    run = copy.copy(setup())
    run.replay, run.replay_weight = replayed(run), 0.3
    target, extra = next(run.mixture().steps(jax.random.key(0), 400))
    infos = [run.step(run.state(), draws)[1] for draws in ((target,), (extra,), (target, extra))]
    first, second, both = (info.loss for info in infos)
    np.testing.assert_allclose(both, first + second, rtol=1e-10)
    run.replay_weight = 1.0
    _, whole = next(run.mixture().steps(jax.random.key(0), 400))
    np.testing.assert_allclose(second, 0.3 * run.step(run.state(), (whole,))[1].loss, rtol=1e-10)
    assert jax.tree.leaves(infos[2].terms["training"]) == jax.tree.leaves(infos[0].terms["training"])


def test_a_run_with_pull_replay_and_anchor_resumes_bit_for_bit(tmp_path):
    run = copy.copy(setup())
    run.hyper = run.hyper.replace(pull=Pull(0.01, run.params))
    run.replay, run.replay_weight, run.anchor, run.anchor_weight = replayed(run), 0.5, replayed(run, 5), 0.5
    whole = run.run()
    for step in (3, 8):
        with pytest.raises(KeyboardInterrupt):
            run.run(folder=tmp_path, listener=StopAt(step))
    resumed = run.run(folder=tmp_path)
    assert_same(resumed, whole)
    traces = len(run.potential.module.log.sizes)
    run.run()
    assert len(run.potential.module.log.sizes) == traces


def test_target_and_anchor_decide_together_and_both_are_logged(tmp_path):
    run = copy.copy(setup())
    # the anchor's labels are the model's own, so that it can only forget
    own = run.train.dataset.subset(range(3))
    bare = LabelledBatches.create(run.potential, own, 2, dtype=np.float64, max_slots=1)
    predictions = predict(run.potential, run.params, bare)
    labels = tuple(
        label.replace(energy=p.energy, forces=p.forces, stress=p.stress)
        for label, p in zip(own.labels, predictions, strict=True)
    )
    run.anchor = LabelledBatches.create(run.potential, dataclasses.replace(own, labels=labels), 2, dtype=np.float64)

    class Collect(Listener):
        def __init__(self):
            self.records = []
            self.first = None

        def begin(self, record):
            self.first = record

        def epoch(self, record):
            self.records.append(record)

    chosen = {}
    for weight in (0.0, 1e6):
        listener = Collect()
        folder = tmp_path / str(weight)
        run.anchor_weight = weight
        state = run.run(epochs=8, listener=listener, folder=folder)
        chosen[weight] = int(state.best_epoch)
        records = read_metrics(folder)
        assert [r["anchor_loss"] for r in records] == [r["anchor_loss"] for r in listener.records]
        scores = [r["valid_loss"] + weight * r["anchor_loss"] for r in records]
        np.testing.assert_allclose([r["score"] for r in records], scores)
        # the model before training, that of the anchor's labels, has the lowest score, and is given up for a better fit
        assert listener.first["valid_loss"] > records[0]["valid_loss"]
        assert listener.first["score"] < min(scores) or weight == 0.0
        assert int(np.argmin(scores)) + 1 == chosen[weight]
        assert records[0]["anchor_force_mae_meV_per_A"] > 0.0
    assert chosen[1e6] < chosen[0.0]


def test_without_an_anchor_the_validation_loss_decides(tmp_path):
    run = setup()
    run.run(folder=tmp_path)
    assert all(r["score"] == r["valid_loss"] and r["anchor_loss"] is None for r in read_metrics(tmp_path))
