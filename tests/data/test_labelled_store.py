import dataclasses
import hashlib
import json

import numpy as np
import pytest
from tiny_potential import labelled_dataset

from mlipjax.data import (
    Dataset,
    Example,
    LabelKeys,
    View,
    find_duplicates,
    hash_input,
    read_dataset,
    read_examples,
    split_dataset,
    write_dataset,
    write_store,
)
from mlipjax.data.hashing import hash_dataset
from mlipjax.data.properties import open_properties, targets
from mlipjax.system import Labels, System

SIZES = (5, 3, 8, 1, 6, 4)


def dataset():
    """Labelled structures with every kind of information, a missing stress and a weight."""
    infos = [
        {"run": 7, "note": "a name; Å", "ok": True, "x": 0.1 + 0.2},
        {"run": 8, "charges": np.array([0.1, -0.3]), "kinds": np.array(["bulk", "slab"])},
        {"run": 7, "grid": np.arange(6, dtype=np.int32).reshape(2, 3)},
        {},
        {"run": 8, "nested": {"k": [1, 2.5, None]}},
        {"run": 9},
    ]
    data = labelled_dataset(SIZES)
    molecule = System(np.array([[0.1, 0.2, 0.3]]), np.array([8], np.int32), np.zeros((3, 3)), (False,) * 3)
    examples = [Example(e.system, e.labels, info) for e, info in zip(data, infos, strict=True)]
    examples[3] = Example(molecule, Labels.create(1, -2.5), {})
    weighted = dataclasses.replace(examples[4].labels, forces_weight=np.float64(0.25))
    examples[4] = examples[4]._replace(labels=weighted)
    return Dataset.from_examples(examples)


@pytest.fixture
def store(tmp_path):
    write_store(tmp_path / "store", dataset())
    return tmp_path / "store"


def test_structures_labels_and_information_come_back_bit_for_bit(store):
    found, expected = read_dataset(store), dataset()
    assert len(found) == len(expected)
    assert found.elements == expected.elements
    assert found.count_labels() == expected.count_labels() == {"energy": 6, "forces": 5, "stress": 5}
    for (system, labels, info), (other, wanted, known) in zip(found, expected, strict=True):
        assert system.pbc == other.pbc
        for name in ("positions", "atomic_numbers", "cell"):
            np.testing.assert_array_equal(getattr(system, name), getattr(other, name))
            assert getattr(system, name).dtype == getattr(other, name).dtype
        for field in dataclasses.fields(labels):
            np.testing.assert_array_equal(getattr(labels, field.name), getattr(wanted, field.name))
        assert repr(sorted(info.items())) == repr(sorted(known.items()))
    # what a run's folder is named by: a run started from a file goes on from a store of it
    assert hash_dataset(found) == hash_dataset(expected)


def test_a_store_of_a_file_is_what_the_file_holds(tmp_path):
    write_dataset(tmp_path / "data.extxyz", labelled_dataset(SIZES))
    write_store(tmp_path / "store", read_examples(tmp_path / "data.extxyz"))
    assert hash_dataset(read_dataset(tmp_path / "store")) == hash_dataset(read_dataset(tmp_path / "data.extxyz"))


def test_choosing_structures_reads_none(store):
    data = read_dataset(store)
    part = data.subset([4, 0, 2])
    assert isinstance(part.systems, View)
    assert isinstance(part.infos[1:], View)
    assert part.infos[1] == data.infos[0]
    np.testing.assert_array_equal(part.subset(range(2)).systems[1].positions, data.systems[0].positions)
    # nothing of what is on disk is copied: changing one view of it would change the others
    assert np.shares_memory(part.systems[0].positions, data.systems[4].positions)
    assert not part.systems[0].positions.flags.writeable
    with pytest.raises(IndexError):
        part.systems[3]


def test_stores_and_lists_go_together(store):
    data, listed = read_dataset(store), dataset()
    both = listed.subset([0]) + data
    assert [system.n_atoms for system in both.systems] == [SIZES[0], *SIZES]
    assert both.infos[-1] == listed.infos[-1]
    assert len(find_duplicates({"store": data, "list": listed})) == len(data)


def test_a_split_of_a_store_is_that_of_the_file(tmp_path):
    data = labelled_dataset((4,) * 12)
    write_store(tmp_path / "store", data)
    parts = [split_dataset(part, valid=0.3, seed=3) for part in (data, read_dataset(tmp_path / "store"))]
    assert parts[0].groups == parts[1].groups
    assert hash_dataset(parts[0].train) == hash_dataset(parts[1].train)


def test_a_store_is_a_property_set_too(store):
    energies = open_properties(store, "energy")
    np.testing.assert_array_equal(targets(energies, "energy"), [labels.energy for labels in dataset().labels])
    np.testing.assert_array_equal(energies.systems[2].positions, dataset().systems[2].positions)
    assert energies.systems[3].pbc == (False, False, False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "forces.npy").unlink(), r"forces.npy: missing; convert the data again"),
        (lambda folder: cut(folder / "positions.npy"), r"positions.npy: not what was written: cut short or changed"),
        (lambda folder: flip(folder / "energy.npy"), r"energy.npy: not what was written"),
        (lambda folder: (folder / "store.json").unlink(), r"no store.json, so not a folder of labelled structures"),
        (lambda folder: cut(folder / "store.json"), r"store.json: damaged; convert the data again"),
        (
            lambda folder: (folder / "store.json").write_text('{"format": "other", "sha256": {}}'),
            r"store.json: damaged",
        ),
    ],
)
def test_a_damaged_store_is_refused(store, damage, message):
    damage(store)
    with pytest.raises(ValueError, match=message):
        read_dataset(store)


