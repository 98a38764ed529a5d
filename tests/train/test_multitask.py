"""Mixtures of tasks: who trains what, when, and without compiling anew."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from multitask_case import HEAD, SIZES, model, program, property_data
from tiny_potential import labelled_dataset

from mlipjax import tree
from mlipjax.losses import LossWeights
from mlipjax.train import NonFiniteError, Snapshots, read_metrics
from mlipjax.train.multitask import Mixture, Prefactors, Task
from mlipjax.train.multitask import _gradient as task_gradient
from mlipjax.train.multitask_batches import Epochs, PropertyStream
from mlipjax.train.multitask_loop import MixtureConfig, MixtureListener, train_mixture
from mlipjax.train.multitask_tasks import denoising_task, property_report

PROPERTY, FORCE_FIELD = 0, 1
CONFIG = MixtureConfig(12, 4, ("oxygen", "mae"))


def moved(before, after):
    """Groups of parameters of which a leaf changed."""
    a, b = tree.flatten_paths(before), tree.flatten_paths(after)
    return {path.split("/")[0] for path in a if not np.array_equal(a[path], b[path])}


def test_a_step_leaves_the_heads_of_other_tasks_alone_to_the_last_bit():
    mixture, state, hyper = program()
    layers = {"embedding", "layer_0", "layer_1"}
    # twice each: Adam's momentum would move a head with a zero gradient from its second step on
    for turn, own in ((PROPERTY, "property_oxygen"), (FORCE_FIELD, "readout_energy"), (PROPERTY, "property_oxygen")):
        after, step = mixture.step(state, turn, 0, hyper)
        assert moved(state.params, after.params) == layers | {own}
        assert moved(state.params["property_oxygen"], after.params["property_oxygen"]) <= {"network"}
        assert step.info.finite
        state = after


def test_changing_tasks_compiles_nothing_anew():
    mixture, state, hyper = program()
    log = model()[0].module.log.sizes
    for turn in (PROPERTY, FORCE_FIELD):
        state, _ = mixture.step(state, turn, 0, hyper)
    traced = len(log)
    for number in range(1, 4):
        for turn in (FORCE_FIELD, PROPERTY, PROPERTY):
            state, _ = mixture.step(state, turn, number, hyper)
    assert len(log) == traced
    assert traced > 0


def test_the_sum_of_tasks_has_the_weighted_sum_of_their_gradients():
    mixture, state, hyper = program("sum")
    after, step = mixture.step(state, 0, 2, hyper)
    assert set(step.terms) == {"oxygen", "force_field"}
    losses, gradients = [], []
    for task, share in zip(mixture.mixture.tasks, (1.0, 0.5), strict=True):
        static = task.objective, mixture.optimizer
        parts = [task_gradient(*static, state.params, 0, part, task.prefactors) for part in task.batches(2)]
        losses.append(share * sum(part.loss for part in parts))
        gradients += [jax.tree.map(lambda leaf, w=share: w * leaf, part.gradient) for part in parts]
    assert len(gradients) == 3  # one batch of the property, two micro-batches of the force field
    assert step.info.loss == pytest.approx(float(sum(losses)), rel=1e-12)
    total = jax.tree.map(lambda *leaves: sum(leaves), *gradients)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(total)))
    assert step.info.gradient_norm == pytest.approx(norm, rel=1e-10)
    assert moved(state.params, after.params) == {*state.params}


def test_turns_follow_the_shares_and_count_each_task_by_itself():
    def task(name, share):
        return Task(name, (), lambda *_: None, lambda _: [], Prefactors.constant(1.0), share)

    mixture = Mixture((task("a", 3.0), task("b", 1.0)))
    turns, before = mixture.turns(jax.random.key(0), 4000)
    # binomial: standard deviation of the fraction is 0.0068
    assert np.mean(turns == 0) == pytest.approx(0.75, abs=0.03)
    for index in (0, 1):
        assert before[turns == index].tolist() == list(range(int(np.sum(turns == index))))
    again, _ = mixture.turns(jax.random.key(0), 4000)
    np.testing.assert_array_equal(turns, again)
    assert np.any(turns != mixture.turns(jax.random.key(1), 4000)[0])
    with pytest.raises(ValueError, match="different names"):
        Mixture((task("a", 1.0), task("a", 1.0)))


def test_prefactors_move_with_the_learning_rate_from_start_to_limit():
    moving = Prefactors(LossWeights(0.2, 100.0, 0.02), LossWeights(20.0, 60.0, 1.0))
    assert jax.tree.leaves(moving.at(1.0)) == pytest.approx([0.2, 100.0, 0.02])
    assert jax.tree.leaves(moving.at(0.0)) == pytest.approx([20.0, 60.0, 1.0])
    assert moving.at(0.25).forces == pytest.approx(70.0)
    assert jax.tree.leaves(Prefactors.constant(LossWeights()).at(0.3)) == jax.tree.leaves(LossWeights())


def test_training_learns_and_logs_every_task_apart(tmp_path):
    mixture, state, hyper = program("draw", 60)
    hyper = dataclasses.replace(hyper, learning_rate=0.02)
    seen = []
    listener = MixtureListener()
    listener.interval = seen.append
    end = train_mixture(
        mixture, state, hyper, MixtureConfig(60, 20, ("oxygen", "mae")), folder=tmp_path, listener=listener
    )
    records = read_metrics(tmp_path)
    assert records == json.loads(json.dumps(seen))
    assert [record["step"] for record in records] == [20, 40, 60]
    assert all(sum(task["steps"] for task in record["tasks"].values()) == 20 for record in records)
    first, last = records[0]["tasks"], records[-1]["tasks"]
    assert set(first["force_field"]["train"]) == {"energy", "forces", "stress"}
    assert last["oxygen"]["valid"]["mae"] < 0.6 * first["oxygen"]["valid"]["mae"]
    assert last["force_field"]["train"]["forces"] < first["force_field"]["train"]["forces"]
    best = min(records, key=lambda record: record["score"])
    assert (float(end.best_metric), int(end.best_epoch)) == (pytest.approx(best["score"]), best["step"])


class Killed(Exception):
    pass


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    mixture, state, hyper = program()
    whole = train_mixture(mixture, state, hyper, CONFIG)

    class Killer(MixtureListener):
        def interval(self, record):
            if record["step"] == 8:
                raise Killed

    with pytest.raises(Killed):
        train_mixture(mixture, state, hyper, CONFIG, folder=tmp_path, listener=Killer())
    resumed = train_mixture(mixture, state, hyper, CONFIG, folder=tmp_path)
    for name in ("params", "ema_params", "best_params", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, name), getattr(resumed, name))
    assert [record["step"] for record in read_metrics(tmp_path)] == [4, 8, 12]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where():
    mixture, state, hyper = program()
    broken = jax.tree.map(lambda leaf: leaf * np.nan, state.params["layer_0"])
    state = dataclasses.replace(state, params={**state.params, "layer_0": broken})
    written = []
    snapshots = Snapshots(frozenset({1}), lambda step, params: written.append(step))
    with pytest.raises(NonFiniteError, match=r"step 1 \((oxygen|force_field)\): loss nan"):
        train_mixture(mixture, state, hyper, CONFIG, snapshots=snapshots)
    assert written == []


def test_batches_are_planned_up_front_and_every_epoch_holds_every_structure():
    data = property_data(labelled_dataset((3, 5, 6, 6, 6, 4, 7)))
    stream = PropertyStream.create(model()[0], data, 3, passes=5.0, dtype=np.float64)
    shapes = {(plan.n_atoms, plan.n_neighbors) for plan in stream.plans}
    epochs = Epochs(stream, jax.random.key(0))
    n = stream.steps_per_epoch
    for epoch in range(3):
        plans = [epochs.plan(epoch * n + step) for step in range(n)]
        assert sorted(i for plan in plans for i in plan.indices) == list(range(7))
        assert {(plan.n_atoms, plan.n_neighbors) for plan in plans} <= shapes
    batch = stream.batch(epochs.plan(0))
    np.testing.assert_allclose(batch.targets[: len(epochs.plan(0).indices)], data.targets[list(epochs.plan(0).indices)])
    with pytest.raises(ValueError, match=r"more than max_slots=50: choose a batch size of"):
        PropertyStream.create(model()[0], data, 3, max_slots=50)


def test_displaced_structures_keep_within_their_slots_and_say_how_they_were_displaced():
    data = property_data(labelled_dataset(SIZES))
    stream = PropertyStream.create(model()[0], data, 4, dtype=np.float64, noise=0.1)
    clean = stream.batch(stream.plans[0]).graph
    noisy = stream.noisy_batch(stream.plans[0], jax.random.key(0))
    mask = clean.atom_mask
    np.testing.assert_allclose(noisy.graph.positions[mask], clean.positions[mask] + 0.1 * noisy.noise[mask])
    assert np.abs(noisy.noise).max() <= 2.5
    assert noisy.noise[mask].std() == pytest.approx(1.0, abs=0.25)
    other = stream.noisy_batch(stream.plans[0], jax.random.key(1))
    assert np.any(other.noise != noisy.noise)
    with pytest.raises(ValueError, match="needs noise and a vector head"):
        denoising_task(model()[0], HEAD, stream, jax.random.key(0))


def test_reports_hold_known_errors():
    targets = np.linspace(0.0, 1.0, 400)
    errors = np.where(np.arange(400) % 2 == 0, 0.3, -0.1)
    report = property_report(targets, targets + errors)
    assert (report["n"], report["mean"], report["mae"]) == (400, pytest.approx(0.1), pytest.approx(0.2))
    assert report["rmse"] == pytest.approx(np.sqrt(0.05))
    low, high = report["confidence_95"]["mae"]
    # standard error of a mean of 0.1 and 0.3 over 400: 0.005
    assert (low, high) == pytest.approx((0.2 - 0.0098, 0.2 + 0.0098), abs=0.002)
