"""The verbs take models and structures in every form, and say in Python what their commands say."""

import json

import jax
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read as ase_read
from ase.io import write

import mlipjax
from mlipjax.cli.main import main
from mlipjax.finetuning.retain import check_level
from mlipjax.models import NequIPConfig, nequip
from mlipjax.notices import Notice
from mlipjax.settings import FinetuneSettings
from mlipjax.train import LabelledBatches
from mlipjax.verbs.inputs import check_atoms, folder_and_file, open_model, repeated
from mlipjax.verbs.read import read_structures

CONFIG = NequIPConfig(
    species=(14,), cutoff=3.5, hidden_irreps="4x0e", lmax=0, n_layers=1, radial_hidden=(4,), avg_n_neighbors=8.0
)


@pytest.fixture(scope="module")
def model():
    potential = nequip(CONFIG, np.array([[-1.25]]))
    return mlipjax.Model(potential, potential.init(jax.random.key(0)))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model and labelled frames as files."""
    folder = tmp_path_factory.mktemp("verbs")
    mlipjax.save(folder / "model", *model)
    write(folder / "frames.extxyz", frames(6))
    return folder


def frames(n, sigma=0.05):
    """Rattled silicon with labels that are no model's."""
    made = []
    for seed in range(n):
        atoms = bulk("Si", cubic=True)
        atoms.rattle(sigma, seed=seed)
        labels = {"energy": -10.0 - 0.01 * seed, "forces": np.random.default_rng(seed).normal(0.0, 0.1, (8, 3))}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["run"] = seed % 2
        made.append(atoms)
    return made


def test_labels_are_read_from_files_and_from_atoms_alike(folder):
    of_file, of_atoms = mlipjax.read(folder / "frames.extxyz"), mlipjax.read(frames(6))
    assert mlipjax.read(of_file) is of_file
    assert of_file.count_labels() == of_atoms.count_labels() == {"energy": 6, "forces": 6, "stress": 0}
    for one, other in zip(of_file, of_atoms, strict=True):
        np.testing.assert_allclose(one.labels.forces, other.labels.forces, atol=1e-7)
        assert one.info["run"] == other.info["run"]
    assert len(mlipjax.read([folder / "frames.extxyz", f"{folder}/frames.extxyz@:2"])) == 8
    assert mlipjax.read(frames(2), forces_key="none").count_labels()["forces"] == 0
    assert read_structures(frames(2)).count_labels() == {"energy": 0, "forces": 0, "stress": 0}


def test_doubtful_labels_are_refused_with_the_option_that_helps(folder):
    renamed = frames(1)
    renamed[0].info["my_energy"] = renamed[0].get_potential_energy()
    renamed[0].calc = None
    with pytest.raises(ValueError, match=r'structure 0: .*\(?energy_key="NAME"'):
        mlipjax.read(renamed)
    with pytest.raises(ValueError, match="have been read already"):
        mlipjax.read(mlipjax.read(frames(1)), energy_key="energy")
    with pytest.raises(ValueError, match="none of 1 structures has forces"):
        mlipjax.read([bulk("Si")], required=("forces",))


def test_errors_are_the_same_for_every_form_of_the_data(folder, model, tmp_path):
    expected = mlipjax.evaluate(model, frames(6), dtype="float64")
    for data in (folder / "frames.extxyz", [str(folder / "frames.extxyz")], mlipjax.read(frames(6))):
        found = mlipjax.evaluate(model, data, dtype="float64")
        assert found["force_mae_meV_per_A"] == pytest.approx(expected["force_mae_meV_per_A"], rel=1e-6)
    predicted = mlipjax.predict(model, mlipjax.read(frames(6)), dtype="float64")
    errors = [np.abs(a.get_forces() - b.get_forces()).mean() for a, b in zip(predicted, frames(6), strict=True)]
    assert expected["force_mae_meV_per_A"] == pytest.approx(1e3 * np.mean(errors), rel=1e-6)
    report = tmp_path / "report.json"
    options = ["--data", str(folder / "frames.extxyz"), "--dtype", "float64", "--json", str(report)]
    assert main(["evaluate", "--model", str(folder / "model"), *options]) == 0
    assert json.loads(report.read_text())["force_mae_meV_per_A"] == pytest.approx(
        expected["force_mae_meV_per_A"], rel=1e-6
    )


