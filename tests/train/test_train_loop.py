import copy
import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_potential import init_params, labelled_dataset, tiny_potential

from mlipjax.data import read_dataset
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.train import (
    Checkpoints,
    ForceField,
    LabelledBatches,
    Listener,
    LossJudge,
    Mixture,
    NonFiniteError,
    Prefactors,
    Task,
    TrainConfig,
    Training,
    TrainState,
    mixture_step,
    read_metrics,
    train,
    validation_loss,
)

ROOT = Path(__file__).resolve().parents[2]
N_TRAIN = 9


class Setup:
    """A small run: 5 steps per epoch, each accumulating two micro-batches of one structure."""

    def __init__(self):
        dataset = labelled_dataset((5, 7, 4, 6, 3, 8, 5, 4, 6, 5, 4))
        self.potential = tiny_potential()
        self.params = init_params(self.potential)
        strategy = make_strategy("llrd", self.params).override(learning_rate=0.05)
        arguments = {"dtype": np.float64, "max_slots": 1}
        self.train = LabelledBatches.create(self.potential, dataset.subset(range(N_TRAIN)), 2, **arguments)
        self.valid = LabelledBatches.create(self.potential, dataset.subset((9, 10)), 2, **arguments)
        self.optimizer = Optimizer(strategy.optimizer_config(400))
        self.objective = ForceField(self.potential, huber_loss())
        self.hyper = strategy.hyper(LossWeights())
        self.replay, self.replay_weight, self.anchor, self.anchor_weight = None, 1.0, None, 0.0

    def state(self):
        return TrainState.create(self.params, self.optimizer, jax.random.key(0))

    def mixture(self):
        key = jax.random.key(0)
        tasks = [Task("training", self.objective, self.train, key, prefactors=Prefactors.constant(self.hyper.weights))]
        if self.replay is not None:
            less = jax.tree.map(lambda weight: self.replay_weight * weight, self.hyper.weights)
            tasks.append(
                Task("replay", self.objective, self.replay, jax.random.key(1), prefactors=Prefactors.constant(less))
            )
        return Mixture(tuple(tasks), "sum")

    def step(self, state, draws=None):
        """One optimiser step: the one that comes next."""
        mixture = self.mixture()
        draws = next(mixture.steps(state.key, 400, int(state.step))) if draws is None else draws
        return mixture_step(mixture, self.optimizer, state, draws, self.hyper)

    def run(self, state=None, epochs=2, patience=None, **arguments):
        """Run epochs, saving every step."""
        epoch = self.train.steps_per_epoch
        config = TrainConfig(epochs * epoch, epoch, patience, checkpoint_seconds=0.0)
        judge = LossJudge(self.objective, self.hyper.weights, self.valid, self.anchor, self.anchor_weight)
        state = self.state() if state is None else state
        return train(Training(self.mixture(), self.optimizer, state, self.hyper, config, judge), **arguments)[0]

    def validation_loss(self, params, batches=None):
        return validation_loss(self.objective, params, batches or self.valid, self.hyper.weights)[0]


@functools.cache
def setup():
    return Setup()


def killable(folder):
    """Run as the subprocess of the test below: says when a step is done, then saves it."""

    class Report(Listener):
        def step(self, state, info):
            print(int(state.step), flush=True)

    Setup().run(folder=folder, listener=Report())


class StopAt(Listener):
    """Interrupts a run after a step, as a kill would: nothing is saved or cleaned up."""

    def __init__(self, step):
        self.last = step

    def step(self, state, info):
        if int(state.step) == self.last:
            raise KeyboardInterrupt


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, *(s.replace(key=jax.random.key_data(s.key)) for s in (a, b)))


def without_seconds(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path):
    run = setup()
    assert run.train.steps_per_epoch == 5
    assert run.train.accumulate == 2
    expected = run.run(folder=tmp_path / "straight")
    folder = tmp_path / "interrupted"
    # in the middle of epochs, and at the end of one before its validation
    for step in (2, 5, 8):
        with pytest.raises(KeyboardInterrupt):
            run.run(folder=folder, listener=StopAt(step))
    found = run.run(folder=folder)
    assert_same(found, expected)
    assert int(found.step) == 10
    records = read_metrics(folder)
    assert [record["epoch"] for record in records] == [1, 2]
    assert without_seconds(records) == without_seconds(read_metrics(tmp_path / "straight"))
    assert_same(run.run(folder=folder), expected)


