"""Options that every command has, and what its help shows."""

import json
import subprocess
import sys

import pytest
from ase.build import bulk
from ase.io import read

from mlipjax.cli.main import main
from mlipjax.cli.tables import fixed


@pytest.fixture(scope="module")
def structure(tmp_path_factory):
    path = tmp_path_factory.mktemp("structure") / "nacl.extxyz"
    bulk("NaCl", "rocksalt", a=5.64).write(path)
    return path


def test_a_quiet_command_prints_nothing_and_writes_its_results(structure, tmp_path, capsys):
    out, report = tmp_path / "found.extxyz", tmp_path / "found.json"
    command = ["predict", "--model", "universal", "--data", str(structure), "--write", str(out), "--json", str(report)]
    assert main([*command, "--quiet", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    energy = read(out).get_potential_energy()
    assert json.loads(report.read_text())["energies_eV"] == pytest.approx([energy], abs=1e-6)


def test_an_accelerator_that_is_not_there_is_said_in_one_line(structure, capsys):
    assert main(["predict", "--model", "universal", "--data", str(structure), "--device", "tpu"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no device 'tpu' here; JAX sees ")
    assert len(captured.err.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_refused_before_the_work(structure, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    command = ["relax", "--model", "universal", "--structure", str(structure), "--write", str(tmp_path / "taken")]
    assert main(command) == 1
    assert "is a folder, not a file" in capsys.readouterr().err
    assert main([*command[:-2], "--out", str(structure)]) == 1
    said = capsys.readouterr()
    assert (said.out, "is a file, not a folder" in said.err) == ("", True)


def test_the_two_names_of_simulate_are_one_command(capsys):
    assert main(["md", "--help"]) == main(["simulate", "--help"]) == 0
    first, second = capsys.readouterr().out.split("usage: ")[1:]
    assert first == second
    assert first.startswith("mlipjax simulate --model TEXT --structure PATH --steps INT")
    assert main(["simulate", "--model", "universal", "--structure", "s.xyz", "--steps", "1"]) == 1
    assert capsys.readouterr().err == "error: give --out FOLDER, or --write FILE for the trajectory alone.\n"


def test_help_shows_what_matters_and_help_all_the_rest(capsys):
    main(["finetune", "--help"])
    short = capsys.readouterr().out
    main(["finetune", "--help-all"])
    full = capsys.readouterr().out
    assert "what is trained and how fast" in short
    assert "rank of the adapters" in full
    assert "rank of the adapters" not in short
    assert "--lora-rank" in short  # by its name
    main_options = short.split("main options:")[1].split("\n\n")[0]
    assert main_options.count("\n  --") == 10


def test_help_in_a_pipe_fits_eighty_columns():
    done = subprocess.run(
        [sys.executable, "-m", "mlipjax.cli", "simulate", "--help-all"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", "COLUMNS": ""},
    )
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_zero_has_no_sign():
    assert fixed(-1e-9, 4) == "0.0000"
    assert fixed(-0.12345, 3) == "-0.123"
