import warnings

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from mlipjax.data import LabelKeyError, LabelKeys, gather, read_dataset, read_last_atoms, write_dataset
from mlipjax.data.convergence import unconverged
from mlipjax.data.properties import open_properties
from mlipjax.notices import Notice
from mlipjax.verbs.inputs import iterate_named


def labelled(**results):
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] += 0.1
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def forces(seed=0):
    return np.random.default_rng(seed).normal(size=(4, 3))


VOIGT = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
FULL = np.array([[1.0, 0.3, 0.2], [0.3, 2.0, 0.1], [0.2, 0.1, 3.0]])


def test_labels_and_information_are_read(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces(), stress=VOIGT)
    atoms.info["run"] = 2
    ase.io.write(tmp_path / "data.extxyz", [atoms, labelled(energy=-3.0)])
    dataset = read_dataset(tmp_path / "data.extxyz")
    system, labels, info = dataset[0]
    assert labels.energy == -3.5
    assert labels.forces.dtype == np.float64
    np.testing.assert_allclose(labels.forces, forces(), atol=1e-8)
    np.testing.assert_array_equal(labels.stress, FULL)
    assert system.pbc == (True, True, True)
    assert info == {"run": 2}
    assert dataset.elements == (29,)
    assert dataset.count_labels() == {"energy": 2, "forces": 1, "stress": 1}


def test_a_missing_label_has_weight_zero(tmp_path):
    ase.io.write(tmp_path / "data.extxyz", labelled(energy=-3.5))
    labels = read_dataset(tmp_path / "data.extxyz", required=("energy",)).labels[0]
    assert (labels.energy_weight, labels.forces_weight, labels.stress_weight) == (1.0, 0.0, 0.0)
    assert not labels.forces.any()


@pytest.mark.parametrize("shape", [(6,), (9,), (3, 3)])
def test_custom_names(tmp_path, shape):
    atoms = bulk("Cu", cubic=True)
    stress = VOIGT if shape == (6,) else FULL.reshape(shape)
    atoms.info.update(REF_energy=-1.0, REF_stress=stress, energy_weight=0.5)
    atoms.arrays["REF_forces"] = forces()
    ase.io.write(tmp_path / "data.extxyz", atoms)
    keys = LabelKeys("REF_energy", "REF_forces", "REF_stress")
    labels = read_dataset(tmp_path / "data.extxyz", keys).labels[0]
    assert labels.energy == -1.0
    assert labels.energy_weight == 0.5
    np.testing.assert_array_equal(labels.stress, FULL)
    np.testing.assert_allclose(labels.forces, forces(), atol=1e-8)


def test_a_label_under_another_name_is_an_error(tmp_path):
    atoms = labelled(energy=-3.5)
    atoms.arrays["dft_forces"] = forces()
    ase.io.write(tmp_path / "data.extxyz", atoms)
    atoms.arrays["my_forces"] = atoms.arrays.pop("dft_forces")
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.raises(LabelKeyError, match=r"structure 0: no forces under 'forces', but 'my_forces' looks") as caught:
        read_dataset(tmp_path / "data.extxyz")
    assert caught.value.kinds == ("forces",)
    assert read_dataset(tmp_path / "data.extxyz", LabelKeys(forces="my_forces")).count_labels()["forces"] == 1
    dataset = read_dataset(tmp_path / "data.extxyz", LabelKeys(forces=None))
    assert dataset.count_labels() == {"energy": 1, "forces": 0, "stress": 0}


@pytest.mark.parametrize("name", ["virial", "virials", "REF_virial", "REF_virials", "dft_virial"])
def test_a_virial_is_minus_stress_times_volume(tmp_path, name):
    atoms = labelled(energy=-3.5, forces=forces())
    atoms.info[name] = -FULL * atoms.get_volume()
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.warns(Notice, match=rf"virials are read from '{name}' \(stress is minus virial over volume\)"):
        dataset = read_dataset(tmp_path / "data.extxyz")
    np.testing.assert_allclose(dataset.labels[0].stress, FULL)
    assert dataset.labels[0].stress_weight == 1.0
    assert read_dataset(tmp_path / "data.extxyz", LabelKeys(stress=None)).count_labels()["stress"] == 0
    with pytest.raises(ValueError, match="name one of them"):
        read_dataset(tmp_path / "data.extxyz", LabelKeys(stress="stress", virial=name))


def test_a_virial_like_name_is_an_error(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces())
    atoms.info["my_virial"] = FULL
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.raises(LabelKeyError, match="'my_virial' looks like it") as caught:
        read_dataset(tmp_path / "data.extxyz")
    assert caught.value.kinds == ("virial",)
    molecule = Atoms("H", info={"energy": 1.0, "virial": FULL})
    ase.io.write(tmp_path / "molecule.extxyz", molecule)
    with pytest.raises(ValueError, match="needs a cell with a volume"):
        read_dataset(tmp_path / "molecule.extxyz", required=())