def test_kill_9_while_saving_then_again_ends_with_the_same_bits(tmp_path):
    expected = setup().run()
    script = f"import conftest, test_train_loop as t; t.killable({str(tmp_path)!r})"
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/train")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.strip() == "7":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split()[-1] == "10"
    assert 6 <= int(done.stdout.split()[0]) <= 8
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert_same(checkpoints.restore(setup().state()), expected)


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    run = setup()
    run.run(folder=tmp_path, epochs=1)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "st')
    run.run(folder=tmp_path, epochs=2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_later_epochs_compile_nothing():
    run = setup()
    log = run.potential.module.log.sizes
    run.run(epochs=1)
    n_traces = len(log)
    shapes = {run.train.batch(plan).graph.sizes for plan in run.train.plans}
    assert len(shapes) <= 8
    run.run(epochs=3)
    assert len(log) == n_traces


def test_four_structures_are_overfitted():
    run = copy.copy(setup())
    dataset = run.train.dataset.subset((0, 2, 3, 4))
    run.train = run.valid = LabelledBatches.create(run.potential, dataset, 4, dtype=np.float64)
    before = run.validation_loss(run.params)
    state = run.run(epochs=400)
    after = run.validation_loss(state.best_params)
    assert after < 0.02 * before


def test_the_best_epoch_is_kept_and_patience_ends_the_run():
    run = copy.copy(setup())
    records = []

    class Collect(Listener):
        def epoch(self, record):
            records.append(record)

    # after training on the labels of another teacher, validation can only get worse sooner or later
    wrong = labelled_dataset(tuple(s.n_atoms for s in run.valid.dataset.systems), seed=5)
    run.valid = LabelledBatches.create(run.potential, wrong, 2, dtype=np.float64, max_slots=1)
    state = run.run(epochs=40, patience=3, listener=Collect())
    losses = [record["valid_loss"] for record in records]
    best = int(np.argmin(losses)) + 1
    assert int(state.best_epoch) == best
    assert len(records) == best + 3 < 40
    loss = run.validation_loss(state.best_params)
    assert loss == pytest.approx(losses[best - 1], rel=1e-12)
    assert float(state.best_metric) == loss


def test_a_run_that_diverges_stops_and_saves_the_frames(tmp_path):
    run = copy.copy(setup())
    # a label whose square no number holds; readers refuse it, data made in memory may have it
    dataset = run.train.dataset
    absurd = dataset.labels[3].replace(forces=np.full_like(dataset.labels[3].forces, 1e200))
    labels = tuple(absurd if i == 3 else label for i, label in enumerate(dataset.labels))
    dataset = dataset.__class__(dataset.systems, labels, dataset.infos)
    run.train = LabelledBatches.create(run.potential, dataset, 2, dtype=np.float64, max_slots=1)
    with pytest.raises(NonFiniteError, match=r"loss nan, .* on frames \[3\] of the training set") as error:
        run.run(folder=tmp_path)
    saved = read_dataset(tmp_path / "nonfinite_frames.extxyz", with_labels=False)
    assert len(saved) == 1
    np.testing.assert_array_equal(saved.systems[0].positions, dataset.systems[3].positions)
    step = int(str(error.value).split()[1].rstrip(":"))
    last_good = run.state()
    for _ in range(step - 1):
        last_good, _ = run.step(last_good)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        found = checkpoints.restore(run.state())
    # epoch 0 was judged before the first step
    assert np.isfinite(found.best_metric)
    assert_same(found, last_good.replace(best_metric=found.best_metric))


def test_the_model_before_training_is_a_candidate_for_the_best_epoch():
    run = copy.copy(setup())
    run.hyper = dataclasses.replace(run.hyper, learning_rate=jnp.asarray(10.0 * float(run.hyper.learning_rate)))
    first = []

    class Collect(Listener):
        def begin(self, record):
            first.append(record)

    state = run.run(epochs=1, listener=Collect())
    assert first[0]["epoch"] == 0
    last = run.validation_loss(state.ema_params)
    assert (int(state.best_epoch) == 0) == (first[0]["score"] <= last)
    assert float(state.best_metric) == pytest.approx(min(first[0]["score"], last))


def test_without_validation_the_last_epoch_is_kept_also_after_an_interruption(tmp_path):
    run = copy.copy(setup())
    run.valid = None
    expected = run.run()
    assert int(expected.best_epoch) == 2
    jax.tree.map(np.testing.assert_array_equal, expected.best_params, expected.ema_params)
    with pytest.raises(KeyboardInterrupt):
        run.run(folder=tmp_path, listener=StopAt(7))
    assert_same(run.run(folder=tmp_path), expected)
    assert [record["valid_loss"] for record in read_metrics(tmp_path)] == [None, None]


def test_validation_loss_does_not_depend_on_batching():
    run = setup()
    losses = [
        run.validation_loss(
            run.params, LabelledBatches.create(run.potential, run.train.dataset, size, dtype=np.float64)
        )
        for size in (1, 9)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-12)
