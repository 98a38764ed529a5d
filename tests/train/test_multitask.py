"""Mixtures of tasks: who trains what, when, and without compiling anew."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from multitask_case import HEAD, SIZES, drawn, model, property_data, step, training
from tiny_potential import labelled_dataset

from mlipjax import tree
from mlipjax.data.properties import targets
from mlipjax.losses import LossWeights
from mlipjax.nn.readouts import PropertyHead
from mlipjax.train import (
    Checkpoints,
    Denoising,
    LabelledBatches,
    Listener,
    Mixture,
    NonFiniteError,
    Prefactors,
    Snapshots,
    Task,
    property_report,
    read_metrics,
    train,
)
from mlipjax.train.tasks import compiled_gradient

PROPERTY, FORCE_FIELD = 0, 1


def moved(before, after):
    """Groups of parameters of which a leaf changed."""
    a, b = tree.flatten_paths(before), tree.flatten_paths(after)
    return {path.split("/")[0] for path in a if not np.array_equal(a[path], b[path])}


def test_a_step_leaves_the_heads_of_other_tasks_alone_to_the_last_bit():
    run = training()
    state = run.state
    layers = {"embedding", "layer_0", "layer_1"}
    # twice each: Adam's momentum would move a head with a zero gradient from its second step on
    for turn, own in ((PROPERTY, "property_oxygen"), (FORCE_FIELD, "readout_energy"), (PROPERTY, "property_oxygen")):
        after, info = step(run, state, drawn(run, turn))
        assert moved(state.params, after.params) == layers | {own}
        assert moved(state.params["property_oxygen"], after.params["property_oxygen"]) <= {"network"}
        assert info.finite
        state = after


def test_changing_tasks_compiles_nothing_anew():
    run = training()
    state, log = run.state, model()[0].module.log.sizes
    for turn in (PROPERTY, FORCE_FIELD):
        state, _ = step(run, state, drawn(run, turn))
    traced = len(log)
    for number in range(1, 4):
        for turn in (FORCE_FIELD, PROPERTY, PROPERTY):
            state, _ = step(run, state, drawn(run, turn, number))
    assert len(log) == traced
    assert traced > 0


def test_the_sum_of_tasks_has_the_weighted_sum_of_their_gradients():
    run = training("sum")
    draws = next(run.mixture.steps(run.state.key, 12, 2))
    after, info = step(run, run.state, draws)
    assert set(info.terms) == {"oxygen", "force_field"}
    losses, gradients = [], []
    for one, share in zip(draws, (1.0, 0.5), strict=True):
        arguments = one.task.objective, run.optimizer, run.state.params
        parts = [compiled_gradient(*arguments, part, one.task.prefactors, one.counts) for part in one.parts]
        losses.append(share * sum(part.loss for part in parts))
        gradients += [jax.tree.map(lambda leaf, w=share: w * leaf, part.gradient) for part in parts]
    assert len(gradients) == 3  # one batch of the property, two micro-batches of the force field
    assert info.loss == pytest.approx(float(sum(losses)), rel=1e-12)
    total = jax.tree.map(lambda *leaves: sum(leaves), *gradients)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(total)))
    assert info.gradient_norm == pytest.approx(norm, rel=1e-10)
    assert moved(run.state.params, after.params) == {*run.state.params}


def bare_task(name, share=1.0):
    return Task(name, None, SimpleNamespace(mesh=None), jax.random.key(0), share=share)


def test_turns_follow_the_shares():
    mixture = Mixture((bare_task("a", 3.0), bare_task("b", 1.0)))
    turns = mixture.turns(jax.random.key(0), 4000)
    # binomial: standard deviation of the fraction is 0.0068
    assert np.mean(turns == 0) == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(turns, mixture.turns(jax.random.key(0), 4000))
    assert np.any(turns != mixture.turns(jax.random.key(1), 4000))
    with pytest.raises(ValueError, match="different names"):
        Mixture((bare_task("a"), bare_task("a")))


@pytest.mark.parametrize("kind", ["draw", "sum"])
def test_steps_go_on_anywhere_with_what_they_would_have_been_on(kind):
    run = training(kind)

    def seen(done):
        return [[(one.task.name, one.plans) for one in draws] for draws in run.mixture.steps(run.state.key, 12, done)]

    whole = seen(0)
    assert len(whole) == 12
    for done in (1, 4, 11):
        assert seen(done) == whole[done:]
    # each task counts its own steps: an epoch of a task holds every structure once
    plans = [plans for draws in whole for name, plans in draws if name == "oxygen"][:2]
    assert sorted(i for step in plans for plan in step for i in plan.indices) == list(range(len(SIZES)))


def test_prefactors_move_with_the_learning_rate_from_start_to_limit():
    moving = Prefactors(LossWeights(0.2, 100.0, 0.02), LossWeights(20.0, 60.0, 1.0))
    assert jax.tree.leaves(moving.at(1.0)) == pytest.approx([0.2, 100.0, 0.02])
    assert jax.tree.leaves(moving.at(0.0)) == pytest.approx([20.0, 60.0, 1.0])
    assert moving.at(0.25).forces == pytest.approx(70.0)
    assert jax.tree.leaves(Prefactors.constant(LossWeights()).at(0.3)) == jax.tree.leaves(LossWeights())


def test_training_learns_and_logs_every_task_apart(tmp_path):
    seen = []
    listener = Listener()
    listener.epoch = seen.append
    end, found = train(training("draw", 60, 20, 0.02), folder=tmp_path, listener=listener)
    records = read_metrics(tmp_path)
    assert records == json.loads(json.dumps(seen)) == found
    assert [(record["epoch"], record["step"]) for record in records] == [(1, 20), (2, 40), (3, 60)]
    assert all(sum(task["steps"] for task in record["tasks"].values()) == 20 for record in records)
    first, last = records[0]["tasks"], records[-1]["tasks"]
    assert set(first["force_field"]["train"]) == {"energy", "forces", "stress"}
    assert last["oxygen"]["valid"]["mae"] < 0.6 * first["oxygen"]["valid"]["mae"]
    assert last["force_field"]["train"]["forces"] < first["force_field"]["train"]["forces"]
    best = min(records, key=lambda record: record["score"])
    assert (float(end.best_metric), int(end.best_epoch)) == (pytest.approx(best["score"]), best["epoch"])


class KillAt(Listener):
    def __init__(self, step):
        self.last = step

    def step(self, state, info):
        if int(state.step) == self.last:
            raise KeyboardInterrupt


def assert_same(whole, resumed):
    for name in ("params", "ema_params", "best_params", "opt_state", "best_epoch", "epoch_loss"):
        jax.tree.map(np.testing.assert_array_equal, getattr(whole, name), getattr(resumed, name))


def test_a_killed_run_ends_with_the_same_bits_and_records(tmp_path):
    run = training()
    whole, records = train(run)
    for step_ in (3, 10):
        with pytest.raises(KeyboardInterrupt):
            train(run, folder=tmp_path, listener=KillAt(step_))
    resumed, again = train(run, folder=tmp_path)
    assert_same(whole, resumed)
    assert [{**record, "seconds": 0} for record in again] == [{**record, "seconds": 0} for record in records]


def test_a_checkpoint_that_counts_its_best_step_goes_on(tmp_path):
    run = training()
    with pytest.raises(KeyboardInterrupt):
        train(run, folder=tmp_path / "now", listener=KillAt(9))
    with Checkpoints(tmp_path / "now" / "checkpoints") as checkpoints:
        state = checkpoints.restore(run.state)
    assert (int(state.step), float(state.epoch_loss)) == (8, 0.0)
    # what mixtures of earlier versions saved: the step of the best parameters, and a sum that never began anew
    old = dataclasses.replace(state, best_epoch=4 * state.best_epoch, epoch_loss=state.epoch_loss + 1.5)
    with Checkpoints(tmp_path / "old" / "checkpoints") as checkpoints:
        checkpoints.save(8, old)
    assert_same(train(run)[0], train(run, folder=tmp_path / "old")[0])


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where():
    run = training()
    broken = jax.tree.map(lambda leaf: leaf * np.nan, run.state.params["layer_0"])
    state = dataclasses.replace(run.state, params={**run.state.params, "layer_0": broken})
    # only the averaged parameters are judged: they are whole before the first step
    written = []
    snapshots = Snapshots(frozenset({1}), lambda step, params: written.append(step))
    with pytest.raises(NonFiniteError, match=r"step 1: loss nan, .* on frames \[.*\] of the (oxygen|force_field) set"):
        train(dataclasses.replace(run, state=state), snapshots=snapshots)
    assert written == []


def test_batches_hold_the_property_and_a_large_one_is_divided():
    data = property_data(labelled_dataset((3, 5, 6, 6, 6, 4, 7)))
    batches = LabelledBatches.create(model()[0], data, 3, passes=5.0, dtype=np.float64)
    plan = next(batches.steps(jax.random.key(0)))[0]
    values = batches.batch(plan).labels.properties["oxygen"]
    np.testing.assert_allclose(values[: len(plan.indices)], targets(data, "oxygen")[list(plan.indices)])
    assert values.shape == (3,)
    divided = LabelledBatches.create(model()[0], data, 3, max_slots=50)
    assert divided.accumulate == 3


def test_displaced_structures_keep_within_their_slots_and_say_how_they_were_displaced():
    head = PropertyHead("noise", "vector")
    objective = Denoising(model()[0], head, 0.1)
    data = property_data(labelled_dataset(SIZES))
    batches = LabelledBatches.create(model()[0], data, 4, dtype=np.float64, reach=objective.reach)
    clean = batches.batch(batches.plans[0]).graph
    (noisy,) = objective.draw(batches, batches.plans[:1], jax.random.key(0), 0)
    mask, noise = clean.atom_mask, noisy.labels.properties["noise"]
    np.testing.assert_allclose(noisy.graph.positions[mask], clean.positions[mask] + 0.1 * noise[mask])
    assert np.abs(noise).max() <= 2.5
    assert noise[mask].std() == pytest.approx(1.0, abs=0.25)
    with pytest.raises(ValueError, match="needs noise and a vector head"):
        Denoising(model()[0], HEAD, 0.1)


def test_reports_hold_known_errors():
    targets = np.linspace(0.0, 1.0, 400)
    errors = np.where(np.arange(400) % 2 == 0, 0.3, -0.1)
    report = property_report(targets, targets + errors)
    assert (report["n"], report["mean"], report["mae"]) == (400, pytest.approx(0.1), pytest.approx(0.2))
    assert report["rmse"] == pytest.approx(np.sqrt(0.05))
    low, high = report["confidence_95"]["mae"]
    # standard error of a mean of 0.1 and 0.3 over 400: 0.005
    assert (low, high) == pytest.approx((0.2 - 0.0098, 0.2 + 0.0098), abs=0.002)
