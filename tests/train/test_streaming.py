"""Training from structures on disk: the same bits as from memory, and memory that does not follow the data."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from test_train_loop import StopAt, assert_same, setup
from tiny_potential import labelled_dataset

from mlipjax.data import View, read_dataset, read_examples, write_dataset, write_store
from mlipjax.finetuning import FinetuneSettings
from mlipjax.finetuning.folder import describe_settings
from mlipjax.finetuning.retain import pseudo_label
from mlipjax.potential import Model
from mlipjax.train import LabelledBatches, error_report, predict
from mlipjax.train.batches import Tables

TESTS = Path(__file__).resolve().parents[1]


def sources(tmp_path, name, dataset):
    """The same structures from an extended xyz file and from a store of it."""
    write_dataset(tmp_path / f"{name}.extxyz", dataset)
    write_store(tmp_path / name, read_examples(tmp_path / f"{name}.extxyz"))
    return [read_dataset(tmp_path / f"{name}.extxyz"), read_dataset(tmp_path / name)]


def test_training_from_a_store_gives_the_same_bits_also_when_it_is_interrupted(tmp_path):
    old = setup()
    options = {"dtype": np.float64, "max_slots": 1}
    train, replay = (sources(tmp_path, name, d) for name, d in (("train", TRAIN()), ("replay", REPLAY())))
    runs = []
    for labelled, replayed in zip(train, replay, strict=True):
        run = copy.copy(old)
        run.train = LabelledBatches.create(run.potential, labelled.subset(range(9)), 2, **options)
        run.valid = LabelledBatches.create(run.potential, labelled.subset((9, 10)), 2, **options)
        run.replay = LabelledBatches.create(run.potential, replayed, 2, **options)
        runs.append(run)
    memory, disk = runs
    assert isinstance(disk.train.dataset.systems, View)
    assert not isinstance(memory.train.dataset.systems, View)
    whole = memory.run()
    with pytest.raises(KeyboardInterrupt):
        disk.run(folder=tmp_path / "run", listener=StopAt(7))
    assert_same(disk.run(folder=tmp_path / "run"), whole)


def TRAIN():
    return labelled_dataset((5, 7, 4, 6, 3, 8, 5, 4, 6, 5, 4))


def REPLAY():
    return labelled_dataset((6, 5, 4, 7), seed=3)


def test_tables_that_are_not_kept_are_found_again(tmp_path):
    run = setup()
    data = sources(tmp_path, "train", TRAIN())[1]
    batches = LabelledBatches.create(run.potential, data, 3)
    none = dataclasses.replace(batches, tables=Tables.find(data, run.potential.cutoff, keep_bytes=0))
    assert all(table is None for table in none.tables.kept)
    np.testing.assert_array_equal(none.tables.max_counts, batches.tables.max_counts)
    for plan in batches.plans:
        jax.tree.map(np.testing.assert_array_equal, none.batch(plan), batches.batch(plan))


def test_errors_and_pseudo_labels_are_those_of_structures_in_memory(tmp_path):
    run = setup()
    listed, stored = sources(tmp_path, "replay", REPLAY())
    frozen = Model(run.potential, run.params)
    settings = FinetuneSettings(dtype="float64")
    for data in (listed, stored):
        found = pseudo_label(frozen, data.systems, settings)
        batches = LabelledBatches.create(run.potential, data, 8, dtype=np.float64)
        predictions = predict(run.potential, run.params, batches)
        assert error_report(data, predictions) == error_report(listed, predictions)
        assert found.infos[0] == {"labels": "frozen model"}
        for labels, wanted in zip(found.labels, predictions, strict=True):
            np.testing.assert_array_equal(labels.forces, wanted.forces)
            assert (labels.energy, labels.stress_weight) == (wanted.energy, 1.0)


def test_a_run_notices_that_its_replay_store_is_another(tmp_path):
    write_store(tmp_path / "one", REPLAY())
    write_store(tmp_path / "two", REPLAY().subset(range(3)))

    def described(name):
        settings = FinetuneSettings(replay=str(tmp_path / name))
        return describe_settings(settings)["replay_sha256"]

    assert described("one") == described("one") != described("two")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_memory_does_not_follow_the_data(tmp_path):
    """A fine-tune from the doctor to the report, on 20 000 and on 30 000 structures of 32 atoms.

    Measured: 803 MB held and 893 at the peak, against 806 and 901, for 18 MB more on disk; 381 MB are there before
    the data are opened, 256 are the neighbour tables that are kept.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}

    def held(n):
        command = [sys.executable, str(TESTS / "train" / "streaming_case.py"), str(tmp_path), str(n)]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return json.loads(output.splitlines()[-1])["finetune"]["held"]

    more = 10_000
    on_disk = more * 32 * 52 / 2**20  # positions, forces and elements alone
    assert held(20_000 + more) - held(20_000) < on_disk / 2
