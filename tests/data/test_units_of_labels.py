"""Labels in other units, signs and orders than ASE's."""

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax import read
from mlipjax.data.label_units import PRESETS, Units, parse_units

HARTREE, BOHR, KCAL = units.Hartree, units.Bohr, units.kcal / units.mol
VOIGT = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])  # xx yy zz yz xz xy, eV/Å^3 in hundreds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1.0, 1.0, 1.0, 1.0, 1.0)),
        ("ase", (1.0, 1.0, 1.0, 1.0, 1.0)),
        ("atomic", (HARTREE, HARTREE / BOHR, HARTREE / BOHR**3, HARTREE, 1.0)),
        ("energy=Hartree,length=Bohr", (HARTREE, HARTREE / BOHR, HARTREE / BOHR**3, HARTREE, 1.0)),
        ("rydberg", (0.5 * HARTREE, 0.5 * HARTREE / BOHR, 0.5 * HARTREE / BOHR**3, 0.5 * HARTREE, 1.0)),
        ("vasp", (1.0, 1.0, -0.1 * units.GPa, 1.0, 1.0)),
        ("real", (KCAL, KCAL, -1.01325 * units.bar, KCAL, 1.0)),
        ("gromacs", (units.kJ / units.mol, 0.1 * units.kJ / units.mol, -units.bar, units.kJ / units.mol, 1.0)),
        ("forces=kcal/mol/Å", (1.0, KCAL, 1.0, 1.0, 1.0)),
        ("forces=-eV/Å, stress=Hartree/Bohr^3", (1.0, -1.0, HARTREE / BOHR**3, 1.0, 1.0)),
        ("atomic,stress=GPa,positions=Bohr", (HARTREE, HARTREE / BOHR, units.GPa, HARTREE, BOHR)),
        ("energy=ry,virial=-kj/mol,stress=eV/Å³", (0.5 * HARTREE, 1.0, 1.0, -units.kJ / units.mol, 1.0)),
        ("energy=kcal/mol,length=Å", (KCAL, KCAL, KCAL, KCAL, 1.0)),
    ],
)
def test_factors(text, expected):
    found = parse_units(text)
    np.testing.assert_allclose(
        (found.energy, found.forces, found.stress, found.virial, found.positions), expected, rtol=1e-9
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("energy=hartee", "energy=hartee is not known; did you mean Hartree"),
        ("parsec", "give ase, atomic, rydberg, vasp, real, gromacs, or pairs"),
        ("force=eV/Å", "'force=eV/Å' is not known"),
        ("energy=eV,atomic", "'atomic' is not known"),
        ("stress=kcal", "stress=kcal is not known; there are GPa"),
        ("forces=eV", "forces=eV is not known"),
        ("voigt=xx-yy-zz", "six names such as"),
        ("voigt=xx-yy-zz-xy-xy-xy", "six names such as"),
        ("energy=-", "energy=- is not known"),
    ],
)
def test_what_is_not_known_is_said(text, message):
    with pytest.raises(ValueError, match=message):
        parse_units(text)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_known(preset):
    assert parse_units(preset.upper()) == parse_units(PRESETS[preset])


@pytest.mark.parametrize("order", ["ase", "vasp", "lammps", "yz-xx-xz-yy-yx-zz"])
def test_orders_of_six_components(order):
    names = {"ase": "xx yy zz yz xz xy", "vasp": "xx yy zz xy yz zx", "lammps": "xx yy zz xy xz yz"}
    own = names.get(order, order.replace("-", " ")).split()
    value = {"".join(sorted(n)): x for n, x in zip(names["ase"].split(), VOIGT, strict=True)}
    given = [value["".join(sorted(name))] for name in own]
    found = parse_units(f"voigt={order}")
    np.testing.assert_array_equal(found.convert("stress", given), VOIGT)
    matrix = np.arange(9.0).reshape(3, 3)
    np.testing.assert_array_equal(found.convert("stress", matrix), matrix)  # a matrix has no order
    assert found.convert("energy", 2.0) == 2.0


def test_what_is_no_number_is_left_to_the_check_of_labels():
    assert Units(energy=2.0).convert("energy", "low") == "low"


def labelled(scale=1.0):
    atoms = bulk("Cu", cubic=True)
    atoms.positions *= scale
    atoms.cell *= scale
    return atoms


FORCES = np.random.default_rng(0).normal(size=(4, 3))


@pytest.mark.parametrize("suffix", ["extxyz", "db", "traj"])
def test_files_are_read_in_the_units_given(tmp_path, suffix):
    atoms = labelled()
    given = VOIGT[[0, 1, 2, 5, 3, 4]] * -1.0 / (0.1 * units.GPa)  # as VASP prints them
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5 / HARTREE, forces=FORCES * BOHR / HARTREE, stress=given)
    path = tmp_path / f"data.{suffix}"
    ase.io.write(path, atoms)
    chosen = "atomic,stress=-kBar,voigt=vasp" if suffix != "extxyz" else "atomic,stress=-kBar"  # it writes a matrix
    labels = read(path, units=chosen).labels[0]
    np.testing.assert_allclose(labels.energy, -3.5)
    np.testing.assert_allclose(labels.forces, FORCES, atol=1e-6)
    if suffix != "extxyz":
        expected = [[1.0, 0.3, 0.2], [0.3, 2.0, 0.1], [0.2, 0.1, 3.0]]
        np.testing.assert_allclose(labels.stress, expected)


def test_virials_and_positions(tmp_path):
    atoms, stress = labelled(1.0 / BOHR), np.diag([1.0, 2.0, 3.0])
    volume = bulk("Cu", cubic=True).get_volume()
    atoms.info |= {"virial": -stress * volume / HARTREE, "energy": -1.0 / HARTREE}
    ase.io.write(tmp_path / "data.extxyz", atoms)
    system, labels, _ = read(tmp_path / "data.extxyz", units="atomic,positions=Bohr")[0]
    np.testing.assert_allclose(system.positions, bulk("Cu", cubic=True).positions, atol=1e-6)
    np.testing.assert_allclose(system.volume, volume, rtol=1e-6)
    np.testing.assert_allclose(labels.stress, stress, rtol=1e-6)


def test_limits_hold_for_what_labels_are_not_for_what_they_were(tmp_path):
    atoms = labelled()
    atoms.info["energy"] = -5e9  # too many eV for four atoms, but not meV
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.raises(ValueError, match="more than any atoms have"):
        read(tmp_path / "data.extxyz")
    np.testing.assert_allclose(read(tmp_path / "data.extxyz", units="energy=meV").labels[0].energy, -5e6)


def test_what_ase_has_converted_is_not_converted_again(tmp_path):
    ase.io.write(tmp_path / "POSCAR", labelled(), format="vasp")
    with pytest.raises(ValueError, match=r"POSCAR: labels of this format \(vasp\) are read in eV and Å; give no"):
        read(tmp_path / "POSCAR", units="atomic")


def test_labels_that_were_converted_leave_no_second_set_behind(tmp_path):
    atoms = labelled()
    atoms.info |= {"REF_energy": -1.0, "dft_energy": -1.0, "temperature": 300, "REF_virials": np.eye(3)}
    ase.io.write(tmp_path / "data.extxyz", atoms)
    data = read(tmp_path / "data.extxyz", units="atomic")
    assert dict(data.infos[0]) == {"temperature": 300}
