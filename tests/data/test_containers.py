"""LMDB files of fairchem, HDF5 files of MACE, and what is written for other programs."""

import json
import os
import subprocess
import sys
import zlib

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from campaign.good_files import write_aselmdb

from mlipjax.data import Dataset, Example, read_atoms, read_dataset, save_examples
from mlipjax.data.dataset import Placed
from mlipjax.notices import Notice
from mlipjax.system import Labels, System

h5py = pytest.importorskip("h5py")
lmdb = pytest.importorskip("lmdb")


def examples():
    rng = np.random.default_rng(0)
    made = []
    for index in range(4):
        atoms = molecule("H2O") if index == 3 else bulk("MgO", "rocksalt", a=4.2)
        atoms.rattle(0.1, seed=index)
        n, stress = len(atoms), rng.normal(size=(3, 3))
        labels = Labels.create(
            n, rng.normal(), rng.normal(size=(n, 3)) if index else None, stress + stress.T if index < 3 else None
        )
        if index == 1:
            labels = labels.replace(energy_weight=np.float64(2.5))
        info = {"run": index, "config_type": "bulk", "note": "x y", "text": "300", "vector": np.arange(3.0), "Cu": 1.5}
        made.append(Example(System.from_ase(atoms), labels, Placed(info, "made", index)))
    return made


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for (system, labels, info), (own_system, own_labels, own_info) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(system.positions, own_system.positions)
        np.testing.assert_array_equal(system.cell, own_system.cell)
        assert system.pbc == own_system.pbc
        for name in ("energy", "forces", "stress"):
            np.testing.assert_array_equal(getattr(labels, name), getattr(own_labels, name))
            assert getattr(labels, f"{name}_weight") == getattr(own_labels, f"{name}_weight")
        assert info.keys() == own_info.keys()
        for name, value in own_info.items():
            np.testing.assert_array_equal(info[name], value)


@pytest.mark.filterwarnings("ignore::mlipjax.notices.Notice")
@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz.gz", "a.extxyz.xz", "a.db", "a.h5", "a.hdf5"])
def test_labelled_structures_come_back_bit_for_bit(tmp_path, name):
    made = examples()
    if "xyz" in name:  # the format's own: a text that is a number reads as one
        made = [example._replace(info={**example.info, "text": "many"}) for example in made]
    save_examples(tmp_path / name, made)
    assert_equal(read_dataset(tmp_path / name, required=()), made)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(ValueError, match="exists already"):
        save_examples(tmp_path / name, made)


@pytest.mark.parametrize("name", ["a.extxyz", "a.db", "a.h5"])
def test_nothing_is_left_of_what_could_not_be_written(tmp_path, name):
    def broken():
        yield examples()[0]
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        save_examples(tmp_path / name, broken())
    with pytest.raises(ValueError, match="no structure to write"):
        save_examples(tmp_path / name, Dataset((), (), ()))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"\.extxyz, \.db or \.h5"):
        save_examples(tmp_path / "a.cif", examples())


@pytest.mark.slow
def test_a_full_disk_does_not_end_the_process(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to make a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(tmp_path)], check=True)
    try:
        system = System(np.zeros((1, 3)), np.array([8]), np.zeros((3, 3)), (False,) * 3)
        frames = [Example(system, Labels.create(1, float(n), np.zeros((1, 3))), {}) for n in range(30)]
        with pytest.raises(OSError, match="No space left"):
            save_examples(tmp_path / "a.h5", frames)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_other_programs_read_what_is_written(tmp_path):
    made = examples()
    save_examples(tmp_path / "a.db", made)
    row = next(ase.db.connect(tmp_path / "a.db").select(run=1))
    assert row.energy == made[1].labels.energy
    np.testing.assert_array_equal(row.toatoms().get_forces(), made[1].labels.forces)
    save_examples(tmp_path / "a.extxyz", made)
    assert ase.io.read(tmp_path / "a.extxyz", 1).get_potential_energy() == made[1].labels.energy
    save_examples(tmp_path / "a.h5", made)
    # as MACE's own reader goes through it
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["config_batch_0"]["config_1"]
        assert group["properties"]["energy"][()] == made[1].labels.energy
        assert group["property_weights"]["energy"][()] == 2.5
        assert (group["weight"][()], group["config_type"][()]) == (1.0, b"bulk")
        assert file["config_batch_0"]["config_0"]["properties"]["forces"][()] == b"None"
        assert file["config_batch_0"]["config_0"]["property_weights"]["forces"][()] == 0.0
        np.testing.assert_array_equal(group["pbc"][()], [True] * 3)


