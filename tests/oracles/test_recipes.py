"""Recipes of DFT codes: what they write, and Quantum ESPRESSO for real where it is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from mlipjax.oracles import AseOracle, recipes
from mlipjax.system import System

PSEUDO = Path("/usr/share/espresso/pseudo")  # of Debian's quantum-espresso-data


def written(calculator, atoms, folder):
    """Texts of the input files that a calculator with files of its own writes."""
    calculator.template.write_input(
        calculator.profile, folder, atoms, dict(calculator.parameters), ["energy", "forces"]
    )
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_espresso_asks_for_forces_and_stress(tmp_path):
    calculator = recipes.espresso({"Si": "Si.UPF"}, pseudo_dir="/pseudo", cutoff=40.0, conv_thr=1e-10)
    text = written(calculator, bulk("Si"), tmp_path)["espresso.pwi"].lower()
    for line in ("tprnfor", "tstress", "nosym", "conv_thr", "si.upf", "k_points automatic"):
        assert line in text
    values = dict(line.split("=") for line in text.replace(" ", "").splitlines() if "=" in line)
    assert (float(values["ecutwfc"]), float(values["ecutrho"]), float(values["conv_thr"])) == (40.0, 320.0, 1e-10)


def test_vasp_computes_one_structure_without_symmetry(tmp_path, monkeypatch):
    (potential := tmp_path / "potpaw_PBE" / "Si").mkdir(parents=True)
    (potential / "POTCAR").write_text("no potential")
    monkeypatch.setenv("VASP_PP_PATH", str(tmp_path))
    calculator = recipes.vasp(encut=600.0)
    calculator.initialize(bulk("Si"))
    calculator.write_incar(bulk("Si"), directory=str(tmp_path))
    tags = dict(line.split(" = ") for line in (tmp_path / "INCAR").read_text().splitlines() if " = " in line)
    tags = {name.strip(): value.strip() for name, value in tags.items()}
    assert float(tags["ENCUT"]) == 600.0
    assert (tags["ISYM"], tags["NSW"], tags["IBRION"], tags["ISIF"], tags["LREAL"]) == ("0", "0", "-1", "2", ".FALSE.")
    assert float(tags["EDIFF"]) == 1e-6


def test_aims_has_a_stress_for_crystals_only(tmp_path):
    species = tmp_path / "species"
    species.mkdir()
    (species / "14_Si_default").write_text("  species Si\n")
    (species / "01_H_default").write_text("  species H\n")
    for name, atoms, kspacing in (("crystal", bulk("Si"), 0.25), ("molecule", molecule("H2"), None)):
        (folder := tmp_path / name).mkdir()
        text = written(recipes.aims(species, kspacing=kspacing), atoms, folder)["control.in"]
        assert "compute_forces" in text
        assert ("compute_analytical_stress" in text) == (kspacing is not None)
        assert ("k_grid" in text) == (kspacing is not None)


def test_orca_computes_a_gradient(tmp_path):
    text = written(recipes.orca(charge=-1), molecule("OH"), tmp_path)["orca.inp"]
    assert "EnGrad" in text
    assert "TightSCF" in text
    assert "*xyz -1 1" in text


@pytest.mark.dft
@pytest.mark.skipif(
    shutil.which("pw.x") is None or not (PSEUDO / "O.pbe-rrkjus.UPF").exists(),
    reason="Quantum ESPRESSO is not installed: apt-get install quantum-espresso quantum-espresso-data",
)
def test_espresso_labels_oxygen(tmp_path, monkeypatch):
    """Forces are slopes of the energy, through the oracle that gives every label a folder of its own."""
    (tmp_path / "espresso_recipe.py").write_text(
        "from mlipjax.oracles import recipes\n"
        "def pbe():\n"
        "    files = {'O': 'O.pbe-rrkjus.UPF'}\n"
        f"    return recipes.espresso(files, pseudo_dir={str(PSEUDO)!r}, cutoff=30.0, kspacing=None)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    oracle = AseOracle("espresso_recipe:pbe")

    def label(distance):
        positions = np.array([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0 + distance]])
        return oracle.label(System(positions, np.array([8, 8]), np.diag([4.0, 4.0, 4.5]), (True, True, True)))

    short, middle, long = (label(distance) for distance in (1.21, 1.23, 1.25))
    slope = float(long.energy - short.energy) / 0.04
    np.testing.assert_allclose(middle.forces[0, 2], slope, atol=0.05)
    assert middle.stress_weight == 1.0
