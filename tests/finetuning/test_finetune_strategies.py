"""Strategies end to end on a one-layer model: what moves, what is kept, what is refused, and what a kill changes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from labelled_files import changed, labelled, model, other_material, rock_salts

from mlipjax import tree
from mlipjax.data import write_dataset
from mlipjax.finetuning import FinetuneSettings, finetune
from mlipjax.finetuning.retain import REPLAY_HEAD, add_head
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.finetuning.single import prepare
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.train import LabelledBatches, error_report, evaluate, predict, read_metrics

LONG = 20
"""Epochs after which a model has forgotten something."""


@functools.cache
def data():
    """Labels of another material: a fine-tune has something to learn, and something to forget."""
    other = other_material(model()[1])
    train = labelled(rock_salts(6), other, run=lambda i: i // 2)
    return train, labelled(rock_salts(2, seed=9), other, seed=1, run=lambda i: 100 + i)


def settings(strategy, **changes):
    defaults = {"epochs": 3, "batch_size": 2, "replay_size": 8, "learning_rate": 3e-3, "e0s": "estimate"}
    # labels of another network are no measure of units
    return FinetuneSettings(strategy=strategy, ignore=("units", "sign"), **(defaults | changes))


def prepared(strategy, **changes):
    return prepare(model(), *data(), settings(strategy, **changes))


def distance(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(np.sqrt(sum(np.sum((np.asarray(x) - np.asarray(y)) ** 2) for x, y in leaves)))


class StopAt(FinetuneListener):
    def __init__(self, step):
        self.last = step

    def step(self, state, info):
        if int(state.step) == self.last:
            raise KeyboardInterrupt


@functools.cache
def naive():
    return finetune(model(), *data(), settings=settings("naive", epochs=LONG))


@pytest.mark.slow
def test_replay_retains_more_than_naive_training_at_equal_rate():
    replayed = finetune(model(), *data(), settings=settings("pseudo-replay", epochs=LONG, replay_size=16))
    reports = {"naive": naive().report, "replay": replayed.report}
    for report in reports.values():
        assert report["retained"]["before"]["force_mae_meV_per_A"] < 1e-3  # single precision
        assert report["after"]["force_mae_meV_per_A"] < report["before"]["force_mae_meV_per_A"]
    # on the same generated structures, in the head that each keeps for them
    potential, params = replayed.potential, replayed.params
    assert potential.heads == ("energy", REPLAY_HEAD)
    labels = prepared("naive").judge.anchor.dataset
    forgot = error_of(naive().potential, naive().params, labels, 0)
    kept = error_of(potential, params, labels, 1)
    assert kept < 0.7 * forgot


def error_of(potential, params, dataset, head):
    batches = dataclasses.replace(LabelledBatches.create(potential, dataset, 8), head=head)
    return error_report(dataset, predict(potential, params, batches))["force_mae_meV_per_A"]


@pytest.mark.slow
def test_pseudo_labels_are_the_frozen_models_predictions():
    potential = model().potential
    ready = prepared("pseudo-replay")
    replay, anchor = ready.training.mixture.tasks[1].batches, ready.judge.anchor
    for part in (replay, anchor):
        report = evaluate(model(), part.dataset)
        assert report["force_rmse_meV_per_A"] < 1e-3
        assert report["energy_rmse_meV_per_atom"] < 1e-3
        assert part.head == 1
    shared = {s.positions.tobytes() for s in replay.dataset.systems}
    assert not shared & {s.positions.tobytes() for s in anchor.dataset.systems}
    assert set(replay.dataset.elements) <= {3, 9, 11, 17}
    # target energies are counted from the target's isolated atoms, replayed ones from the model's own
    assert not np.allclose(ready.potential.e0s[0], potential.e0s[0])
    np.testing.assert_array_equal(ready.potential.e0s[1], potential.e0s[0])


@pytest.mark.slow
def test_replay_takes_true_labels_from_a_file_and_refuses_other_levels(tmp_path):
    own = labelled(rock_salts(10, seed=4), noise=0.01)
    write_dataset(tmp_path / "own.extxyz", own)
    write_dataset(tmp_path / "other.extxyz", changed(own, None, energy=lambda energy: energy + 8.0))
    ready = prepared("replay", replay=str(tmp_path / "own.extxyz"))
    replay, anchor = ready.training.mixture.tasks[1].batches, ready.judge.anchor
    assert (len(replay.dataset), len(anchor.dataset)) == (8, 2)
    assert ready.anchor_before["force_mae_meV_per_A"] > 0.0
    with pytest.raises(ValueError, match=r"energy error is 1000 meV/atom .*replay"):
        prepared("replay", replay=str(tmp_path / "other.extxyz"))
    with pytest.raises(ValueError, match="strategy 'replay' needs structures with true labels"):
        prepared("replay")
    with pytest.raises(ValueError, match="strategy 'naive' replays nothing and has no use for replay='"):
        prepared("naive", replay=str(tmp_path / "own.extxyz"))
    assert prepared("naive", anchor=str(tmp_path / "own.extxyz")).retention_notes["anchor"].startswith("10 structures")


def test_a_second_head_starts_as_a_copy_and_is_made_once():
    params = model().params
    other, both = add_head(model())
    np.testing.assert_array_equal(both["readout_replay"]["kernel"], params["readout_energy"]["kernel"])
    assert jax.tree.structure(jax.eval_shape(other.init, jax.random.key(0))) == jax.tree.structure(both)
    assert add_head(Model(other, both)) == (other, both)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["lora", "ewc"])
def test_a_killed_run_resumes_bit_for_bit(strategy, tmp_path):
    chosen = settings(strategy, epochs=2, **({"lora_rank": 1} if strategy == "lora" else {}))
    whole = finetune(model(), *data(), settings=chosen, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        finetune(model(), *data(), settings=chosen, out=tmp_path / "killed", listener=StopAt(4))
    resumed = finetune(model(), *data(), settings=chosen, out=tmp_path / "killed")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    records = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
    for a, b in zip(*records, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
        assert a["score"] == pytest.approx(a["valid_loss"] + 0.1 * a["anchor_loss"])
    # the folder is a plain model again, with merged adapters
    potential, params = load(tmp_path / "whole")
    assert jax.tree.structure(params) == jax.tree.structure(model()[1])
    report = evaluate(Model(potential, params), data()[1])
    expected = whole.report["after"]
    assert report["force_mae_meV_per_A"] == pytest.approx(expected["force_mae_meV_per_A"], rel=1e-4)


@pytest.mark.slow
def test_lora_moves_nothing_but_kernels_with_adapters_and_the_readout():
    params = model()[1]
    result = finetune(model(), *data(), settings=settings("lora", lora_rank=1, learning_rate=None))
    before, after = tree.flatten_paths(params), tree.flatten_paths(result.params)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert all(path.split("/")[-2] in ("linear_up", "linear_down", "skip", "readout_energy") for path in moved)
    assert len(moved) == 4
    kernels = [before[path].shape for path in moved if "readout" not in path]
    assert result.report["n_trained_parameters"] == sum(map(sum, kernels)) + 4
    assert result.report["n_parameters"] == tree.count(params)


@pytest.mark.slow
def test_a_huge_pull_keeps_the_weights():
    start = model()[1]
    held = finetune(model(), *data(), settings=settings("l2sp", epochs=LONG, l2sp=1e6))
    assert distance(held.params, start) < 0.2 * distance(naive().params, start)


def test_auto_explains_its_choice():
    ready = prepared("naive", auto=True)
    assert ready.strategy.name == "pseudo-replay"
    shown = {name: (value, reason) for name, value, reason in ready.strategy.explain()}
    assert shown["strategy"][0] == "pseudo-replay"
    assert "6 frames of 4 compositions, fewer than 30" in shown["strategy"][1]
    with pytest.raises(ValueError, match=r"the data choose the strategy .auto., and 'lora' is given too"):
        settings("lora", auto=True)


def test_fatal_findings_stop_a_fine_tune_unless_ignored():
    train, valid = data()
    with pytest.raises(ValueError, match="duplicates: 1 structures are in two data sets"):
        prepare(model(), train, valid + train.subset([0]), settings("naive"))
    allowed = dataclasses.replace(settings("naive"), ignore=("duplicates", "units", "sign"))
    ready = prepare(model(), train, valid + train.subset([0]), allowed)
    assert ("warning", "duplicates") in {(f.severity, f.check) for f in ready.findings}