def test_structures_without_an_energy_are_left_out_and_named(model):
    broken = frames(3)
    broken[1].positions[0] = broken[1].positions[1]
    with pytest.warns(Notice, match="1 of its structures have no energy and were left out: structure 1"):
        report = mlipjax.evaluate(model, broken)
    assert (report["n_frames"], list(report["left_out"])) == (2, [1])
    with pytest.raises(ValueError, match="1 of its structures have no energy"):
        mlipjax.evaluate(model, broken[1])


def test_a_simulation_keeps_a_folder_and_continues(model, tmp_path):
    options = {"timestep": 1.0, "every": 5, "temperature": 300.0, "seed": 3}
    atoms = bulk("Si", cubic=True)
    first = mlipjax.simulate(model, atoms, "nvt", steps=10, out=tmp_path / "run", **options)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"trajectory.extxyz", "trajectory_restart.npz", "results.json"} <= names
    assert json.loads((tmp_path / "run" / "results.json").read_text())["n_steps"] == 10
    again = mlipjax.simulate(model, atoms, "nvt", steps=20, out=tmp_path / "run", **options)
    assert (first.report["resumed_from"], again.report["resumed_from"]) == (0, 10)
    written = ase_read(tmp_path / "run" / "trajectory.extxyz", ":")
    assert len(written) == 4
    last = again.atoms[0]
    np.testing.assert_allclose(last.positions, written[-1].positions, atol=1e-6)
    np.testing.assert_allclose(last.get_momenta(), written[-1].get_momenta(), atol=1e-6)
    assert last.get_potential_energy() == pytest.approx(written[-1].get_potential_energy(), abs=1e-5)

    with pytest.warns(Notice, match="every=50 keeps no frame of 10 steps; choose fewer steps between frames"):
        mlipjax.simulate(model, atoms, "nvt", steps=10, write=tmp_path / "few.extxyz", **options | {"every": 50})
    whole = mlipjax.simulate(model, atoms, "nvt", steps=20, **options)  # nothing on disk
    assert whole.trajectory is None
    np.testing.assert_array_equal(whole.atoms[0].positions, last.positions)


def test_a_simulation_is_watched_by_charts_in_memory(model):
    home = frames(60)
    found = mlipjax.monitor(model, home[50:], reference=home[:50], level=0.1, components=1)
    assert found.verdict.n == 10
    run = mlipjax.simulate(
        model,
        frames(1)[0],
        "nve",
        steps=4,
        velocities="draw",
        monitor=found.monitor,
        monitor_every=2,
        on_alarm="ignore",
    )
    assert run.report["monitor"]["n_readings"] == 2


def test_charts_in_memory_and_on_disk_judge_alike(model, tmp_path):
    home, hot = frames(60), frames(5, sigma=0.5)
    found = mlipjax.monitor(model, hot, reference=home, level=0.1, components=1, out=tmp_path / "charts")
    assert not found.in_control
    assert (tmp_path / "charts" / "monitor.png").stat().st_size > 5000
    for reference in (found.monitor, tmp_path / "charts" / "monitor.npz"):
        again = mlipjax.monitor(model, hot, reference=reference)
        np.testing.assert_allclose(again.readings.frame, found.readings.frame, rtol=1e-6)
        assert again.as_dict()["worst"] == found.as_dict()["worst"]
    json.dumps(found.as_dict(), allow_nan=False)


def test_settings_of_a_fine_tune_are_keywords(model, folder):
    options = {"epochs": 1, "batch_size": 3, "valid_fraction": 0.0, "anchor": "none", "allow_e0_mismatch": True}
    options["ignore"] = ["sign", "units", "agreement", "order"]
    with pytest.raises(TypeError, match="there is no option 'epoch'; did you mean 'epochs'"):
        mlipjax.finetune(model, folder / "frames.extxyz", epoch=1)
    with pytest.raises(ValueError, match='give either train="FILE"'):
        mlipjax.finetune(model)
    with pytest.raises(ValueError, match="need property="):
        mlipjax.finetune(model, folder / "frames.extxyz", strategy="mft")
    labelled = mlipjax.predict(model, frames(4))
    for atoms in labelled:
        del atoms.calc.results["stress"]
    with pytest.warns(Notice, match=r"stress_weight=2.0 is not used: no structure to train on has a stress"):
        tuned = mlipjax.finetune(model, labelled, stress_weight=2.0, **options)
    assert isinstance(tuned.model, mlipjax.Model)
    assert tuned.report["settings"]["epochs"] == 1
    assert tuned.report["n_train"] == 4
    assert isinstance(mlipjax.predict(tuned, labelled[0]).get_potential_energy(), float)


