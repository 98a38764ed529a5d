"""Promises of claims, findings of their runs, and the pages that are made of both."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments import __main__ as overview
from experiments.lab import record
from experiments.lab.record import Expected, Number
from experiments.lab.run import Outcome, Run
from experiments.sweep.config import PRESETS, Config
from mlipjax.report import Illustration, Table

CLAIMS = record.claims()
SWEEP = record.EXPERIMENTS / "sweep"


def test_every_experiment_is_a_claim_with_expected_numbers():
    assert sorted(path.parent.name for path in record.EXPERIMENTS.glob("*/config.py")) == CLAIMS
    assert len(CLAIMS) == 13


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_notebook_says_every_expected_number(claim):
    words = " ".join(record.notebook(claim).split())
    presets = importlib.import_module(f"experiments.{claim}.config").PRESETS
    assert record.expected(claim)
    for row in record.expected(claim):
        assert str(row) in words
        assert row.preset in presets
        assert row.tolerance > 0.0


@pytest.mark.parametrize("claim", CLAIMS)
def test_stored_runs_are_of_presets_and_found_what_is_expected(claim):
    presets = importlib.import_module(f"experiments.{claim}.config").PRESETS
    for preset, result in record.results(claim).items():
        assert (result["claim"], result["preset"]) == (claim, preset)
        assert preset in presets
        for row in record.expected(claim, preset):
            assert row.met(record.numbers(result)[row.name]), row


def test_the_pages_are_those_that_the_command_makes():
    remedy = "run python -m experiments --write"
    assert overview.RESULTS.read_text(encoding="utf-8") == overview.results_page(), remedy
    assert overview.README.read_text(encoding="utf-8") == overview.readme_page(), remedy


def test_the_table_fits_a_terminal_and_loads_no_jax():
    code = "import sys\nfrom experiments.__main__ import main\nmain([])\nassert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line and line[0].isalpha()} == {"claim", *CLAIMS}


def test_a_number_is_met_within_its_tolerance_and_missing_ones_are_not():
    row = Expected("error", "quick", 10.0, 0.5, "meV", 5, 1, "abc")
    assert str(row) == "error: 10 ± 0.5 meV (n = 5, 1 seed)"
    assert [row.met(Number(value, "meV", 5)) for value in (9.5, 10.6, None)] == [True, False, False]
    found = {"error": Number(10.6, "meV", 5), "other": Number(1.0, "", 5)}
    rows = record.compared(found, [row, dataclasses.replace(row, name="gone")])
    assert [line[0] for line in rows] == ["error", "other", "gone"]
    assert [line[3] for line in rows] == ["NO", "", "NO"]
    assert record.compared(found, [row], "abcdef")[0][3] == "source"  # a number does not confirm itself


def finish(folder, value, **changes):
    config = dataclasses.replace(PRESETS["quick"], out=folder, **changes)
    run = Run(config)
    numbers = {row.name: Number(value, row.unit, 1) for row in record.expected("sweep", "quick")}
    run.finish(run.results({}), Outcome("It holds.", "supported", numbers))
    return json.loads((folder / record.FILE).read_text(encoding="utf-8"))


def test_a_run_ends_with_what_was_expected_of_it(tmp_path, capsys):
    stored = finish(tmp_path / "good", record.expected("sweep")[0].value)
    said = capsys.readouterr().out
    assert "what preset quick should find" in said
    assert [line.split()[-1] for line in said.splitlines() if "1.04 ± 0.15" in line] == ["yes"]
    assert "supported: It holds." in said
    assert (stored["preset"], stored["dtype"]) == ("quick", "float32")
    finish(tmp_path / "bad", 1e6)
    assert " NO\n" in capsys.readouterr().out
    stored = finish(tmp_path / "other", 1.0, epochs=Config().epochs + 1)
    assert stored["preset"] is None
    assert "nothing is expected of these options" in capsys.readouterr().out


def test_results_of_presets_are_kept_and_others_refused(tmp_path, monkeypatch):
    kept = finish(tmp_path / "run", 1.0)
    finish(tmp_path / "other", 1.0, epochs=Config().epochs + 1)
    monkeypatch.setattr(record, "EXPERIMENTS", tmp_path / "experiments")
    (tmp_path / "experiments" / "sweep").mkdir(parents=True)
    assert record.take(tmp_path / "run").name == "result-quick.json"
    assert record.results("sweep") == {"quick": kept}
    assert record.figures("sweep") == {}  # it drew none
    with pytest.raises(ValueError, match="no run of a preset"):
        record.take(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        record.take(tmp_path / "none")


def test_the_first_figure_of_a_run_is_kept_and_shown(tmp_path, monkeypatch):
    run = Run(dataclasses.replace(PRESETS["quick"], out=tmp_path / "run"))
    content = {
        "table": Table(("a",), [[1]], "Numbers."),
        **{name: Illustration(Figure(), f"Panel {name}.", name) for name in ("one", "two")},
    }
    run.finish(run.results({}), Outcome("It holds.", "supported", {}, title="Two figures", content=content))
    monkeypatch.setattr(record, "EXPERIMENTS", tmp_path / "experiments")
    folder = tmp_path / "experiments" / "sweep"
    folder.mkdir(parents=True)
    for name in ("config.py", "expected.json"):
        shutil.copy(SWEEP / name, folder)
    record.take(tmp_path / "run")
    assert record.figures("sweep") == {"quick": folder / "figure-quick.png"}
    assert (folder / "figure-quick.png").read_bytes() == (tmp_path / "run" / "one.png").read_bytes()
    assert "(sweep/figure-quick.png)" in overview.readme_page()


def test_a_run_that_finished_keeps_its_first_record(tmp_path):
    first = finish(Path(tmp_path), 1.0)
    assert finish(Path(tmp_path), 2.0) == first


def test_a_folder_without_a_finished_run_is_one_line_and_writes_nothing(tmp_path, capsys):
    before = overview.RESULTS.stat().st_mtime_ns
    assert overview.main(["--write", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(tmp_path / record.FILE) in error
    assert error.count("\n") == 1
    assert overview.RESULTS.stat().st_mtime_ns == before
