"""Whose folder it is: a run's from its first step on, nobody's before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from labelled_files import labelled, model, rock_salts

from mlipjax.finetuning.folder import claim_run, describe_settings, find_run
from mlipjax.finetuning.single import finetune
from mlipjax.locks import LOCK, InUseError
from mlipjax.settings import FinetuneSettings, PeriodicSettings
from mlipjax.train import NonFiniteError

ROOT = Path(__file__).resolve().parents[2]
MINE = {"settings": {"seed": 0}, "model_sha256": "a", "train_sha256": "b"}
OTHER = {"settings": {"seed": 1}, "model_sha256": "a", "train_sha256": "b"}


def test_looking_for_a_run_writes_nothing(tmp_path):
    assert find_run(tmp_path / "new", MINE) is None
    assert find_run(tmp_path, MINE) is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_belongs_to_its_run_from_the_first_saved_step(tmp_path):
    claim_run(tmp_path, MINE)
    # as a run leaves it that was killed or failed before its first step was saved
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "nonfinite_frames.extxyz").write_text("frames")
    for name in ("checkpoints/0", "checkpoints/7.orbax-checkpoint-tmp-1", "snapshots/step-000000"):
        (tmp_path / name).mkdir(parents=True)
    assert find_run(tmp_path, OTHER) is None
    claim_run(tmp_path, MINE)
    assert (tmp_path / "checkpoints" / "0").is_dir()
    claim_run(tmp_path, OTHER)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert find_run(tmp_path, OTHER) is None
    with pytest.raises(ValueError, match="holds another run: seed was 1, now 0"):
        find_run(tmp_path, MINE)


@pytest.mark.parametrize("kind", [FinetuneSettings, PeriodicSettings])
def test_a_folder_from_before_optimisers_had_names_was_trained_by_adam(tmp_path, kind):
    def described(**settings):
        return {"settings": describe_settings(kind(batch_size=4, **settings)), "model_sha256": "a"}

    before = described()
    del before["settings"]["optimizer"]
    claim_run(tmp_path, before)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert find_run(tmp_path, described(optimizer="adam")) is None
    with pytest.raises(ValueError, match="optimizer was 'adam', now 'muon'"):
        find_run(tmp_path, described())


@pytest.mark.parametrize(
    "name", ["thesis.txt", "checkpoints/mine.ckpt", "snapshots/step-000004", "params.safetensors", "snapshots/notes"]
)
def test_what_somebody_may_want_to_keep_is_not_cleared_away(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no fine-tune"):
        find_run(tmp_path, MINE)
    claim = tmp_path / "run.json"
    claim.write_text(json.dumps(MINE))
    with pytest.raises(ValueError, match="holds another run"):
        find_run(tmp_path, OTHER)
    claim.write_text(json.dumps(MINE)[:-5])
    with pytest.raises(ValueError, match=r"without a readable run\.json"):
        find_run(tmp_path, MINE)


@pytest.fixture(scope="module")
def data():
    return labelled(rock_salts(8)), labelled(rock_salts(4, seed=1))


def settings(**changed):
    return FinetuneSettings(**{"anchor": "none", "epochs": 1, "batch_size": 4, "e0s": "estimate", **changed})


def test_a_refused_run_leaves_nothing_and_the_corrected_one_trains(tmp_path, data):
    out, e0s = tmp_path / "runs" / "out", tmp_path / "e0s.json"
    e0s.write_text('{"3": -100.0}')
    with pytest.raises(ValueError, match="e0s"):
        finetune(model(), *data, settings=settings(e0s=str(e0s)), out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["e0s.json"]
    result = finetune(model(), *data, settings=settings(), out=out)
    assert result.report["steps"] == 2
    kept = {
        "checkpoints",
        "config.json",
        "largest_errors.extxyz",
        "metrics.jsonl",
        "params.safetensors",
        "parity.npz",
        "report.json",
        "run.json",
    }
    found = {path.name for path in out.iterdir()}
    assert kept < found
    # and what is drawn from it
    assert {Path(name).suffix for name in found - kept} == {".html", ".png"}


def test_a_run_that_is_done_is_told_where_nothing_can_be_written(tmp_path, data, monkeypatch):
    first = finetune(model(), *data, settings=settings(), out=tmp_path)
    # a lock cannot be taken any more, by whatever right
    (tmp_path / LOCK).mkdir()
    found = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = finetune(model(), *data, settings=settings(), out=tmp_path)
    assert again.report == json.loads(json.dumps(first.report))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == found
    # without its page it is told all the same, and why there is none
    (tmp_path / "report.html").unlink()
    said = []
    monkeypatch.setattr("mlipjax.finetuning.run_report.notice", said.append)
    assert finetune(model(), *data, settings=settings(), out=tmp_path).report == again.report
    assert len(said) == 1
    assert "report.html is missing and cannot be written" in said[0]


def test_a_run_that_diverges_in_its_first_step_leaves_the_folder_to_another(tmp_path, data):
    with pytest.raises(NonFiniteError):
        finetune(model(), *data, settings=settings(energy_weight=1e38, forces_weight=1e38), out=tmp_path)
    assert (tmp_path / "nonfinite_frames.extxyz").is_file()
    result = finetune(model(), *data, settings=settings(), out=tmp_path)
    assert not (tmp_path / "nonfinite_frames.extxyz").exists()
    plain = finetune(model(), *data, settings=settings())
    for one, other in zip(jax.tree.leaves(result.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_second_process_in_the_folder_is_told(tmp_path, data):
    code = f"from mlipjax.locks import Lock; lock = Lock({str(tmp_path)!r}); print('held', flush=True); input()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=f"{tmp_path} is in use by another process"):
            finetune(model(), *data, settings=settings(), out=tmp_path)
    finally:
        other.kill()
        other.wait()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
