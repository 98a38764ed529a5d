"""S2 end to end with a tiny model on made-up paths, and the numbers it reports."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.spacegroup import crystal

import mlipjax
from experiments.migration import __main__ as migration
from experiments.migration import data, report
from experiments.migration import units as parts
from experiments.migration.config import ID_PATH, Config
from mlipjax.data import Dataset
from mlipjax.models import NequIPConfig, nequip
from mlipjax.system import Labels, System


def bilayer():
    """One quintuple layer per cell, 2 x 2: small, and layered like the real thing."""
    sites = [(0, 0, 0.399), (0, 0, 0.211), (0, 0, 0)]
    return crystal(["Sb", "Te", "Te"], sites, spacegroup=166, cellpar=[4.26, 4.26, 30.5, 90, 90, 120])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Reference data with one in-domain and one out-of-domain path, and two tiny models."""
    paths = tmp_path / "data" / "cr_sb2te3"
    paths.mkdir(parents=True)
    host = bilayer()
    for name, n_images in (("neb_61_1-4", 3), ("neb_81_1", 4)):
        images = []
        for k in range(n_images):
            image = host.copy() + Atoms("Cr", [[0.3 + 1.2 * k / (n_images - 1), 2.1, 5.1]])
            image.cell[:2] *= 2.0  # pristine() takes the cell for a 2 x 2 one
            image.info = {"dft_relative_energy_eV": 0.1 * k * (n_images - 1 - k)}
            images.append(image)
        write(paths / f"{name}.extxyz", images)
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "data"))
    config = NequIPConfig((24, 51, 52), cutoff=3.4, hidden_irreps="4x0e", lmax=0, n_layers=1, radial_hidden=(4,))
    potential = nequip(config, np.array([[-1.25, -2.0, -3.0]]))
    student = potential.init(jax.random.key(0))
    for name, factor in (("student", 1.0), ("teacher", 1.03)):
        mlipjax.save(tmp_path / name, potential, jax.tree.map(lambda leaf, factor=factor: factor * leaf, student))
    return tmp_path


def config_of(folder: Path, **changes):
    sizes = {
        "labels": 6, "valid": 2, "every": 2, "epochs": 1, "scratch_epochs": 1, "n_images": 3, "max_steps": 3,
        "crystal_steps": 3, "sliding_points": 3, "seeds": 1, "timestep": 0.2,
        "arms": ("fine-tuned, several T", "scratch, part of the data"), "band_seeds": 1, "workers": 1,
    }  # fmt: skip
    return Config(
        **{
            "model": str(folder / "student"),
            "others": (str(folder / "teacher"),),
            "oracle": f"teacher:{folder / 'teacher'}",
            "out": folder / "run",
            **sizes,
            **changes,
        }
    )


@pytest.mark.slow
def test_the_whole_experiment_runs_resumes_and_reports(folder, capsys):
    config = config_of(folder, seeds=2, others=(str(folder / "teacher"), "ase:ase.calculators.lj:LennardJones"))
    migration.main(config)
    results = json.loads((config.out / "results.json").read_text())
    paths = results["summary"]["paths"]
    assert list(paths) == ["neb_61_1-4", "neb_81_1"]  # never pooled
    for entries in paths.values():
        # the oracle is its own reference, and one of the zero-shot models is the oracle
        assert entries["oracle"]["fixed_error_eV"] == 0.0
        assert entries["teacher"]["fixed_error_eV"] == pytest.approx(0.0, abs=1e-4)
        assert entries["teacher"]["own_eV"] == pytest.approx(entries["oracle"]["own_eV"], abs=1e-3)
        # an error only where both bands are converged: three steps are enough for one of the paths
        known = entries["teacher"]["own_error_eV"]
        assert (known is not None) == (entries["teacher"]["converged"] == entries["oracle"]["converged"] == 1.0)
        assert known is None or known == pytest.approx(0.0, abs=1e-3)
        assert abs(entries["student"]["profile_rmse_meV"]) > 0.0
        assert entries["scratch, part of the data"]["n_seeds"] == 2
        assert entries["scratch, part of the data"]["fixed_eV_std"] >= 0.0
        assert "own_eV_std" not in entries["scratch, part of the data"]  # one seed relaxed a band
        foreign = entries["ase:ase.calculators.lj:LennardJones"]
        assert foreign["profile_rmse_meV"] > 0.0
        assert foreign["own_eV"] is None
    assert results["summary"]["crystal"]["ase:ase.calculators.lj:LennardJones"]["c_A"] is None
    assert results["summary"]["crystal"]["oracle"]["c_A"] > 20.0
    assert results["n_labels"] == {"single": 6, "several": 6, "valid": 2}
    assert {arm: len(seeds) for arm, seeds in results["latent"]["pairs"].items()} == dict.fromkeys(config.arms, 2)
    html = (config.out / "report.html").read_text()
    assert "not DFT" in html
    assert "for orientation, not as truth" in html
    assert "mean ± standard deviation over 2 seeds" in html
    bands = [entry["converged"] for entries in paths.values() for entry in entries.values()]
    n_open, n_bands = sum(c == 0.0 for c in bands), sum(c is not None for c in bands)
    assert n_bands == 2 * 5  # a foreign calculator relaxes none
    assert f"{n_open} of {n_bands} bands are NOT converged" in html
    for name in ("profiles", "barriers", "sliding"):
        assert (config.out / f"{name}.png").stat().st_size > 10_000
    before = {file: file.stat().st_mtime_ns for file in (config.out / "units").iterdir()}
    migration.main(config)
    assert {file: file.stat().st_mtime_ns for file in (config.out / "units").iterdir()} == before
    with pytest.raises(ValueError, match="holds a run with"):
        migration.main(config_of(folder, labels=8))