@pytest.mark.parametrize(
    ("energy", "force"),
    [
        ("REF_energy", "REF_forces"),
        ("dft_energy", "DFT_forces"),
        ("TotEnergy", "force"),
        ("energies_pbe", "forces_pbe"),
        ("total_energy", "forces_ref"),
    ],
)
def test_well_known_names_are_read_and_said(tmp_path, energy, force):
    atoms = bulk("Cu", cubic=True)
    atoms.info[energy] = -2.0
    atoms.arrays[force] = forces()
    ase.io.write(tmp_path / "data.extxyz", [atoms] * 2)
    with warnings.catch_warnings(record=True) as said:
        dataset = read_dataset(tmp_path / "data.extxyz")
    assert [str(w.message) for w in said] == [f"energies are read from {energy!r}.", f"forces are read from {force!r}."]
    assert dataset.labels[1].energy == -2.0
    np.testing.assert_allclose(dataset.labels[1].forces, forces(), atol=1e-8)


def test_two_sets_of_labels_that_differ_are_refused_until_one_is_named(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces())
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -3.0, forces(1)
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.raises(LabelKeyError, match="'energy' and 'REF_energy' both hold energies, and they differ"):
        read_dataset(tmp_path / "data.extxyz")
    for keys, energy, seed in ((("energy", "forces"), -3.5, 0), (("REF_energy", "REF_forces"), -3.0, 1)):
        labels = read_dataset(tmp_path / "data.extxyz", LabelKeys(*keys)).labels[0]
        assert labels.energy == energy
        np.testing.assert_allclose(labels.forces, forces(seed), atol=1e-8)
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -3.5, forces()
    ase.io.write(tmp_path / "data.extxyz", atoms)
    assert read_dataset(tmp_path / "data.extxyz").labels[0].energy == -3.5


def test_structures_with_labels_under_different_names_are_refused(tmp_path):
    other = bulk("Cu", cubic=True)
    other.info["REF_energy"] = -3.0
    ase.io.write(tmp_path / "data.extxyz", [labelled(energy=-3.5), other])
    with pytest.raises(LabelKeyError, match=r"structure 1: energies under 'REF_energy', but .* under 'energy'"):
        read_dataset(tmp_path / "data.extxyz", required=())


def test_structures_are_read_without_a_look_at_labels(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.info |= {"formation_energy_per_atom": -1.0, "my_stress": FULL, "energy_weight": -3.0}
    ase.io.write(tmp_path / "data.extxyz", atoms)
    dataset = read_dataset(tmp_path / "data.extxyz", with_labels=False)
    assert dataset.count_labels() == {"energy": 0, "forces": 0, "stress": 0}
    with pytest.raises(LabelKeyError, match="formation_energy_per_atom"):
        read_dataset(tmp_path / "data.extxyz", required=())


def test_weights_of_other_programs_are_honoured(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces(), stress=VOIGT)
    atoms.info |= {"config_weight": 0.5, "config_energy_weight": 4.0, "config_forces_weight": 0.0, "stress_weight": 3.0}
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.warns(Notice, match="config_energy_weight, config_forces_weight, config_weight"):
        dataset = read_dataset(tmp_path / "data.extxyz", required=("energy",))
    labels = dataset.labels[0]
    assert (labels.energy_weight, labels.forces_weight, labels.stress_weight) == (2.0, 0.0, 1.5)
    write_dataset(tmp_path / "again.extxyz", dataset)
    again = read_dataset(tmp_path / "again.extxyz", required=()).labels[0]
    assert (again.energy_weight, again.forces_weight, again.stress_weight) == (2.0, 0.0, 1.5)


@pytest.mark.parametrize("zeroed", [True, False])
def test_zero_forces_of_fixed_atoms_are_no_labels(tmp_path, zeroed):
    values = forces()
    values[:2] = 0.0 if zeroed else values[:2]
    atoms = labelled(energy=-3.5, forces=values)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "data.traj", atoms)
    if zeroed:
        with pytest.warns(Notice, match="forces of fixed atoms are exactly zero"):
            labels = read_dataset(tmp_path / "data.traj", required=()).labels[0]
    else:
        labels = read_dataset(tmp_path / "data.traj", required=()).labels[0]
    assert (labels.energy_weight, labels.forces_weight) == (1.0, 0.0 if zeroed else 1.0)


