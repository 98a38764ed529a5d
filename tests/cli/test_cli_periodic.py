"""``mlipjax periodic``: what it prints and leaves, and the same command after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from ase.db import connect
from finetuning.loop_case import atoms, molecule, potential

import mlipjax
from mlipjax.cli import main
from mlipjax.cli.periodic import rounds_table


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A student, a teacher and a structure, as files."""
    folder = tmp_path_factory.mktemp("input")
    for seed, name in enumerate(("student", "teacher")):
        mlipjax.save(folder / name, potential(), potential().init(jax.random.key(seed), np.float32))
    atoms().write(folder / "start.extxyz")
    return folder


def arguments(files, out, *more):
    given = {"--model": files / "student", "--structure": files / "start.extxyz", "--out": out}
    words = [str(word) for pair in given.items() for word in pair]
    return ["periodic", *words, "--oracle", f"teacher:{files / 'teacher'}", *more]


SIZES = ("--rounds", "1", "--labels-per-round", "1", "--steps", "2", "--train-steps", "1", "--e0s", "model")


def test_one_command_leaves_a_model_frames_and_a_report(files, tmp_path, capsys):
    out = tmp_path / "run"
    command = arguments(files, out, *SIZES, "--json", str(tmp_path / "results.json"))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"plan: 1 rounds, 1 labels by teacher:{files / 'teacher'}" in said
    assert "1 labels a round, one every 2 steps (1 fs) of 1 x H4O2, nvt at 300 K" in said
    assert re.search(r"knows H, O; trains (\d+) of its \1 parameters \(naive, learning rate 0.001\)", said)
    for stage in ("frames sampled", "labels", "optimiser steps"):
        assert f"round 1 of 1: {stage} ..." in said.splitlines()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rounds"] == json.loads((out / "results.json").read_text())["rounds"]
    assert results["labels_made"] == 1
    assert mlipjax.load(out / "model").potential.species == (1, 8)
    assert len(mlipjax.predict(out / "model", out / "frames.extxyz")) == 1
    for name in ("report.html", "errors.png", "trajectory.png", "loss.png", "labels.db", "model_1", "run.toml"):
        assert (out / name).exists()
    # the same command again reads; figures that are gone are made again
    (out / "report.html").unlink()
    assert main(command) == 0
    assert said.endswith(capsys.readouterr().out)
    assert (out / "report.html").exists()
    assert main([*command, "--temperature", "400"]) == 1
    assert "holds another run: temperature was 300.0, now 400.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--rounds", "0"), "--rounds must be between 1 and 100000, found 0."),
        (("--labels-per-round", "3", "--replicas", "2"), "--labels-per-round 3 must be a multiple of --replicas 2"),
        (("--oracle", "nobody"), "unknown oracle 'nobody'"),
        (("--executor", "nowhere"), "unknown executor 'nowhere'; expected local[:N] | dask:ADDRESS"),
        (("--executor", "local:2,cpu=3"), "cannot read 'cpu=3' in 'local:2,cpu=3'; settings are jobs, timeout"),
        (("--head", "dft"), "this model has the heads energy; found 'dft'."),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(files, tmp_path, capsys, wrong, message):
    assert main(arguments(files, tmp_path / "run", *wrong)) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_table_has_a_line_for_each_of_several_systems():
    part = {"labels_before": 3, "labels": 2, "failed": 1, "energy_mean_meV_per_atom": -0.001, "alarms": None}
    part |= {"energy_std_meV_per_atom": None, "energy_rmse_meV_per_atom": 2.0, "force_rmse_meV_per_A": 88.12}
    one = {**part, "round": 1, "loss": 0.5, "systems": [part]}
    assert [row[0] for row in rounds_table({"rounds": [one]}).rows] == ["1"]
    rows = rounds_table({"rounds": [{**one, "systems": [part, part]}]}).rows
    assert [row[0] for row in rows] == ["1", "system 1", "system 2"]
    assert rows[2][1:] == ("3", "2 (1 failed)", "0.00", "-", "2.00", "88.1", "-", "-")


@pytest.mark.slow
def test_killed_at_any_stage_the_same_file_ends_with_the_same_bits(files, tmp_path):
    """Two systems, one of them at two temperatures; options in one file."""
    molecule().write(files / "molecule.xyz")
    spec = f"""
model = "{files / "student"}"
oracle = "teacher:{files / "teacher"}"
structure = "{files / "start.extxyz"}"
rounds = 2
labels_per_round = 2
steps = 4
train_steps = 30
workers = 1
[[system]]
structure = "{files / "molecule.xyz"}"
temperature = [200, 400.0]
labels_per_round = 1
"""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}

    def start(out):
        (tmp_path / f"{out.name}.toml").write_text(f'out = "{out}"\n{spec}')
        command = [sys.executable, "-m", "mlipjax.cli", "periodic", str(tmp_path / f"{out.name}.toml")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)

    def stages(out):
        file = out / "history.jsonl"
        return [json.loads(line)["stage"] for line in file.read_text().splitlines()] if file.exists() else []

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole).wait() == 0
    for n_records in (2, 5, 8, 11):
        process = start(killed)
        while process.poll() is None and len(stages(killed)) < n_records:
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before the moment came"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(killed).wait() == 0
    for name in ("model/params.safetensors", "model_1/params.safetensors", "frames.extxyz", "errors.png"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    frames = mlipjax.read(killed / "frames.extxyz")
    assert [info["system"] for info in frames.infos] == [1, 1, 2, 3] * 2
    assert [len(system.atomic_numbers) for system in frames.systems] == [6, 6, 4, 4] * 2
    keys = [row.key_value_pairs for row in connect(killed / "labels.db").select()]
    assert len(keys) == 8
    # the file that a run keeps is that run
    again = subprocess.run([sys.executable, "-m", "mlipjax.cli", "periodic", str(killed / "run.toml")], env=environment)
    assert again.returncode == 0
