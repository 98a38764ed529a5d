"""Atoms in the same place: every command names file, structure and atoms, and goes on where it has others."""

import dataclasses
import json

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from tiny_nequip import SMALLEST, random_params

from mlipjax import save
from mlipjax.cli.main import main
from mlipjax.cli.output import LeftOut
from mlipjax.models import nequip

N, BAD = 5, 2
WHAT = "atoms H 1 and H 2 are 1e-07 Å apart"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and water in a box, of which one frame has both hydrogens in images of one place."""
    folder = tmp_path_factory.mktemp("coinciding")
    potential = nequip(dataclasses.replace(SMALLEST, species=(1, 8)))
    save(folder / "model", potential, random_params(potential))
    frames = []
    for seed in range(N):
        atoms = molecule("H2O", vacuum=3.0, pbc=True)
        atoms.rattle(0.05, seed=seed)
        if seed == BAD:
            atoms.positions[2] = atoms.positions[1] + atoms.cell[0] + [1e-7, 0.0, 0.0]
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 - seed, forces=np.full((3, 3), 0.01 * seed))
        atoms.info["time_fs"] = 10.0 * seed
        frames.append(atoms)
    ase.io.write(folder / "frames.extxyz", frames)
    return folder


ONE = (
    "simulate --structure {bad} --steps 1 --out run",
    "relax --structure {bad}",
    "neb --images {bad} {good}",
    "slide --structure {bad}",
    "periodic --structure {bad} --oracle teacher:universal --out run",
    "engine ipi --structure {bad} --out run",
    "engine lammps --structure {bad} --out run",
    "export --structure {bad} --out run",
    "predict --data {bad}",
    "evaluate --data {bad}",
    *(f"probe {name} --structure {{bad}}" for name in ("eos", "elastic", "gamma", "phonons", "vacancy")),
    "probe softening --data {all}",
    "monitor --reference {all} --data {good}",
    "monitor --reference {good} --data {all}",
    "finetune --train {all} --out run",
    "doctor --train {all}",
    *(f"probe {name} --trajectory {{all}}" for name in ("rdf", "diffusion", "vdos", "events", "order")),
)


@pytest.mark.parametrize("command", ONE)
def test_file_structure_and_atoms_are_named(folder, monkeypatch, tmp_path, capsys, command):
    monkeypatch.chdir(tmp_path)
    file = folder / "frames.extxyz"
    line = command.format(bad=f"{file}@{BAD}", good=f"{file}@0", all=file).split()
    model = [] if "--trajectory" in line else ["--model", str(folder / "model")]
    assert main([*line, *model]) == 1
    out, err = capsys.readouterr()
    assert str(file) in err
    assert "fault of the program" not in err
    if line[0] in ("finetune", "doctor"):
        assert "atoms lie on top of each other, down to 1e-07 Å" in out + err
        assert f"frames.extxyz, structure {BAD}" in out + err
    else:
        assert WHAT in err
        assert any(f"{word}{BAD}" in err for word in ("structure ", "frame ", "@"))


@pytest.mark.parametrize("command", ["predict --data", "evaluate --data", "relax --steps 2 --structure"])
def test_the_rest_is_done_without_it(folder, tmp_path, capsys, command):
    report, written = tmp_path / "report.json", tmp_path / "frames.extxyz"
    where = ["--model", str(folder / "model"), "--json", str(report), "--write", str(written)]
    assert main([*command.split(), str(folder / "frames.extxyz"), *where]) == 1
    out, err = capsys.readouterr()
    assert WHAT in err
    assert "1 left out" in err or "1 without an energy left out" in err
    assert list(json.loads(report.read_text())["left_out"]) == [str(BAD)]
    found = ase.io.read(written, ":")
    assert len(found) == N - 1
    assert all(np.isfinite(atoms.get_forces()).all() for atoms in found)
    if command.startswith("relax"):
        named = [line.split(":")[0] for line in out.splitlines() if "onverged" in line or "CONVERGED" in line]
        assert named == [f"structure {n}" for n in range(N) if n != BAD]


def test_numbers_of_structures_that_are_left():
    left = LeftOut()
    for number in (0, 3, 4):
        left[number] = ""
    assert [left.number(place) for place in range(4)] == [1, 2, 5, 6]
    with pytest.raises(ValueError, match=r"all\.xyz: .*; 3 left out"):
        left.refuse("all.xyz")
    LeftOut().refuse("all.xyz")