def test_the_free_energy_is_named_where_it_differs(tmp_path):
    ase.io.write(tmp_path / "data.traj", labelled(energy=-3.5, free_energy=-3.6, forces=forces()))
    with pytest.warns(Notice, match="'free_energy'"):
        assert read_dataset(tmp_path / "data.traj").labels[0].energy == -3.5
    assert read_dataset(tmp_path / "data.traj", LabelKeys(energy="free_energy")).labels[0].energy == -3.6
    ase.io.write(tmp_path / "free.traj", labelled(free_energy=-3.6, forces=forces()))
    with pytest.warns(Notice, match="energies are read from 'free_energy'"):
        assert read_dataset(tmp_path / "free.traj").labels[0].energy == -3.6


def said_of(door, path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        door(path)
    return [word for w in said for word in ("charge", "spin", "moments") if word in str(w.message)]


DOORS = {
    "labelled": lambda path: read_dataset(path, required=()),
    "without labels": lambda path: read_dataset(path, with_labels=False),
    "in memory": lambda path: gather([ase.io.read(path)]),
    "one to start from": read_last_atoms,
    "one by one": lambda path: list(iterate_named(str(path))),
    "with a property": lambda path: open_properties(path, "charge"),
}


@pytest.mark.parametrize("door", DOORS)
def test_charges_and_moments_that_no_model_uses_are_said_at_every_door(tmp_path, door):
    atoms = labelled(energy=-3.5, magmoms=np.ones(4))
    atoms.info |= {"charge": 1, "spin": 1}
    ase.io.write(tmp_path / "data.traj", atoms)
    assert said_of(DOORS[door], tmp_path / "data.traj") == ["charge", "moments"]
    atoms.info |= {"charge": 0, "spin": 1}
    atoms.calc.results["magmoms"] = np.zeros(4)
    ase.io.write(tmp_path / "plain.traj", atoms)
    assert said_of(DOORS[door], tmp_path / "plain.traj") == []


def test_a_name_that_was_given_and_is_nowhere_is_refused_or_said(tmp_path):
    ase.io.write(tmp_path / "data.extxyz", labelled(energy=-3.5, forces=forces()))
    for keys, kind in ((LabelKeys(energy="my_E"), "energy"), (LabelKeys(forces="my_F"), "forces")):
        with pytest.raises(LabelKeyError, match=f"{kind} under 'my_") as error:
            read_dataset(tmp_path / "data.extxyz", keys, required=())
        assert error.value.kinds == (kind,)
    for keys in (LabelKeys(stress="my_S"), LabelKeys(virial="my_V")):
        with pytest.warns(Notice, match=r"none of 1 structures has (stress under 'my_S'|virial under 'my_V')\.$"):
            read_dataset(tmp_path / "data.extxyz", keys)


def test_numbers_under_unknown_names_are_said_if_there_is_no_label(tmp_path):
    atoms = labelled()
    atoms.calc, atoms.info, atoms.arrays["my_F"] = None, {"my_E": -3.5, "name": "two"}, forces()
    ase.io.write(tmp_path / "data.extxyz", [atoms, atoms])
    with pytest.warns(Notice, match=r"structure 0, and all others: .* called my_E, my_F\. .*\(energy_key, "):
        read_dataset(tmp_path / "data.extxyz", required=())
    atoms.info["energy"] = -3.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gather([Atoms("He"), atoms])


def test_stresses_that_contradict_the_virials_beside_them_are_said(tmp_path):
    stress = np.diag([0.01, 0.02, 0.03])
    atoms = bulk("Si")
    for factor, n_said in ((-1.0, 0), (1.0, 1)):
        atoms.info = {"stress": stress, "virial": factor * stress * atoms.get_volume()}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            dataset = gather([atoms, atoms])
        np.testing.assert_allclose(dataset.labels[0].stress, stress)
        assert [str(w.message).split(";")[0] for w in said] == n_said * [
            "structure 0, and maybe others: the virials are not minus volume times the stresses"
        ]


def outcar_step(reached):
    loop = "aborting loop because EDIFF is reached" if reached else "aborting loop EDIFF was not reached (unconverged)"
    return f"----- {loop} -----\n  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"


def vasprun_step(energies):
    steps = (f'<scstep>\n<energy>\n<i name="e_fr_energy"> {e} </i></energy>\n</scstep>\n' for e in energies)
    return f'<calculation>\n{"".join(steps)}<energy><i name="e_fr_energy"> 7.0 </i></energy>\n</calculation>\n'


def test_unconverged_electrons_are_found(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar_step(True) + outcar_step(False) + outcar_step(True))
    assert unconverged(tmp_path / "OUTCAR") == {1}
    settings = '<i type="int" name="NELM">     3</i>\n<i name="EDIFF">      0.00010000</i>\n'
    steps = vasprun_step([-1.0, -2.0]) + vasprun_step([-1.0, -2.0, -2.1]) + vasprun_step([-1.0, -2.0, -2.00001])
    (tmp_path / "vasprun.xml").write_text(settings + steps)
    assert unconverged(tmp_path / "vasprun.xml") == {1}
    assert unconverged(tmp_path / "absent.out") == set()


def test_structures_of_unconverged_electrons_are_left_out_by_name(tmp_path, monkeypatch):
    path = tmp_path / "run.traj"
    ase.io.write(path, [labelled(energy=float(i), forces=forces()) for i in range(3)])
    monkeypatch.setattr("mlipjax.data.read.unconverged", lambda path: frozenset({1}))
    with pytest.warns(Notice, match=r"1 structures \(1\) did not converge; they are left out"):
        assert [labels.energy for labels in read_dataset(path).labels] == [0.0, 2.0]
    monkeypatch.setattr("mlipjax.data.read.unconverged", lambda path: frozenset({0, 1, 2}))
    with pytest.raises(ValueError, match="there is no label in this file"):
        read_dataset(path)


def test_a_required_label_that_is_nowhere_is_an_error(tmp_path):
    ase.io.write(tmp_path / "data.extxyz", [labelled(energy=-3.5)] * 2)
    with pytest.raises(ValueError, match="none of 2 structures has forces under 'forces'"):
        read_dataset(tmp_path / "data.extxyz")
    with pytest.raises(ValueError, match="required labels are among"):
        read_dataset(tmp_path / "data.extxyz", required=("force",))


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (labelled(energy=np.nan), "energy under 'energy' is not finite"),
        (labelled(energy=1.0, forces=np.full((4, 3), np.inf)), "forces under 'forces' is not finite"),
        (labelled(energy=-1e300), "energy of 1e.300 eV, more than any atoms have"),
        (labelled(energy=1.0, forces=np.full((4, 3), 1e7)), "forces of 1e.07 eV/Å, more than any atoms have"),
        (labelled(energy=1.0, stress=np.full(6, 1e38)), "stress of 1e.38 eV/Å.3, more than any atoms have"),
        (Atoms("H", cell=np.eye(3) * 4, pbc=True, info={"virial": np.eye(3) * 1e9}), "stress of 1.56e.07"),
        (Atoms("X", cell=[4, 4, 4], pbc=True), "atom 0 has no element"),
        (Atoms("H", cell=[4, 4, 0], pbc=True), "lattice vector 2, which is zero"),
        (Atoms("H", positions=[[np.nan, 0, 0]]), "not finite"),
        (Atoms("H", info={"energy": "low"}), "energy under 'energy': found 'low' .*expected real numbers"),
        (Atoms("H", info={"energy": 1.0, "forces_weight": -1.0}), "forces_weight is -1.0"),
        (Atoms("H", info={"stress": np.ones(4)}), r"shape \(4,\), expected .*\(6,\)"),
    ],
)
def test_unusable_structures_are_named(tmp_path, atoms, message):
    path = tmp_path / "data.traj"
    ase.io.write(path, atoms)
    with pytest.raises(ValueError, match=rf"data.traj, structure 0: .*{message}"):
        read_dataset(path, required=())


