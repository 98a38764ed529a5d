"""Logs of fine-tunes for other programs: the numbers of ``metrics.jsonl``, also after a stop."""

import csv
import importlib.util
import json
import struct

import jax
import pytest
from labelled_files import labelled, model, rock_salts

import mlipjax
from mlipjax.finetuning.periodic import PeriodicListener
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.oracles import Teacher
from mlipjax.verbs import logged
from mlipjax.verbs.logged import CsvTracker, TensorboardTracker, lines_of_rounds, numbers_in


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def scalars(folder):
    """Points of all event files, as {(name, step): value}; of a step that is given again the last one counts."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.glob("events.*")):
        content = path.read_bytes()
        while content:  # length, its checksum, the event, its checksum
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            if event.session_log.status == 1:  # START: what was at this step or later is no more
                found = {key: value for key, value in found.items() if key[1] < event.step}
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            content = content[16 + length :]
    return found


class StopAfter(FinetuneListener):
    """Ends a run by force after an epoch."""

    def __init__(self, last):
        self.last = last

    def epoch(self, record):
        if record["epoch"] == self.last:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fine-tune that was stopped once, with logs."""
    folder = tmp_path_factory.mktemp("logged") / "run"
    data = labelled(rock_salts(6))
    options = {"epochs": 3, "anchor": "none", "e0s": "estimate", "valid_fraction": 0.34, "out": folder}
    for listener in (StopAfter(2), None):
        try:
            mlipjax.finetune(model(), data, log=("csv", "tensorboard"), listener=listener, **options)
        except KeyboardInterrupt:
            assert listener is not None
    return folder


def test_the_table_has_the_lines_of_the_run(run):
    lines = lines_of(run)
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [line["epoch"] for line in lines] == [1, 2, 3]
    for row, line in zip(rows, lines, strict=True):
        assert float(row["train_loss"]) == line["train_loss"]
        assert float(row["force_mae_meV_per_A"]) == line["force_mae_meV_per_A"]


def test_event_files_have_each_point_once_and_the_last_one_counts(run):
    found = scalars(run / "tensorboard")
    lines = lines_of(run)
    steps = sorted(step for name, step in found if name == "train_loss")
    assert steps == [line["step"] for line in lines]
    for line in lines:
        assert found["train_loss", line["step"]] == pytest.approx(line["train_loss"], rel=1e-6)


def test_numbers_of_tasks_have_the_names_of_their_tasks():
    record = {"epoch": 1, "best": True, "choice": "text", "none": None, "tasks": {"data": {"train": {"loss": 0.5}}}}
    assert numbers_in(record) == {"epoch": 1, "tasks/data/train/loss": 0.5}


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    def gone(name):
        raise ImportError(name)

    monkeypatch.setattr(logged.importlib, "import_module", gone)
    with pytest.raises(ValueError, match=r'pip install "mlipjax\[tensorboard\]"'):
        TensorboardTracker(tmp_path)
    with pytest.raises(ValueError, match=r'pip install "mlipjax\[wandb\]"'):
        logged.WandbTracker(tmp_path)


def test_logs_that_cannot_be_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="log is mlflow; choose of csv, tensorboard, wandb"):
        mlipjax.finetune("universal", "nothing.extxyz", log=("mlflow",), out=tmp_path / "run")
    with pytest.raises(ValueError, match="logs lie in the folder of a run"):
        mlipjax.finetune("universal", "nothing.extxyz", log=("csv",))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_a_run_of_wandb_lies_on_the_disk_when_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    tracker = logged.WandbTracker(tmp_path)
    lines = [{"epoch": step // 4, "step": step, "train_loss": 1.0 / step} for step in (4, 8)]
    tracker.write(lines[:1])
    tracker.write(lines)
    tracker.close()
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    content = kept.read_bytes()
    assert content.count(b"train_loss") >= 2
    assert b"0.25" in content
    assert b"0.125" in content


class StopAt(PeriodicListener):
    """Ends a run by force at a piece of work."""

    def __init__(self, round, stage):
        self.place = (round, stage)

    def piece(self, piece):
        if piece.record is not None and (piece.round, piece.stage) == self.place:
            raise KeyboardInterrupt


def test_lines_of_rounds_count_all_steps_of_the_optimiser():
    def label(round, system, force):
        own = {"energy_error_eV_per_atom": [0.1], "force_rmse_eV_per_A": [force], "labels_made": 1, "labels_failed": 0}
        return {"stage": "label", "round": round, "system": system, **own}

    rounds = [
        [{"stage": "sample", "round": n, "system": 0}, label(n, 0, 0.3), label(n, 1, 0.4),
         {"stage": "train", "round": n, "loss": [3.0, 1.0]}, {"stage": "train", "round": n, "loss": [0.5]},
         {"stage": "finish", "round": n}] for n in (0, 1)
    ]  # fmt: skip
    lines = lines_of_rounds([*rounds[0], *rounds[1][:-2]])
    assert [line["step"] for line in lines] == [0, 2, 3, 3, 5]
    assert [line.get("train_loss") for line in lines] == [None, 2.0, 0.5, None, 2.0]
    assert lines[0]["force_rmse_meV_per_A"] == pytest.approx(1000.0 * (0.125) ** 0.5)
    assert lines[3]["system_2"]["force_rmse_meV_per_A"] == pytest.approx(400.0)
    assert (lines[0]["labels_before"], lines[3]["labels_before"]) == (0, 2)


SHORT = {"rounds": 2, "labels_per_round": 2, "steps": 2, "train_steps": 3, "e0s": "estimate", "timestep": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["label", "finish"])
def test_a_periodic_fine_tune_logs_labels_and_losses_also_after_a_stop(tmp_path, stage):
    potential, params = model()
    start = rock_salts(1)[0].to_ase()
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    run = {"oracle": Teacher(potential, other), "out": tmp_path / "run", "log": ("csv", "tensorboard"), **SHORT}
    with pytest.raises(KeyboardInterrupt):
        mlipjax.periodic(model(), start, listener=StopAt(1, stage), **run)
    report = mlipjax.periodic(model(), start, **run).report
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["step"]), int(row["round"])) for row in rows] == [(0, 1), (3, 1), (3, 2), (6, 2)]
    assert [float(row["force_rmse_meV_per_A"]) for row in rows[::2]] == [
        row["force_rmse_meV_per_A"] for row in report["rounds"]
    ]
    found = scalars(tmp_path / "run" / "tensorboard")
    assert sorted(step for name, step in found if name == "train_loss") == [3, 6]
    assert sorted(step for name, step in found if name == "labels_before") == [0, 3]
    assert found["train_loss", 6] == pytest.approx(float(rows[3]["train_loss"]), rel=1e-6)
    assert any(name.startswith("elements/") for name, _ in found)


def test_a_periodic_fine_tune_without_a_folder_has_no_logs():
    with pytest.raises(ValueError, match="logs lie in the folder of a run"):
        mlipjax.periodic("universal", "nothing.extxyz", oracle="xtb", log=("csv",))


def test_a_table_of_nothing_is_empty(tmp_path):
    CsvTracker(tmp_path).write([])
    assert (tmp_path / "metrics.csv").read_text().strip() == ""
