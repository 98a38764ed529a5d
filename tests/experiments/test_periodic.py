"""The experiment's own logic: sizes, refusals, the energy zero. Whole runs are in the slow part."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.periodic import __main__ as periodic
from experiments.periodic import report
from experiments.periodic.config import Config
from experiments.periodic.evaluation import SQUARES
from mlipjax.finetuning.records import with_energy_shifts
from mlipjax.models import NequIPConfig, nequip


def test_preset_fills_what_is_not_given() -> None:
    config = Config(rounds=3).resolved()
    assert config.rounds == 3
    assert config.labels_per_round == Config().labels_per_round
    assert config.e0s == "model"
    assert Config(oracle="teacher:nequix-omat-1").resolved().e0s == "estimate"


def test_negative_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="--rounds must be at least 1, found -1"):
        Config(rounds=-1)


def test_bad_input_is_one_line_and_no_success(tmp_path, capsys) -> None:
    code = periodic.run(["--structure", str(tmp_path / "absent.xyz"), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 1
    assert error.startswith("error: ")
    assert "absent.xyz: no such file" in error
    assert error.count("\n") == 1


def test_folder_of_another_run_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"seed": "7"}))
    (tmp_path / "naive").mkdir()  # it has begun: settings alone are those of a run that was refused
    assert periodic.run(["--out", str(tmp_path)]) == 1
    assert "choose another --out" in capsys.readouterr().err


def test_energy_shift_moves_one_composition_by_that_much() -> None:
    potential = nequip(NequIPConfig(species=(1, 8, 17)), np.array([-1.0, -2.0, -3.0]))
    numbers = np.array([8, 1, 1, 17])
    moved = with_energy_shifts(potential, np.array([[2, 1, 1]]), np.array([6.0]))
    difference = moved.reference_energy(numbers) - potential.reference_energy(numbers)
    assert difference == pytest.approx(6.0, abs=1e-12)
    np.testing.assert_allclose(moved.e0s - potential.e0s, [[2.0, 1.0, 1.0]], atol=1e-12)


def errors(rmse, scatter):
    """Errors of all arms on both tests; frames are hard or easy for all, and each arm scatters about that by itself."""
    rng, rows = np.random.default_rng(0), []
    hard = np.exp(rng.normal(size=30))
    for test in ("independent", "own trajectory"):
        for arm, value in rmse.items():
            interval = {"force_rmse_meV_per_A": (value / 2, value * 2)}
            squares = hard * np.exp(scatter * rng.normal(size=30))
            rows.append({"arm": arm, "labels": 25 * (arm != "zero-shot"), "test": test, "force_rmse_meV_per_A": value,
                         "energy_std_meV_per_atom": 1.0, "confidence_95": interval,
                         SQUARES: (value**2 * squares / squares.mean()).tolist()})  # fmt: skip
    return {"errors": rows, "labels_per_arm": 25, "traces": {}, "labels": {"failed": 2}, "settings": {}}


@pytest.mark.parametrize(
    ("periodic_rmse", "scatter", "best", "weight"),
    [
        (75.0, 0.01, "periodic", "one seed decides nothing"),
        (75.0, 1.0, "periodic", "no winner at this size"),
        (140.0, 0.01, "naive", "one seed decides nothing"),
    ],
)
def test_one_seed_answers_nothing_whatever_its_frames_say(periodic_rmse, scatter, best, weight) -> None:
    rmse = {"zero-shot": 200.0, "naive": 80.0, "single": 100.0, "periodic": periodic_rmse}
    text, answer, alarm = report.verdict(errors(rmse, scatter))
    assert (answer, alarm) == ("not decided", False)
    assert f"{best} is lowest" in text
    assert weight in text
    assert f"periodic {periodic_rmse:.0f} meV/Å (zero-shot 200)" in text
    assert "2 labels failed" in text


@pytest.mark.slow
def test_whole_experiment_runs_resumes_and_reports(tmp_path) -> None:
    sizes = [
        "--rounds=2",
        "--labels-per-round=2",
        "--steps=10",
        "--train-steps=10",
        "--own-frames=2",
        "--test-frames=2",
    ]
    command = [sys.executable, "-m", "experiments.periodic", "--out", str(tmp_path), "--workers", "1", *sizes]
    for attempt in range(2):
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("is done" in result.stdout) == (attempt == 1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert {row["arm"] for row in results["errors"]} == {"zero-shot", "naive", "periodic", "single"}
    assert results["labels"]["failed"] == 0
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert len(list(tmp_path.glob("*.png"))) == 4
