"""``mlipjax monitor`` from file to file, with a tiny model."""

import json

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read, write

from mlipjax.cli.main import main
from mlipjax.models import NequIPConfig, nequip, save


def frames(n, sigma, seed, n_runs=1):
    """Rattled silicon: independent frames of runs that go on side by side."""
    made = []
    for i in range(n):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(sigma, seed=1000 * seed + i)
        atoms.info |= {"run": i % n_runs, "time_fs": 10.0 * (i // n_runs)}
        made.append(atoms)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model, reference frames, frames like them, and hot ones."""
    import jax

    folder = tmp_path_factory.mktemp("monitor")
    config = NequIPConfig(species=(1, 8, 14), cutoff=3.0, hidden_irreps="4x0e", lmax=0, n_layers=1, radial_hidden=(4,))
    potential = nequip(config)
    save(folder / "model", potential, potential.init(jax.random.key(0)))
    write(folder / "reference.extxyz", frames(160, 0.05, 1, n_runs=4))
    write(folder / "cold.extxyz", frames(40, 0.05, 2, n_runs=2))
    write(folder / "hot.extxyz", frames(24, 0.05, 3)[:12] + frames(24, 0.3, 4)[:12])
    assert command(folder, "cold.extxyz", "--out", str(folder), "--json", str(folder / "cold.json")) == 0
    return folder


def command(folder, data, *options, reference="reference.extxyz"):
    files = ["--model", str(folder / "model"), "--reference", str(folder / reference), "--data", str(folder / data)]
    return main(["monitor", *files, "--level", "0.05", "--components", "2", *options])


def test_frames_like_the_reference_are_in_control(folder):
    report = json.loads((folder / "cold.json").read_text())
    assert (report["n_frames"], report["n_runs"], report["n_fit"]) == (40, 2, 80)
    assert report["versions"]["jax"]
    for name in ("q", "t2", "combined", "worst"):
        row = report["indices"][name]
        assert row["n_calibration"] == 80
        assert 0 < row["n_calibration_effective"] <= 80
        assert 0.0 < row["n_effective"] <= 40.0
        above = np.flatnonzero(np.array(report["frames"][name]) > row["limit"] * (1 + 1e-6))
        np.testing.assert_array_equal(report["alarms"][name], above)
        assert row["n_alarms"] == len(above) < 8  # 5 % of 40 are 2
    silicon = report["per_element"]["Si"]
    assert silicon["n_atoms_fit"] == 640
    assert silicon["rank"] == 2
    assert 0.0 < silicon["t2_limit"]["beta"] < silicon["t2_limit"]["f"]
    assert silicon["q_limit"]["box"] == pytest.approx(silicon["q_limit"]["jackson_mudholkar"], rel=0.3)
    assert (folder / "monitor.png").read_bytes().startswith(b"\x89PNG")


def test_hot_frames_are_named_and_a_saved_monitor_says_the_same(folder, tmp_path, capsys):
    options = ["--json", str(tmp_path / "hot.json"), "--level", "0.001"]
    assert command(folder, "hot.extxyz", *options, reference="monitor.npz") == 0
    output = capsys.readouterr().out
    assert "OUT OF CONTROL" in output
    assert "most by Si" in output
    hot = json.loads((tmp_path / "hot.json").read_text())
    assert len(set(hot["alarms"]["combined"]) & set(range(12, 24))) >= 10
    assert len(set(hot["alarms"]["combined"]) & set(range(12))) <= 3
    cold = json.loads((folder / "cold.json").read_text())
    assert hot["level"] == cold["level"] == 0.05  # the saved limits hold, whatever the command says
    for name in ("q", "t2", "combined", "worst"):
        assert hot["indices"][name]["limit"] == cold["indices"][name]["limit"]


def test_few_calibration_frames_are_said_to_be_few(folder, capsys):
    assert command(folder, "cold.extxyz", "--level", "0.001") == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "which guarantee a level of" in output
    assert "not 0.001" in output
    assert "IN CONTROL as far as" in output


def test_bad_input_is_one_line_and_a_failing_exit_code(folder, tmp_path, capsys):
    water = molecule("H2O", vacuum=3.0)
    write(tmp_path / "water.extxyz", water)
    write(tmp_path / "copper.extxyz", bulk("Cu"))
    write(tmp_path / "few.extxyz", frames(12, 0.05, 1))
    cases = [
        (("water.extxyz", "reference.extxyz", []), "holds H, O, which no frame of"),
        (("copper.extxyz", "reference.extxyz", []), "copper.extxyz, structure 0: this potential does not know Cu"),
        (("few.extxyz", "copper.extxyz", []), "holds Si, which no frame of"),
        (("few.extxyz", "few.extxyz", []), "12 reference frames are too few"),
        (("absent.extxyz", "reference.extxyz", []), "no such file"),
        (
            ("few.extxyz", "reference.extxyz", ["--level", "2"]),
            "--level must be more than 0 and less than 1",
        ),
        (("few.extxyz", "reference.extxyz", ["--components", "9"]), "9 components of 4 features"),
        (("few.extxyz", "absent.npz", []), "no such file"),
    ]
    for (data, reference, options), message in cases:
        reference = folder / reference if (folder / reference).exists() else tmp_path / reference
        assert command(folder, tmp_path / data, *options, reference=reference) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, lines
        assert message in lines[0]


def test_a_monitor_of_another_model_is_refused(folder, tmp_path, capsys):
    import jax

    potential = nequip(NequIPConfig(species=(14,), cutoff=3.0, hidden_irreps="4x0e", lmax=0, n_layers=1))
    save(tmp_path / "other", potential, potential.init(jax.random.key(1)))
    files = ["--reference", str(folder / "monitor.npz"), "--data", str(folder / "cold.extxyz")]
    assert main(["monitor", "--model", str(tmp_path / "other"), *files]) == 1
    assert "features of another model" in capsys.readouterr().err


def simulate(folder, seed, sigma, out, *options):
    start = bulk("Si", cubic=True)
    start.rattle(sigma, seed=seed)
    write(folder / "start.xyz", start, format="extxyz")
    files = ["--model", str(folder / "model"), "--structure", str(folder / "start.xyz"), "--out", str(folder / out)]
    watched = ["--monitor", str(folder / "monitor.npz"), "--monitor-every", "10", "--alarm-readings", "2"]
    return main(["md", *files, "--steps", "40", "--every", "10", "--timestep", "0.1", *watched, *options])


def test_limits_from_all_runs_are_calibrated_on_all_frames(folder):
    assert command(folder, "cold.extxyz", "--calibration", "cross", "--json", str(folder / "cross.json")) == 0
    row = json.loads((folder / "cross.json").read_text())["indices"]["combined"]
    assert row["n_calibration"] == 160
    assert row["alarm_fraction"] < 0.2
    assert command(folder, "hot.extxyz", "--calibration", "cross", "--json", str(folder / "cross.json")) == 0
    assert json.loads((folder / "cross.json").read_text())["indices"]["combined"]["alarm_fraction"] > 0.4


def test_md_stops_where_the_charts_are_left_and_saves_the_frame(folder, capsys):
    assert simulate(folder, 7, 0.3, "stopped.extxyz") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "replica 0 has been out of control for 2 readings" in error
    assert "stopped_alarm.extxyz" in error
    found = read(folder / "stopped_alarm.extxyz")
    assert (len(found), found.info["run"], found.info["step"]) == (8, 0, 20)


@pytest.mark.slow
def test_md_only_counts_alarms_if_asked_and_finds_none_in_control(folder):
    assert simulate(folder, 7, 0.3, "hot_md.extxyz", "--on-alarm", "ignore", "--json", str(folder / "md.json")) == 0
    monitor = json.loads((folder / "md.json").read_text())["monitor"]
    assert monitor["n_readings"] == 4
    assert monitor["n_alarms"] == [4]
    assert monitor["largest"][0] > monitor["limit"]
    assert simulate(folder, 7, 0.05, "cold_md.extxyz", "--json", str(folder / "md.json")) == 0
    assert json.loads((folder / "md.json").read_text())["monitor"]["alarm_steps"] == []
