"""The measurement of the monitor: lead times and refusals. The whole measurement is in the slow part."""

import json

import numpy as np
import pytest

from experiments.monitors import __main__ as monitors
from experiments.monitors import runs, scores


def flags(text):
    return np.array([letter == "x" for letter in text])


@pytest.mark.parametrize(
    ("alarm", "bad", "lead"),
    [
        ("..xxx", "....x", 20.0),  # two frames early
        ("....x", "..xxx", -20.0),  # late
        ("x..xx", ".....", None),  # nothing to detect
        ("x.xxx", "....x", 20.0),  # a single alarm does not last
        (".....", "..xxx", -30.0),  # never
    ],
)
def test_lead_time(alarm, bad, lead):
    assert runs.lead_time(flags(alarm), flags(bad), 10.0) == lead


def test_features_of_frames_are_summed_over_their_atoms():
    values = np.arange(10.0).reshape(5, 2)
    sums = scores.sums(values, np.array([0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(sums, [[2.0, 4.0], [18.0, 21.0]])


def test_bad_input_is_one_line_and_no_success(tmp_path, capsys):
    assert monitors.run(["--structure", str(tmp_path / "absent.xyz"), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "absent.xyz: no such file" in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_whole_measurement_runs_and_resumes(tmp_path, capsys):
    pytest.importorskip("dscribe", reason='dscribe is not installed (extra "soap")')
    sizes = ["--steps=280", "--every=10", "--reference-runs=2", "--held-out-runs=2", "--departures=1", "--stages=3"]
    arguments = [
        *sizes,
        "--labelled=4",
        "--timing-steps=40",
        "--level=0.1",
        "--descriptor=soap",
        "--out",
        str(tmp_path),
    ]
    assert monitors.run(arguments) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["false_alarms"]["n_held_out"] == 48
    assert results["detection"]["n_labelled"] + results["detection"]["n_failed_labels"] == 28
    assert set(results["detection"]["indices"]) == {*scores.INDICES, *scores.SOAP_INDICES}
    assert results["overhead"]["watch_ms_per_reading"] > 0.0
    assert (tmp_path / "departures.png").exists()
    capsys.readouterr()
    assert monitors.run(arguments) == 0
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["detection"] == results["detection"]
