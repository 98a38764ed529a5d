import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax.data import LabelKeys, read_dataset


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
    with pytest.raises(ValueError, match=r"structure 0: no forces under 'forces', but 'dft_forces' looks"):
        read_dataset(tmp_path / "data.extxyz")
    dataset = read_dataset(tmp_path / "data.extxyz", LabelKeys(forces=None))
    assert dataset.count_labels() == {"energy": 1, "forces": 0, "stress": 0}


def test_a_virial_is_not_taken_for_a_stress(tmp_path):
    atoms = labelled(energy=-3.5, forces=forces())
    atoms.info["virial"] = FULL
    ase.io.write(tmp_path / "data.extxyz", atoms)
    with pytest.raises(ValueError, match="'virial' looks like it"):
        read_dataset(tmp_path / "data.extxyz")


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
        (Atoms("X", cell=[4, 4, 4], pbc=True), "atom 0 has no element"),
        (Atoms("H", cell=[4, 4, 0], pbc=True), "lattice vector 2, which is zero"),
        (Atoms("H", positions=[[np.nan, 0, 0]]), "not finite"),
        (Atoms("H", info={"energy": "low"}), "is not a number but 'low'"),
        (Atoms("H", info={"energy": 1.0, "forces_weight": -1.0}), "forces_weight is -1.0"),
        (Atoms("H", info={"stress": np.ones(4)}), r"shape \(4,\); expected \(6,\)"),
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
