"""Records of the rounds of a periodic fine-tune, and the report that is made of it."""

import numpy as np
import pytest
from ase import Atoms

from mlipjax.data import Dataset, Example
from mlipjax.finetuning.periodic import in_full_precision
from mlipjax.finetuning.pieces import Stopped
from mlipjax.finetuning.records import record_labels, round_rows
from mlipjax.finetuning.setup import SystemSetup
from mlipjax.finetuning.state import FrameErrors
from mlipjax.finetuning.verdict import judge_run
from mlipjax.graph import VerletSpec
from mlipjax.graph.bins import Bins
from mlipjax.oracles import Failure
from mlipjax.report.periodic import _apart, write_periodic_report
from mlipjax.system import Labels, System

NUMBERS = np.array([8, 1, 1, 1])
OWN = SystemSetup(VerletSpec(3.0, 1.0, (False,) * 3, False, Bins((1, 1, 1), (0, 0, 0), 4), 1, 1), ((1, 3), (8, 1)))


def errors():
    forces = np.zeros((3, 4, 3))
    forces[0, 0, 0], forces[2] = 1.2, 0.3
    stacked = [np.stack(leaves) for leaves in zip(*[(0.0, np.zeros((4, 3)))] * 3, strict=True)]
    labels = Labels(stacked[0], stacked[1], None, None, None, None)
    return FrameErrors.of(np.array([0.4, 9.0, -0.8]), forces, labels, 0.0, NUMBERS, OWN)


def history():
    good = np.array([True, False, True])
    label = record_labels(OWN, errors(), good, 1, 1.5, check_zero=True)
    sample = {"temperature_K": 3 * [[300.0, 310.0]], "potential_energy_eV": 3 * [[-4.0, -4.1]], "alarms": [0]}
    records = []
    for number in (0, 1):
        stages = {"sample": sample, "label": label, "train": {"loss": [2.0, 1.0 - 0.5 * number]}, "finish": {}}
        records += [{"key": [number, k], "round": number, "stage": k, **v} for k, v in stages.items()]
    return records


def test_rows_are_the_errors_on_labels_that_were_not_seen():
    first, second = round_rows(history())
    assert (first["labels_before"], first["labels"], first["failed"]) == (0, 2, 1)
    assert (second["labels_before"], second["loss"], second["alarms"]) == (2, 0.5, 1)
    # 0.1 and -0.2 eV per atom; the frame without a label does not count
    assert first["energy_mean_meV_per_atom"] == pytest.approx(-50.0)
    assert first["energy_std_meV_per_atom"] == pytest.approx(150.0)
    assert first["energy_rmse_meV_per_atom"] == pytest.approx(np.hypot(50.0, 150.0))
    squares = 1.2**2 / 12, 0.3**2
    assert first["force_rmse_meV_per_A"] == pytest.approx(1000.0 * np.sqrt(np.mean(squares)))
    oxygen, hydrogen = np.mean([1.2**2 / 3, 0.3**2]), np.mean([0.0, 0.3**2])
    found = {symbol: row["force_rmse_meV_per_A"] for symbol, row in first["elements"].items()}
    assert found == pytest.approx({"H": 1000.0 * np.sqrt(hydrogen), "O": 1000.0 * np.sqrt(oxygen)})
    assert first["systems"][0]["force_rmse_meV_per_A"] == first["force_rmse_meV_per_A"]


def test_rows_of_several_systems_are_pooled_by_frames_and_atoms():
    def label(system, n_atoms, energy, force):
        own = {"energy_error_eV_per_atom": energy, "force_rmse_eV_per_A": force, "n_atoms": n_atoms}
        return {"stage": "label", "system": system, "round": 0, "labels_made": len(energy), "labels_failed": 0, **own}

    records = [label(0, 2, [0.1, 0.3], [0.2, 0.2]), label(1, 6, [-0.5], [0.4])]
    (row,) = round_rows(records)
    assert row["labels"] == 3
    assert row["energy_mean_meV_per_atom"] == pytest.approx(-100.0 / 3.0)
    assert row["energy_std_meV_per_atom"] == pytest.approx(1000.0 * np.sqrt(0.02 / 3.0))  # about each system's mean
    assert row["force_rmse_meV_per_A"] == pytest.approx(1000.0 * np.sqrt((4 * 0.04 + 6 * 0.16) / 10))
    assert [part["labels"] for part in row["systems"]] == [2, 1]


def test_labels_of_another_zero_are_refused_unless_it_is_taken_off():
    far = errors()._replace(energy=np.array([-3.0, -3.2, -2.8]))
    good = np.ones(3, bool)
    with pytest.raises(Stopped, match=r'differ by 0\.75 eV/atom \(limit 0\.5\).*e0s="estimate"'):
        record_labels(OWN, far, good, 0, 0.0, check_zero=True)
    assert record_labels(OWN, far, good, 0, 0.0, check_zero=False)["labels_made"] == 3