def test_database(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces(), stress=VOIGT)
    with ase.db.connect(tmp_path / "labels.db") as database:
        database.write(atoms, run=3, data={"origin": "test"})
        database.write(labelled(energy=-3.0, forces=forces(1)))
    dataset = read_dataset(tmp_path / "labels.db")
    assert len(dataset) == 2
    np.testing.assert_array_equal(dataset.labels[0].forces, forces())
    np.testing.assert_array_equal(dataset.labels[0].stress, FULL)
    assert dataset.infos[0] == {"run": 3, "origin": "test"}


def test_files_that_are_not_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_dataset(tmp_path / "absent.extxyz")
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(ValueError, match=r"empty\.extxyz: "):
        read_dataset(tmp_path / "empty.extxyz")
    (tmp_path / "cut.extxyz").write_text('2\nProperties=species:S:1:pos:R:3 pbc="F F F"\nH 0 0 0\n')
    with pytest.raises(ValueError, match=r"cut\.extxyz: cannot be read"):
        read_dataset(tmp_path / "cut.extxyz")


def test_published_frames(shared_data):
    dataset = read_dataset(shared_data / "liclcocl2" / "naive.extxyz")
    assert len(dataset) == 44
    assert dataset.elements == (1, 3, 8, 17, 27)
    assert dataset.count_labels() == {"energy": 44, "forces": 44, "stress": 44}
    assert dataset.labels[0].energy == -825.90614747
    assert dataset.labels[0].stress[0, 1] == -0.001083
    # the migration path has energies relative to its first image only, under another name
    with pytest.raises(ValueError, match="'dft_relative_energy_eV' looks like it"):
        read_dataset(shared_data / "cr_sb2te3" / "neb_61_1-4.extxyz", required=())
