"""``mlipjax neb`` and ``mlipjax slide`` from file to file."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLengths
from ase.io import read, write

from mlipjax.cli.main import main
from mlipjax.cli.options.common import Computes, LabelOptions
from mlipjax.cli.options.structures import Probe
from mlipjax.cli.probe import _PROBES, _USES
from mlipjax.models import NequIPConfig, nequip, save
from mlipjax.notices import Notice


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model of silicon, a path and a layered crystal."""
    folder = tmp_path_factory.mktemp("probes")
    config = NequIPConfig((14,), cutoff=3.5, hidden_irreps="4x0e", lmax=0, n_layers=1, radial_hidden=(4,))
    potential = nequip(config, np.array([[-1.25]]))
    save(folder / "model", potential, potential.init(jax.random.key(0)))
    ends = []
    for x in (2.0, 2.8):
        atoms = Atoms("Si3", [[0, 0, 0], [4.8, 0, 0], [x, 0.4, 0]])
        atoms.set_constraint(FixAtoms([0, 1]))
        ends.append(atoms)
    write(folder / "ends.extxyz", ends)
    write(folder / "layer.extxyz", Atoms("Si", cell=[2.4, 2.4, 3.2], pbc=True))
    return folder


def run(command, folder, *options):
    return main([command, "--model", str(folder / "model"), *options])


def test_a_band_is_written_with_its_barrier(folder, tmp_path, capsys):
    out, report, figure = tmp_path / "band.extxyz", tmp_path / "band.json", tmp_path / "band.png"
    images = ["--images", str(folder / "ends.extxyz"), "--n-images", "4", "--steps", "40", "--fmax", "0.05"]
    assert run("neb", folder, *images, "--out", str(out), "--json", str(report), "--figure", str(figure)) == 0
    found = json.loads(report.read_text())
    energies = np.array(found["energies_eV"])
    assert len(energies) == 4
    assert found["forward_barrier_eV"] == pytest.approx(energies.max() - energies[0])
    assert found["reverse_barrier_eV"] == pytest.approx(energies.max() - energies[-1])
    assert found["converged"] == (max(found["image_fmax_eV_per_A"]) < 0.05)
    assert found["relative_energies_eV"][0] == 0.0
    frames = read(out, ":")
    np.testing.assert_allclose([frame.get_potential_energy() for frame in frames], energies)
    for frame in frames:  # fixed atoms of the input stay
        np.testing.assert_allclose(frame.positions[:2], [[0, 0, 0], [4.8, 0, 0]], atol=1e-6)
    assert figure.stat().st_size > 5000
    assert run("neb", folder, *images, "--out", str(tmp_path / "band")) == 0
    assert {path.name for path in (tmp_path / "band").iterdir()} == {"images.extxyz", "neb.png", "results.json"}
    assert json.loads((tmp_path / "band" / "results.json").read_text())["energies_eV"] == found["energies_eV"]
    printed = " ".join(capsys.readouterr().out.split())
    assert "barrier" in printed
    assert found["verdict"].split(";")[0] in printed


def test_sliding_is_written(folder, tmp_path):
    report, figure = tmp_path / "slide.json", tmp_path / "slide.png"
    options = ["--structure", str(folder / "layer.extxyz"), "--points", "3", "--no-relaxed", "--json", str(report)]
    assert run("slide", folder, *options) == 0
    profile = json.loads(report.read_text())
    assert profile["shift_A"] == pytest.approx([0.0, 1.2, 2.4])
    assert profile["rigid_meV_per_A2"][0] == 0.0
    assert profile["rigid_meV_per_A2"][2] == pytest.approx(0.0, abs=0.05)
    assert profile["relaxed_meV_per_A2"] == [None] * 3  # not computed, not zero
    assert run("slide", folder, *options, "--surface", "2", "--figure", str(figure)) == 0
    surface = json.loads(report.read_text())
    assert surface["n_computed"] == 3
    rigid = np.array(surface["rigid_meV_per_A2"])
    assert rigid[0, 1] == rigid[1, 0]
    assert rigid[1, 0] == pytest.approx(profile["rigid_meV_per_A2"][1], abs=0.05)
    assert figure.stat().st_size > 5000


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("neb", ["--images", "nowhere.xyz"], "nowhere.xyz: no such file"),
        ("neb", ["--images", "{layer}"], "a path needs at least its two ends"),
        ("neb", ["--images", "{ends}", "--fmax", "-1"], "--fmax must be more than 0 and less than 1000 eV/Å"),
        ("neb", ["--images", "{ends}", "--head", "b"], "found 'b'"),
        ("neb", ["--images", "{ends}", "{layer}"], "other atoms"),
        ("slide", ["--structure", "{ends}"], "periodic along all three"),
        ("slide", ["--structure", "{layer}", "--points", "2"], "at least 3 points"),
    ],
)
def test_bad_input_is_one_line(command, options, message, folder, capsys):
    places = {"layer": folder / "layer.extxyz", "ends": folder / "ends.extxyz"}
    assert run(command, folder, *(option.format(**places) for option in options)) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    # what a file says and is not used is a note of its own
    assert [line.startswith("error:") for line in error.splitlines() if not line.startswith("note:")] == [True]


