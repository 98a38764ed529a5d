"""Foreign calculators: taken for zero-shot comparison, refused with one clear line wherever parameters are needed."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import write

import mlipjax
from mlipjax.cli.main import main
from mlipjax.data import read_dataset
from mlipjax.factory import PACKAGES, Package, import_factory, make_calculator
from mlipjax.models.foreign import foreign_calculator, is_foreign
from mlipjax.probes import load_evaluator

NAME = "ase:ase.calculators.emt:EMT"


def labelled_copper(path):
    frames = []
    for seed in range(3):
        atoms = Atoms("Cu4", [[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.6]], cell=[8, 8, 8], pbc=True)
        atoms.rattle(0.1, seed=seed)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_forces()
        atoms.get_stress()
        frames.append(atoms)
    write(path, frames)
    return path


def test_a_name_makes_the_calculator():
    assert is_foreign(NAME)
    assert not is_foreign("nequix-mp-1")
    assert isinstance(foreign_calculator(NAME), EMT)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ase:no_such_module:make", "cannot import 'no_such_module'"),
        ("ase:ase.calculators.emt:Nothing", "has no function 'Nothing'"),
        ("ase:ase.calculators.emt", "no program is called 'ase.calculators.emt' here; known: chgnet, mace"),
        ("ase:fake", "fake needs the module no_such_package; pip install fake-torch"),
        ("ase:builtins:dict", "returned dict, not an ASE calculator"),
        ("nequix-mp-1", "expected ase:module:factory"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(name, problem, monkeypatch):
    monkeypatch.setitem(PACKAGES, "fake", Package("fake-torch", "1", lambda model: __import__("no_such_package")))
    with pytest.raises(ValueError, match=problem):
        foreign_calculator(name)


def test_programs_are_made_by_short_names_with_the_model_that_is_asked_for(monkeypatch, capsys):
    def make(model):
        print("running on abacus")
        return EMT(label=model)

    monkeypatch.setitem(PACKAGES, "fake", Package("fake", "standard", make))
    assert foreign_calculator("ase:fake").label == "standard"
    assert foreign_calculator("ase:fake/large-2").label == "large-2"
    assert capsys.readouterr().out == ""  # that is for results


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chgnet", "sevenn", "sevenn/7net-l3i5"])
def test_programs_that_bring_their_weights_are_evaluated(name, tmp_path):
    pytest.importorskip(name.partition("/")[0], reason="not installed")
    evaluate = load_evaluator(f"ase:{name}")
    system = read_dataset(labelled_copper(tmp_path / "copper.extxyz")).systems[0]
    step = np.zeros((4, 3))
    step[1, 0] = 0.01
    moved = [dataclasses.replace(system, positions=system.positions + sign * step) for sign in (1, -1)]
    up, down = (found.energy for found in evaluate(moved))
    force = evaluate([system])[0].forces[1, 0]
    assert abs(force) > 0.1
    np.testing.assert_allclose((down - up) / 0.02, force, atol=0.02)


def test_factories_are_functions():
    assert import_factory("math:sqrt")(4.0) == 2.0
    with pytest.raises(ValueError, match="has no function 'pi'"):
        import_factory("math:pi")
    with pytest.raises(ValueError, match="not an ASE calculator"):
        make_calculator("builtins:list")


def test_loading_parameters_is_refused():
    with pytest.raises(ValueError, match=r"foreign calculator.*cannot be fine-tuned.*oracle=\"ase:module:factory\""):
        mlipjax.load(NAME)


@pytest.mark.parametrize("command", ["finetune", "md", "monitor"])
def test_commands_that_need_parameters_refuse_in_one_line(command, tmp_path, capsys):
    data = labelled_copper(tmp_path / "copper.extxyz")
    arguments = {
        "finetune": ["--train", str(data), "--out", str(tmp_path / "run")],
        "md": ["--structure", str(data), "--steps", "2", "--out", str(tmp_path / "t.extxyz")],
        "monitor": ["--reference", str(data), "--data", str(data)],
    }[command]
    assert main([command, "--model", NAME, *arguments]) == 1
    error = capsys.readouterr().err
    # notes (which of several structures was taken) have lines of their own
    assert len([line for line in error.splitlines() if not line.startswith("note: ")]) == 1
    assert "cannot be fine-tuned, simulated or charted" in error


def test_evaluate_takes_a_foreign_calculator(tmp_path):
    import json

    data = labelled_copper(tmp_path / "copper.extxyz")
    result = tmp_path / "report.json"
    assert main(["evaluate", "--model", NAME, "--data", str(data), "--json", str(result)]) == 0
    report = json.loads(result.read_text())
    # the labels are its own, written with as many digits as ASE writes
    assert report["force_mae_meV_per_A"] < 1e-3
    assert report["energy_mae_meV_per_atom"] < 1e-3
    assert report["n_frames"] == 3


def test_probe_command_on_a_foreign_calculator(tmp_path, capsys):
    import json

    from ase.build import bulk

    write(tmp_path / "copper.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
    result, figure = tmp_path / "eos.json", tmp_path / "eos.png"
    structure = ["--structure", str(tmp_path / "copper.extxyz")]
    outputs = ["--json", str(result), "--figure", str(figure)]
    assert main(["probe", "eos", "--model", NAME, *structure, *outputs]) == 0
    report = json.loads(result.read_text())
    assert 3.6 * report["scale"] == pytest.approx(3.59, abs=0.02)  # EMT copper
    assert np.isfinite(report["bulk_modulus_GPa"])
    assert figure.stat().st_size > 10_000
    assert "bulk modulus" in capsys.readouterr().out
    assert main(["probe", "elastic", "--model", NAME]) == 1
    assert "needs --structure" in capsys.readouterr().err
    assert main(["probe", "gamma", "--model", NAME, *structure]) == 1
    assert "foreign calculator" in capsys.readouterr().err