def test_an_earlier_layout_of_mace(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for batch in (0, 1):
            for index in range(11):
                group = file.create_group(f"config_batch_{batch}/config_{index}")
                group["atomic_numbers"], group["positions"] = [12, 8], [[0.0, 0.0, 0.0], [2.1, 0.0, 0.0]]
                group["cell"], group["pbc"] = 4.2 * np.eye(3), [True] * 3
                group["energy"], group["forces"] = 100.0 * batch + index, np.ones((2, 3))
                group["stress"], group["virials"], group["dipole"], group["charges"] = "None", np.eye(3), "None", "None"
                group["weight"], group["config_type"] = 0.5, "Default"
                for name, weight in (("energy", 1.0), ("forces", 3.0), ("stress", 0.0), ("virials", 2.0)):
                    group[f"{name}_weight"] = weight
    with pytest.warns(Notice):
        dataset = read_dataset(tmp_path / "a.h5")
    # groups in the order of their numbers, not of their names
    assert [labels.energy for labels in dataset.labels] == [100.0 * b + i for b in (0, 1) for i in range(11)]
    labels = dataset.labels[0]
    assert (labels.energy_weight, labels.forces_weight, labels.stress_weight) == (0.5, 1.5, 1.0)
    np.testing.assert_allclose(labels.stress, -np.eye(3) / 4.2**3)


def labelled_frames():
    frames = []
    for index in range(3):
        atoms = bulk("MgO", "rocksalt", a=4.2)
        atoms.rattle(0.1, seed=index)
        atoms.set_constraint(FixAtoms([0]))
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - index, forces=np.ones((2, 3)), stress=np.arange(6.0))
        atoms.info["gap"] = 1.5
        frames.append(atoms)
    return frames


def test_a_database_of_fairchem(tmp_path):
    frames = labelled_frames()
    write_aselmdb(tmp_path / "a.aselmdb", frames, source="slab")
    found = read_atoms(tmp_path / "a.aselmdb")
    assert [atoms.get_potential_energy() for atoms in found] == [-1.0, -2.0, -3.0]
    assert found[0].constraints[0].index.tolist() == [0]
    dataset = read_dataset(f"{tmp_path / 'a.aselmdb'}@1:")
    np.testing.assert_array_equal(dataset.systems[0].positions, frames[1].positions)
    np.testing.assert_array_equal(dataset.labels[0].forces, np.ones((2, 3)))
    assert dataset.infos[0] == {"gap": 1.5, "source": "slab"}
    assert dataset.where(0) == f"{tmp_path / 'a.aselmdb'}, structure 1"
    write_aselmdb(tmp_path / "b.aselmdb", frames)
    with pytest.warns(Notice, match="2 files of this folder"):
        assert len(read_dataset(tmp_path)) == 6


def test_rows_come_in_the_order_of_their_numbers_without_those_deleted(tmp_path):
    frames = labelled_frames() * 5
    write_aselmdb(tmp_path / "a.aselmdb", frames)
    with lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False) as env, env.begin(write=True) as rows:
        rows.delete(b"2")
        rows.put(b"deleted_ids", zlib.compress(b"[2]"))
    energies = [atoms.get_potential_energy() for atoms in read_atoms(tmp_path / "a.aselmdb")]
    assert energies == [-1.0, -3.0, *[-1.0, -2.0, -3.0] * 4]


def test_pickles_are_not_read(tmp_path):
    with lmdb.open(str(tmp_path / "a.lmdb"), subdir=False) as env, env.begin(write=True) as rows:
        rows.put(b"0", b"\x80\x04cos\nsystem\n")
    with pytest.raises(ValueError, match=r"a\.lmdb: .*pickled Python objects"):
        read_atoms(tmp_path / "a.lmdb")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.h5", b"no container" * 100, "cannot be read"),
        ("a.aselmdb", b"no container" * 1000, "cannot be read"),
        ("a.h5", "other", "holds no group config_batch_0"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "other":
        with h5py.File(path, "w") as file:
            file["x"] = 1.0
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_atoms(path)
    assert name in str(caught.value)


def test_links_out_of_a_file_are_not_followed(tmp_path):
    save_examples(tmp_path / "a.h5", examples())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["config_batch_0"] = h5py.ExternalLink("a.h5", "/config_batch_0")
    with pytest.raises(ValueError, match="is a link"):
        read_atoms(tmp_path / "b.h5")


@pytest.mark.parametrize(("name", "package"), [("a.h5", "h5py"), ("a.aselmdb", "lmdb")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, package):
    (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf'the package {package}, .*pip install "mlipjax\[(hdf5|lmdb)\]"'):
        read_atoms(tmp_path / name)


def test_the_process_that_reads_imports_nothing_of_the_package():
    from mlipjax.data import _records

    code = f"import runpy, sys; runpy.run_path({_records.__file__!r}); "
    code += "print([name for name in sys.modules if name.startswith('mlipjax')])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