def test_a_band_keeps_what_the_first_image_fixes_and_refuses_what_it_does_not_know(tmp_path):
    from mlipjax.verbs.neb import read_images

    atoms = Atoms("Si2", [[0, 0, 0], [2, 0, 0]])
    write(tmp_path / "a.traj", [atoms, atoms])
    assert read_images([tmp_path / "a.traj"])[1] is None
    fixed = atoms.copy()
    fixed.set_constraint(FixAtoms([1]))
    write(tmp_path / "a.traj", [fixed, fixed])
    np.testing.assert_array_equal(read_images([tmp_path / "a.traj"])[1], [[True] * 3, [False] * 3])
    write(tmp_path / "b.traj", [atoms, fixed])
    with pytest.warns(Notice, match="images fix different atoms"):
        assert read_images([tmp_path / "b.traj"])[1] is None
    atoms.set_constraint(FixBondLengths([[0, 1]]))
    write(tmp_path / "a.traj", [atoms])
    with pytest.raises(ValueError, match=r"a\.traj: the constraint FixBondLengths"):
        read_images([tmp_path / "a.traj"])


def test_a_vacancy_in_a_compound_asks_where_its_atom_goes(tmp_path, capsys):
    atoms = bulk("NaCl", "rocksalt", a=2.4, cubic=True)
    write(tmp_path / "salt.extxyz", atoms)
    arguments = ["probe", "vacancy", "--model", "ase:ase.calculators.lj:LennardJones", "--site", "0"]
    arguments += ["--structure", str(tmp_path / "salt.extxyz"), "--json", str(tmp_path / "found.json")]
    assert main(arguments) == 1
    assert "--reservoirs" in capsys.readouterr().err
    assert main([*arguments, "--reservoirs", "Na", "-2.5", "Cl", "7"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    energies = []
    for structure in (atoms, atoms[1:]):
        structure.calc = LennardJones()
        energies.append(structure.get_potential_energy())
    assert found["unrelaxed_eV"] == pytest.approx([energies[1] - 2.5 - energies[0]])
    assert main([*arguments, "--reservoirs", "Na", "nan"]) == 1


def test_options_that_a_probe_does_not_read_are_said(folder, tmp_path, capsys):
    write(tmp_path / "frames.extxyz", [Atoms("Si2", [[0, 0, 0], [2.4, 0, 0]], cell=[9, 9, 9], pbc=True)] * 12)
    main(["probe", "rdf", "--trajectory", str(tmp_path / "frames.extxyz"), "--spacing-ps", "1", "--site", "1",
          "--model", str(folder / "model"), "--energy-key", "E"])  # fmt: skip
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note")]
    assert set(said.removeprefix("note: the probe rdf does not use ").rstrip(".").split(", ")) == {
        "--site", "--model", "--energy-key"
    }  # fmt: skip


def test_every_probe_says_which_options_it_reads():
    options = {field.name for field in dataclasses.fields(Probe)} | {f.name for f in dataclasses.fields(LabelOptions)}
    assert _USES.keys() == _PROBES.keys()
    assert {name for names in _USES.values() for name in names.split()} == options - {
        "name", "figure", "labels", *(field.name for field in dataclasses.fields(Computes))
    }  # fmt: skip