PREFLIGHT = {"n_labels": 6, "findings": [], "before": None, "n_given": 0, "n_replayed": 0, "notes": ["E0s: of a file"]}
FINDING = {"severity": "warning", "check": "c", "message": "odd", "remedy": "look", "frames": [], "where": ""}


def report():
    system = {"name": "s", "formula": "H3O", "n_atoms": 4, "replicas": 3, "timestep": 0.5, "ensemble": "nvt"}
    system |= {"temperature": 300.0, "energy_shift_eV": 1.5, "labels_per_round": 3, "weight": 1.0}
    return {
        "settings": {"e0s": "estimate"},
        "systems": [system],
        "oracle": "xtb",
        "labels_made": 4,
        "labels_failed": 2,
        "rounds": round_rows(history()),
        "strategy": [["strategy", "naive", ""]],
        "versions": {"mlipjax": "0"},
        "n_parameters": 9,
        "n_trained_parameters": 9,
        "preflight": {**PREFLIGHT, "seconds": [0.1], "hours": 2.0, "training_bytes": 10**9},
    }


def test_the_report_shows_every_round_and_says_what_went_wrong(tmp_path):
    found = judge_run(report(), history())
    write_periodic_report(tmp_path, {**report(), "verdict": found._asdict()}, history())
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "errors.png", "trajectory.png", "loss.png"}
    assert (tmp_path / "report.html").read_text().count('src="data:image/png;base64,') == 3
    assert found.alarm
    assert "2 labels failed" in found.text
    assert "2 alarms" in found.text


def frames():
    """The frames of ``history`` that have labels: two of each round."""
    found = [Atoms("OH3", np.arange(12.0).reshape(4, 3)) for _ in range(4)]
    for number, atoms_ in enumerate(found):
        atoms_.info = {"round": 1 + number // 2, "system": 1}
    return found


@pytest.mark.parametrize("on_alarm", ["label", "ignore"])
def test_frames_with_large_errors_and_alarms_are_shown(tmp_path, on_alarm):
    now = report()
    now["settings"]["on_alarm"] = on_alarm
    found = _apart(now, history(), frames())
    # of the three frames of a round, one for each replica, the second has no label; the first replica had an alarm
    assert [one.error for one in found] == pytest.approx(2 * [1000.0 * 1.2 / np.sqrt(12), 300.0])
    assert [one.worst for one in found] == [0, 0, 0, 0]
    assert [one.by_alarm for one in found] == 2 * [on_alarm == "label", False]
    verdict = judge_run(now, history())._asdict()
    write_periodic_report(tmp_path, {**now, "verdict": verdict}, history(), frames())
    drawn = {path.name for path in tmp_path.glob("*.png")} - {"errors.png", "trajectory.png", "loss.png"}
    assert drawn == {"largest_errors.png"} | ({"alarms.png"} if on_alarm == "label" else set())
    text = (tmp_path / "report.html").read_text()
    assert ("Frames with alarms" in text) == (on_alarm == "label")


def test_records_of_earlier_versions_have_no_pictures(tmp_path):
    old = [{k: v for k, v in record.items() if k != "worst_atom"} for record in history()]
    verdict = judge_run(report(), old)._asdict()
    write_periodic_report(tmp_path, {**report(), "verdict": verdict}, old, frames())
    assert not (tmp_path / "largest_errors.png").exists()


@pytest.mark.parametrize("n_records", range(9))
def test_the_report_can_be_drawn_after_every_piece(tmp_path, n_records):
    part = history()[:n_records]
    now = {**report(), "rounds": round_rows(part), "status": "running"}
    now["preflight"]["findings"] = [FINDING]
    write_periodic_report(tmp_path, {**now, "verdict": judge_run(now, part)._asdict()}, part)
    text = (tmp_path / "report.html").read_text()
    assert ("Running." if any(record["stage"] == "label" for record in part) else "No frame is labelled yet") in text
    assert "odd" in text


def test_a_label_that_cannot_be_had_again_does_not_move_those_behind_it():
    system = System(np.zeros((1, 3)), np.array([8]), np.zeros((3, 3)), (False,) * 3)
    rounded, exact = (
        [Labels.create(1, energy, np.zeros((1, 3))) for energy in row] for row in ((1, 2, 3), (1.1, 2.1, 3.1))
    )
    frames = Dataset.from_examples(Example(system, label, {}) for label in rounded)
    exact[0] = Failure("the store is gone", 2)
    found = in_full_precision(frames, exact)
    assert [float(label.energy) for label in found.labels] == [1.0, 2.1, 3.1]