def test_outputs_are_a_folder_or_a_file(tmp_path):
    assert folder_and_file(None, None, "a.extxyz") == (None, None)
    assert folder_and_file(tmp_path, None, "a.extxyz") == (tmp_path, tmp_path / "a.extxyz")
    assert folder_and_file("old.extxyz", None, "a.extxyz")[0] is None
    (tmp_path / "old").write_text("")
    assert folder_and_file(tmp_path / "old", None, "a.extxyz") == (None, tmp_path / "old")
    with pytest.raises(ValueError, match="either a folder"):
        folder_and_file(tmp_path, "b.extxyz", "a.extxyz")


def test_what_is_no_model_is_refused_by_its_type(model):
    with pytest.raises(TypeError, match="found Potential"):
        mlipjax.predict(model.potential, bulk("Si"))
    with pytest.raises(TypeError, match="not some of both"):
        mlipjax.predict(model, [bulk("Si"), "si.cif"])
    with pytest.raises(ValueError, match=r"found 'dft'"):
        open_model(model, "dft")


def test_supercells_are_counted_before_they_are_built():
    check_atoms(8, (4, 4, 4))
    assert len(repeated(bulk("Si"), (2, 1, 1))) == 4
    with pytest.raises(ValueError, match=r"repeat=\(4000, 4000, 4000\) makes 512000000000 atoms of 8"):
        check_atoms(8, (4000, 4000, 4000))


def test_the_structure_with_an_unknown_element_is_named(model):
    strange = frames(3)
    strange[1].symbols[0] = "Fe"
    with pytest.raises(ValueError, match=r"structure 1: this potential does not know Fe"):
        mlipjax.evaluate(model, strange)


def test_labels_that_cannot_be_right_are_said_where_errors_are_measured(model, recwarn):
    model = mlipjax.Model(model.potential, jax.tree.map(lambda leaf: 3.0 * leaf, model.params))  # forces of some eV/Å
    labelled = mlipjax.predict(model, frames(6, sigma=0.2))
    mlipjax.evaluate(model, labelled)
    assert not recwarn.list
    for atoms in labelled:
        atoms.calc.results["forces"] *= -1.0
    with pytest.warns(UserWarning, match=r"sign: forces of the structures are -1 times the model's"):
        report = mlipjax.evaluate(model, labelled)
    assert report["force_slope"] == pytest.approx(-1.0, abs=1e-3)


def test_structures_that_cannot_be_used_are_named_with_their_file(model, folder, tmp_path, capsys):
    strange = frames(4)
    strange[2].symbols[0] = "Fe"
    write(tmp_path / "strange.extxyz", strange)
    said = r"strange.extxyz, structure 2: this potential does not know Fe"
    files = [folder / "frames.extxyz", tmp_path / "strange.extxyz"]
    for reference, data in (files, files[::-1]):
        with pytest.raises(ValueError, match=said):
            mlipjax.monitor(model, data, reference=reference)
    command = ["probe", "softening", "--model", str(folder / "model"), "--data", str(tmp_path / "strange.extxyz")]
    assert main(command) == 1
    assert said.replace("\\", "") in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"does not know Fe \(anchor: .*strange.extxyz, structure 2\)"):
        check_level("anchor", mlipjax.read(tmp_path / "strange.extxyz"), model, FinetuneSettings())
    strange[2].symbols[0], strange[2].positions[1] = "Si", strange[2].positions[0]
    write(tmp_path / "strange.extxyz", strange)
    with pytest.raises(ValueError, match=r"strange.extxyz, structure 2: atoms Si 0 and Si 1 are 0 Å apart"):
        LabelledBatches.create(model.potential, mlipjax.read(tmp_path / "strange.extxyz"), 2)
