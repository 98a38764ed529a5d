"""Two processes on this machine, with two devices each, work as one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from labelled_files import labelled, model, other_material, rock_salts
from safetensors.numpy import load_file

from mlipjax import hosts
from mlipjax.data import write_dataset
from mlipjax.models import save

HERE = Path(__file__).resolve().parent
MLIPJAX = (sys.executable, "-m", "mlipjax.cli")
pytestmark = pytest.mark.slow


def environment(**more):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return {**kept, "XLA_FLAGS": flags, "PYTHONPATH": str(HERE.parents[1]), **more}


def begin(command, **more):
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**more)
    )


def begin_two(*command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    where = {hosts.COORDINATOR: address, hosts.PROCESSES: "2"}
    return [begin(command, **where, **{hosts.PROCESS: str(process)}) for process in range(2)]


def ended(*processes):
    said = [process.communicate(timeout=1500)[0] for process in processes]
    return [process.returncode for process in processes], said


def run_one(*command):
    codes, said = ended(begin(command))
    assert codes == [0], said[0][-4000:]


def run_two(*command):
    codes, said = ended(*begin_two(*command))
    assert codes == [0, 0], "\n".join(text[-4000:] for text in said)
    return said


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    save(folder / "model", *model())
    data = labelled(rock_salts(12), params=other_material(model().params), noise=0.0)
    write_dataset(folder / "train.extxyz", data)
    return folder


def test_a_fine_tune_of_two_processes_is_that_of_one(case, tmp_path):
    command = (*MLIPJAX, "finetune", "--model", case / "model", "--train", case / "train.extxyz", "--epochs", "3")
    command += ("--batch-size", "4", "--strategy", "naive", "--ignore", "step-0", "--allow-e0-mismatch")
    run_one(*command, "--out", tmp_path / "one")
    again = (*command, "--out", tmp_path / "two", "--json", tmp_path / "two.json", "--distributed")
    said = run_two(*again)
    assert "model saved" in said[0]
    assert "model saved" not in said[1]
    one, two = (load_file(tmp_path / name / "params.safetensors") for name in ("one", "two"))
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=2e-4, atol=2e-5, err_msg=name)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    errors = [report["after"]["force_rmse_meV_per_A"] for report in reports]
    assert errors[1] == pytest.approx(errors[0], rel=1e-4)
    begun = load_file(case / "model" / "params.safetensors")
    assert max(np.abs(one[name] - array).max() for name, array in begun.items()) > 1e-2
    assert json.loads((tmp_path / "two.json").read_text())["after"] == reports[1]["after"]
    # done: both know it, and none trains
    before = (tmp_path / "two" / "report.json").stat().st_mtime_ns
    run_two(*again)
    assert (tmp_path / "two" / "report.json").stat().st_mtime_ns == before


def test_training_goes_on_with_other_numbers_of_processes(tmp_path):
    script = (sys.executable, HERE / "hosts_train.py")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    run_one(*script, 12, whole)
    run_two(*script, 4, parts)
    run_one(*script, 8, parts)
    run_two(*script, 12, parts)
    expected, first, second = (
        dict(np.load(path)) for path in (whole / "12-1-0.npz", parts / "12-2-0.npz", parts / "12-2-1.npz")
    )
    for name, array in expected.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], array, rtol=1e-7, atol=1e-11, err_msg=name)


def test_replicas_of_two_processes_are_those_of_one(case, tmp_path):
    rock_salts(1)[0].to_ase().write(case / "start.extxyz")
    command = (*MLIPJAX, "simulate", "--model", case / "model", "--structure", case / "start.extxyz", "--replicas", "4")
    command += ("--every", "5", "--temperature", "50", "--timestep", "0.5", "--dtype", "float64", "--hottest", "1000")

    def up_to(steps, name):
        return (*command, "--steps", steps, "--out", tmp_path / name)

    run_one(*up_to(40, "one"))
    run_two(*up_to(15, "two"), "--distributed")
    run_one(*up_to(25, "two"))
    run_two(*up_to(40, "two"), "--distributed")
    one, two = (read(tmp_path / name / "trajectory.extxyz", ":") for name in ("one", "two"))
    assert len(one) == len(two) == 4 * 8
    for a, b in zip(one, two, strict=True):
        assert a.info["run"] == b.info["run"]
        np.testing.assert_allclose(b.positions, a.positions, atol=1e-7)
        np.testing.assert_allclose(b.get_forces(), a.get_forces(), atol=1e-6)
    reports = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")]
    assert reports[1]["resumed_from"] == 25
    np.testing.assert_allclose(reports[1]["temperature_mean_K"], reports[0]["temperature_mean_K"], rtol=1e-7)


def test_errors_and_predictions_of_two_processes_are_those_of_one(case, tmp_path):
    ends = ("--model", case / "model", "--data", case / "train.extxyz", "--batch-size", "3", "--dtype", "float64")
    for name in ("one", "two"):
        run, more = (run_one, ()) if name == "one" else (run_two, ("--distributed",))
        folder = tmp_path / name
        of_evaluate = (*MLIPJAX, "evaluate", *ends, "--out", folder, "--json", folder.with_suffix(".json"), *more)
        said = [run(*of_evaluate, "--write", tmp_path / f"{name}_errors.extxyz")]
        said += [run(*MLIPJAX, "predict", *ends, "--features", "--write", tmp_path / f"{name}.extxyz", *more)]
        if name == "two":
            assert all("predicting" in first and "predicting" not in second for first, second in said), said
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["n_frames"] == two["n_frames"] == 12
    for error in ("energy_rmse_meV_per_atom", "force_rmse_meV_per_A", "stress_mae_meV_per_A3"):
        assert two[error] == pytest.approx(one[error], rel=1e-9)
        assert one[error] > 0.0
    assert (tmp_path / "two" / "report.html").exists()
    for kind in ("", "_errors"):
        a_frames, b_frames = (read(tmp_path / f"{name}{kind}.extxyz", ":") for name in ("one", "two"))
        assert len(a_frames) == len(b_frames) == 12
        for a, b in zip(a_frames, b_frames, strict=True):
            np.testing.assert_allclose(b.get_forces(), a.get_forces(), rtol=0, atol=1e-10)
            assert b.get_potential_energy() == pytest.approx(a.get_potential_energy(), abs=1e-9)
            if not kind:
                np.testing.assert_allclose(b.arrays["features"], a.arrays["features"], rtol=0, atol=1e-9)


def test_what_one_process_does_alone_is_refused(case, tmp_path):
    (foreign, _), said = ended(
        *begin_two(*MLIPJAX, "predict", "--model", "ase:ase.calculators.emt:EMT", "--data", case / "train.extxyz",
                   "--distributed")
    )  # fmt: skip
    assert foreign == 1
    assert "a foreign calculator runs in one process, there are 2" in said[0]
    codes, said = ended(
        begin((*MLIPJAX, "periodic", "--model", case / "model", "--structure", "x", "--oracle", "lj", "--distributed"))
    )
    assert codes != [0]
    assert "runs in one process: --distributed is for evaluate, finetune, predict and simulate." in said[0]


def test_an_error_of_the_first_ends_the_others(case, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something.txt").write_text("of someone else")
    command = (*MLIPJAX, "finetune", "--model", case / "model", "--train", case / "train.extxyz")
    codes, said = ended(*begin_two(*command, "--out", tmp_path / "out", "--distributed"))
    assert codes[0] == 1, said[0]
    assert codes[1] != 0, said[1]
    assert "is not empty" in said[0]


def test_replicas_that_cannot_be_divided_are_refused(case, tmp_path):
    rock_salts(1)[0].to_ase().write(case / "start.extxyz")
    command = (*MLIPJAX, "simulate", "--model", case / "model", "--structure", case / "start.extxyz", "--steps", 5)
    codes, said = ended(*begin_two(*command, "--replicas", 3, "--out", tmp_path / "out", "--distributed"))
    assert codes == [1, 1]
    assert "choose a multiple" in said[0]