def change(folder, name, value):
    """Replace an array, or one number of it, and make its checksum right again."""
    file = folder / f"{name}.npy"
    array = np.load(file)
    if not isinstance(value, np.ndarray):
        array.flat[-1] = value
    np.save(file, value if isinstance(value, np.ndarray) else array)
    description = json.loads((folder / "store.json").read_text())
    description["sha256"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / "store.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("positions", np.nan, "structure 5: positions or cell are not finite"),
        ("positions", 1e30, "structure 5: atom 3 lies 1e.30 Å from the origin"),
        ("forces", np.inf, "structure 5: forces is not finite"),
        ("forces", 1e300, "structure 5: forces of 1e.300 eV/Å, more than any atoms have"),
        ("energy", 1e300, "structure 5: energy of 1e.300 eV"),
        ("stress", -1e38, "structure 5: stress of 1e.38"),
        ("forces_weight", -1.0, "structure 5: the weight of the forces is -1"),
        ("atomic_numbers", 0, "structure 5: atom 3 has no element"),
        ("atomic_numbers", 200, "structure 5: atom 3 has the atomic number 200"),
        ("n_atoms", 0, "asks for 23"),
        ("n_atoms", 2**62, "structure 5: 'n_atoms' is"),
        ("n_atoms", np.array(6), "n_atoms.npy: holds int64 of shape"),
        ("n_atoms", np.ones(27, int), "n_atoms.npy: 27 rows, store.json says 6 structures"),
        ("cells", np.zeros((6, 3, 3)), "structure 0: periodic along lattice vector 0, which is zero"),
        (
            "cells",
            np.zeros((6, 9)),
            r"cells.npy: holds float64 of shape \(6, 9\), expected float64 of shape \(n, 3, 3\)",
        ),
        ("energy", np.zeros(6, np.float32), "energy.npy: holds float32"),
        ("info_sizes", 10**6, "structure 5: 'info_sizes' is 1000000"),
        ("infos", 0, "infos.npy: the information of structure 5 is damaged"),
        ("infos", 255, "infos.npy: the information of structure 5 is damaged"),
    ],
)
def test_whole_is_not_right(store, name, value, message):
    """Checksums that fit say that nothing is lost; the arrays pass the same checks as any other file."""
    change(store, name, value)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_dataset(store, required=()))
    assert str(store) in str(caught.value)


@pytest.mark.parametrize(
    "info",
    ["[" * 5000, "[1]", '{"a": {"__array__": [1.0], "dtype": "V1000000000"}}', '{"a": {"__array__": "x", "dtype": 3}}',
     '{"a": {"__array__": ["x"], "dtype": "U1000000000"}}', '{"a": {"__array__": [[1], 2], "dtype": "<f8"}}'],
)  # fmt: skip
def test_information_that_is_none_names_its_file(tmp_path, info):
    write_store(tmp_path / "store", [dataset()[5]])
    change(tmp_path / "store", "infos", np.frombuffer(info.encode(), np.uint8))
    change(tmp_path / "store", "info_sizes", np.array([len(info)]))
    with pytest.raises(ValueError, match=r"infos.npy: the information of structure 0 is damaged"):
        list(read_dataset(tmp_path / "store"))


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    good, path = dataset()[0], tmp_path / "store"
    for bad, message in (
        (good._replace(labels=Labels.create(2)), r"structure 1: forces have shape \(2, 3\), positions \(5, 3\)"),
        (
            good._replace(labels=dataclasses.replace(good.labels, energy=np.float64(1e300))),
            "structure 1: energy of 1e.300 eV, more than any atoms have",
        ),
        (
            good._replace(system=dataclasses.replace(good.system, positions=good.system.positions * np.nan)),
            "structure 1: positions or cell are not finite",
        ),
        (good._replace(info={"a": object()}), "structure 1: its information cannot be stored as JSON: found a object"),
    ):
        with pytest.raises(ValueError, match=message):
            write_store(path, [good, bad])
    with pytest.raises(ValueError, match="there is no structure to write"):
        write_store(path, [])
    assert list(tmp_path.iterdir()) == []
    write_store(path, [good])
    with pytest.raises(ValueError, match="exists already; choose another folder"):
        write_store(path, [good])
    assert len(read_dataset(path)) == 1


def test_labels_of_a_store_are_named_already(store):
    with pytest.raises(ValueError, match="give no keys for it"):
        read_dataset(store, LabelKeys(forces=None))


def test_the_fingerprint_of_a_store_follows_its_content(tmp_path, store):
    data = dataset()
    write_store(tmp_path / "same", data)
    write_store(tmp_path / "other", data.subset(range(5)))
    assert hash_input(store) == hash_input(tmp_path / "same") != hash_input(tmp_path / "other")
    assert hash_input(tmp_path) is None
    assert hash_input(store / "energy.npy") != hash_input(store / "forces.npy")
