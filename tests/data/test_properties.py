import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from mlipjax.data import View
from mlipjax.data.properties import open_properties, parse_property, property_name, targets
from mlipjax.models import registry


def arrays(n=5):
    """Structures of 1 to n atoms with their number as a property."""
    counts = np.arange(1, n + 1)
    total = int(counts.sum())
    rng = np.random.default_rng(0)
    return {
        "atomic_numbers": rng.choice([1, 6, 8], total).astype(np.uint8),
        "positions": rng.normal(size=(total, 3)).astype(np.float32),
        "n_atoms": counts.astype(np.int16),
        "size": counts.astype(np.float64),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_mapped_file_holds_what_the_file_in_memory_holds(tmp_path, save):
    save(tmp_path / "data.npz", **arrays())
    memory = open_properties(tmp_path / "data.npz", "size")
    mapped = open_properties(tmp_path / "data.npz", "size", cache=tmp_path / "cache")
    assert isinstance(mapped.systems, View)
    again = open_properties(tmp_path / "cache", "size")
    for data in (mapped, again):
        assert data.elements == memory.elements
        np.testing.assert_array_equal(targets(data, "size"), [1.0, 2.0, 3.0, 4.0, 5.0])
        for found, expected in zip(data.systems, memory.systems, strict=True):
            np.testing.assert_array_equal(found.positions, expected.positions)
            np.testing.assert_array_equal(found.atomic_numbers, expected.atomic_numbers)
            assert found.pbc == (False, False, False)


def test_a_changed_file_is_unpacked_anew(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(3))
    open_properties(tmp_path / "data.npz", "size", cache=tmp_path / "cache")
    np.savez(tmp_path / "data.npz", **arrays(4))
    assert len(open_properties(tmp_path / "data.npz", "size", cache=tmp_path / "cache")) == 4


def test_subsets_are_views_in_the_order_asked_for(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    data = open_properties(tmp_path / "data.npz", "size")
    part = data.subset([4, 1, 2]).subset([1, 0])
    np.testing.assert_array_equal(targets(part, "size"), [2.0, 5.0])
    assert [system.n_atoms for system in part.systems] == [2, 5]
    np.testing.assert_array_equal(part.systems[1].positions, data.systems[4].positions)
    assert isinstance(part.systems, View)
    assert property_name(part) == "size"
    assert part.count_labels() == {"energy": 0, "forces": 0, "stress": 0}


def test_structures_that_ase_reads_carry_the_property_in_their_information(tmp_path):
    frames = [molecule("H2O"), Atoms("C", cell=np.eye(3) * 4.0, pbc=True)]
    for number, frame in enumerate(frames):
        frame.info["gap"] = 0.1 * number
    write(tmp_path / "data.extxyz", frames)
    data = open_properties(tmp_path / "data.extxyz", "gap")
    np.testing.assert_allclose(targets(data, "gap"), [0.0, 0.1])
    assert data.systems[1].pbc == (True, True, True)
    np.testing.assert_allclose(data.systems[1].cell, 4.0 * np.eye(3))
    assert data.elements == (1, 6, 8)
    with pytest.raises(ValueError, match=r"structure 0 has no number 'band_gap'; it has gap"):
        open_properties(tmp_path / "data.extxyz", "band_gap")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, "no array 'size'; found atomic_numbers"),
        ({"positions": np.zeros((14, 3))}, r"'positions' has shape \(14, 3\), n_atoms asks for \(15, 3\)"),
        ({"size": np.array([1.0, np.nan, 1.0, 1.0, 1.0])}, "npz, structure 1: 'size' is nan, expected a finite number"),
        ({"size": np.array([1.0, 1.0, -1e300, 1.0, 1.0])}, r"structure 2: 'size' is -1e.300, .* at most 1e.15"),
        ({"positions": np.full((15, 3), np.nan)}, "structure 0: positions or cell are not finite .atom 0."),
        ({"positions": np.zeros((15, 3), int)}, "'positions' is int64, expected numbers"),
        ({"n_atoms": np.array([[1, 2]])}, r"'n_atoms' has shape \(1, 2\)"),
        ({"n_atoms": np.ones(5)}, "'n_atoms' is float64, expected whole numbers"),
        ({"atomic_numbers": np.full(15, 200)}, "structure 0: atom 0 has the atomic number 200; elements go up to 118"),
        ({"pbc": np.ones((5, 3), bool)}, "structure 0: periodic along lattice vector 0, which is zero"),
        ({"n_atoms": np.array([15, 0, 0, 0, 0])}, "structure 1: no atoms"),
        ({"n_atoms": np.array([16, -1, 0, 0, 0])}, "structure 0: 'n_atoms' is 16, of 15 in all"),
        ({"size": np.array([print] * 5)}, "numbers are expected; nothing in it was run"),
        ({"size": np.array(list("abcde"))}, "'size' is <U1, expected numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    content = {name: array for name, array in {**arrays(), **change}.items() if array is not None}
    np.savez(tmp_path / "data.npz", **content)
    with pytest.raises(ValueError, match=message):
        open_properties(tmp_path / "data.npz", "size")


def test_files_and_keys_are_told_apart():
    assert parse_property("C:/data/qm9.npz:gap")[1] == "gap"
    for text in ("qm9.npz", ":gap", "qm9.npz:", "C:/data"):
        with pytest.raises(ValueError, match="FILE:KEY"):
            parse_property(text)


def test_the_published_split_is_by_the_tails_of_the_gap(tmp_path):
    folder = registry.data_folder() / "qm9_gap"
    if not folder.is_dir():
        pytest.skip("the QM9 gaps are not at hand (MLIPJAX_DATA)")
    train, inside, outside = (
        targets(open_properties(folder / f"{name}.npz", "gap_hartree"), "gap_hartree")
        for name in ("train", "id_test", "ood_test")
    )
    assert train.min() <= inside.min()
    assert inside.max() <= train.max()
    # gaps are given to four decimals: some sit on the edge itself
    assert np.all((outside <= train.min() + 1e-6) | (outside >= train.max() - 1e-6))
    assert np.mean((outside < train.min()) | (outside > train.max())) > 0.98


def test_a_slice_of_structures_and_values_that_are_no_numbers(tmp_path):
    frames = [Atoms("He", info={"gap": float(i)}) for i in range(4)]
    write(tmp_path / "data.extxyz", frames)
    assert targets(open_properties(f"{tmp_path / 'data.extxyz'}@1:3", "gap"), "gap").tolist() == [1.0, 2.0]
    frames[2].info["gap"] = "wide"
    write(tmp_path / "data.extxyz", frames)
    with pytest.raises(ValueError, match=r"data\.extxyz, structure 2: 'gap' is 'wide', expected a number"):
        open_properties(tmp_path / "data.extxyz", "gap")