@pytest.mark.slow
def test_two_processes_find_what_one_finds(folder):
    """In whatever order units are computed: none sees what its process did before."""
    found = []
    for workers in (1, 2):
        config = config_of(folder, workers=workers, arms=("fine-tuned, several T",), out=folder / f"run-{workers}")
        migration.main(config)
        found.append(json.loads((config.out / "results.json").read_text()))
    for path, entries in found[0]["summary"]["paths"].items():
        for model, entry in entries.items():
            other = found[1]["summary"]["paths"][path][model]
            assert other["fixed_eV"] == pytest.approx(entry["fixed_eV"], abs=1e-5)
            assert other["own_eV"] == pytest.approx(entry["own_eV"], abs=1e-4)


def labelled(n, run):
    systems = tuple(System.from_ase(Atoms("Cr", [[0, 0, float(i)]])) for i in range(n))
    return Dataset(systems, tuple(Labels.create(1, 0.0) for _ in range(n)), tuple({"run": run} for _ in range(n)))


def test_part_of_the_data_keeps_every_trajectory():
    first, second = labelled(6, "a"), labelled(4, "b")
    both = Dataset.from_examples([*(first[i] for i in range(6)), *(second[i] for i in range(4))])
    half = data.thinned(both, 50.0)
    assert [info["run"] for info in half.infos] == ["a"] * 3 + ["b"] * 2
    assert [s.positions[0, 2] for s in half.systems] == [0, 1, 2, 0, 1]
    assert len(data.thinned(both, 1.0)) == 2


def test_labels_are_divided_evenly():
    assert list(data._shares(16, [(t, e) for t in (300.0, 600.0, 900.0) for e in "ab"]).values()) == [3, 3, 3, 3, 2, 2]


def test_errors_are_distances_from_the_oracle():
    def row(energies, own):
        profile = list(energies)
        return {
            "profile_eV": profile,
            "fixed_path_barrier_eV": max(profile) - profile[0],
            "forces_eV_per_A": [[[0.1 * len(profile), 0.0, 0.0]]],
            "own": {"barrier_eV": own, "converged": True, "climbed": True},
        }

    oracle, model = row([0.0, 1.0, 0.2], 0.8), row([0.0, 1.3, -0.2], 0.9)
    numbers = report._path_numbers(model, oracle)
    assert numbers["fixed_error_eV"] == pytest.approx(0.3)
    assert numbers["own_error_eV"] == pytest.approx(0.1)
    assert numbers["profile_rmse_meV"] == pytest.approx(1e3 * np.sqrt((0.3**2 + 0.4**2) / 2))
    assert numbers["force_mae_meV_per_A"] == 0.0
    open_ = {**model, "own": {"barrier_eV": 5.0, "converged": False, "climbed": False}}
    assert report._path_numbers(open_, oracle)["own_error_eV"] is None
    assert report._path_numbers(open_, oracle)["own_eV"] == 5.0
    assert (numbers["climbed"], report._path_numbers(open_, oracle)["climbed"]) == (1.0, 0.0)
    without = {key: value for key, value in oracle.items() if key != "own"}
    assert report._path_numbers(model, without)["own_error_eV"] is None
    spread = report._over_seeds([numbers, {**numbers, "fixed_eV": numbers["fixed_eV"] + 0.2}])
    assert spread["fixed_eV_std"] == pytest.approx(0.2 / np.sqrt(2))


def test_training_must_start_on_the_first_path(folder):
    with pytest.raises(ValueError, match="it must be neb_61_1-4"):
        migration.main(config_of(folder, paths=("neb_81_1",)))


def test_unknown_arms_are_refused(folder):
    with pytest.raises(ValueError, match="found the arms"):
        migration.main(config_of(folder, arms=("tuned",)))


def test_a_foreign_calculator_is_not_fine_tuned(folder):
    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        migration.main(config_of(folder, model="ase:ase.calculators.lj:LennardJones"))


def test_models_are_loaded_before_anything_is_computed(folder):
    with pytest.raises(ValueError, match="no model is called 'no-such-model'"):
        migration.main(config_of(folder, others=("no-such-model",)))
    assert not (folder / "run").exists()


def test_bands_are_relaxed_by_the_first_seeds_only(folder):
    config = config_of(folder, seeds=3, band_seeds=1)
    units = {unit.name: unit for unit in parts.units_of(config)}
    assert len([unit for unit in units.values() if unit.make is parts._train]) == 3 * len(config.arms)
    probes = [unit for unit in units.values() if unit.make is parts._probe_tuned]
    assert len(probes) == 3 * 3 * len(config.arms)  # two paths and the crystal, three seeds
    assert all(len(unit.after) == 1 and units[unit.after[0]].after == ("labels",) for unit in probes)


def test_tables_give_the_spread_over_seeds():
    rows = [{"a": 1.0, "b": None}, {"a": 2.0, "b": 0.5}]
    entry = report._over_seeds(rows)
    assert report.spread(entry, "a") == "1.5 ± 0.71"
    assert report.spread(entry, "b") == 0.5  # one value has no spread
    assert report.spread({"a": None}, "a") is None


def test_fine_tuning_wins_where_it_gains_more_than_its_spread():
    def tuned(rmse):
        return {"profile_rmse_meV": rmse, "profile_rmse_meV_std": 10.0}

    answers = [report._answer({"profile_rmse_meV": 100.0}, tuned(rmse)) for rmse in (60.0, 90.0, 130.0)]
    assert answers == ["supported", "not decided", "contradicted"]
    assert report._answer({"profile_rmse_meV": 100.0}, {"profile_rmse_meV": 1.0}) == "not decided"  # one seed


def test_missing_reference_data_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set MLIPJAX_DATA"):
        data.load_path(ID_PATH)
