import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest

from mlipjax.data import Dataset, Example, TrajectoryWriter, read_dataset, write_dataset
from mlipjax.data.extxyz import format_frame
from mlipjax.system import Labels, System

CELL = np.array([[4.0, 0.0, 0.1], [1 / 3, 5.0, 0.0], [0.0, 0.0, 6.0]])


def system(seed=0, n=5, cell=CELL, pbc=(True, True, False), dtype=np.float64):
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(n, 3)).astype(dtype)
    return System(positions, rng.integers(1, 90, n), cell.astype(dtype), pbc)


def random_forces(seed=1, n=5):
    return np.random.default_rng(seed).normal(size=(n, 3)) * 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frames_read_back_bit_for_bit(tmp_path, dtype):
    structure, forces = system(dtype=dtype), random_forces().astype(dtype)
    stress = np.array([[1 / 3, 0.1, 0.2], [0.1, 2.0, 0.0], [0.2, 0.0, 3.0]])
    with TrajectoryWriter(tmp_path / "md.extxyz") as trajectory:
        trajectory.write(
            structure, energy=-1e6 / 3, forces=forces, arrays={"momenta": forces, "charge": forces[:, 0]}, stress=stress
        )
    atoms = ase.io.read(tmp_path / "md.extxyz")
    np.testing.assert_array_equal(atoms.positions.astype(dtype), structure.positions)
    np.testing.assert_array_equal(atoms.cell.array.astype(dtype), structure.cell)
    np.testing.assert_array_equal(atoms.numbers, structure.atomic_numbers)
    np.testing.assert_array_equal(atoms.pbc, structure.pbc)
    np.testing.assert_array_equal(atoms.get_forces().astype(dtype), forces)
    np.testing.assert_array_equal(atoms.get_momenta().astype(dtype), forces)
    np.testing.assert_array_equal(atoms.get_stress(voigt=False), stress)
    assert atoms.get_potential_energy() == -1e6 / 3


def test_a_molecule_has_no_cell(tmp_path):
    molecule = system(cell=np.zeros((3, 3)), pbc=(False, False, False))
    (tmp_path / "m.extxyz").write_text(format_frame(molecule, info={"name": "two words", "step": 3, "ok": True}))
    atoms = ase.io.read(tmp_path / "m.extxyz")
    assert not atoms.cell.array.any()
    assert not atoms.pbc.any()
    assert atoms.info == {"name": "two words", "step": 3, "ok": True}


def test_wrong_input():
    with pytest.raises(ValueError, match=r"forces has shape \(4, 3\); this structure needs \(5, 3\)"):
        format_frame(system(), forces=np.zeros((4, 3)))
    with pytest.raises(ValueError, match="'energy'"):
        format_frame(system(), info={"energy": 1.0})


def write_frames(path, steps, **kwargs):
    with TrajectoryWriter(path, **kwargs) as trajectory:
        for step in steps:
            trajectory.write(system(step), energy=float(step), info={"step": step})


def steps_in(path):
    return [atoms.info["step"] for atoms in ase.io.iread(path, index=":")]


def test_appending_continues_a_file(tmp_path):
    path = tmp_path / "runs" / "md.extxyz"
    write_frames(path, range(3))
    write_frames(path, range(3, 5))
    assert steps_in(path) == [0, 1, 2, 3, 4]


def test_resuming_from_a_checkpoint_drops_later_frames(tmp_path):
    path, whole = tmp_path / "md.extxyz", tmp_path / "whole.extxyz"
    write_frames(whole, range(5))
    write_frames(path, range(4))
    write_frames(path, range(2, 5), keep=2)
    assert path.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match="holds 5 complete frames; cannot keep 6"):
        TrajectoryWriter(path, keep=6)


def test_any_cut_frame_is_removed(tmp_path):
    path = tmp_path / "md.extxyz"
    write_frames(path, range(3))
    content = path.read_bytes()
    frame_ends = [len(format_frame(system(0), energy=0.0, info={"step": 0}).encode())]
    frame_ends.append(frame_ends[0] + len(format_frame(system(1), energy=1.0, info={"step": 1}).encode()))
    for cut in range(frame_ends[1] + 1, len(content), 7):
        path.write_bytes(content[:cut])
        with TrajectoryWriter(path) as trajectory:
            assert trajectory.n_frames == 2
        assert path.read_bytes() == content[: frame_ends[1]]


def test_not_a_trajectory(tmp_path):
    (tmp_path / "notes.txt").write_text("hello\n")
    with pytest.raises(ValueError, match=r"notes\.txt: frame 0 has no number of atoms"):
        TrajectoryWriter(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "hello\n"


def test_a_killed_writer_leaves_a_readable_file(tmp_path):
    path = tmp_path / "md.extxyz"
    program = f"""
import numpy as np
from mlipjax.data import TrajectoryWriter
from mlipjax.system import System
positions = np.random.default_rng(0).normal(size=(100, 3))
structure = System(positions, np.ones(100, int), np.eye(3) * 9)
with TrajectoryWriter({str(path)!r}) as trajectory:
    step = 0
    while True:
        trajectory.write(structure, energy=-1.0, forces=positions, info={{"step": step}})
        step += 1
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=os.getcwd())
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size > 100_000):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with TrajectoryWriter(path) as trajectory:
        n_frames = trajectory.n_frames
    assert steps_in(path) == list(range(n_frames))


@pytest.mark.parametrize("name", ["set.extxyz", "set.extxyz.xz"])
def test_data_sets_round_trip(tmp_path, name):
    stress = np.diag([0.1, 0.2, 1 / 3])
    labels = [
        Labels.create(5, -1 / 3, random_forces(), stress),
        Labels.create(5, -2.0),
        Labels.create(5, -3.0, random_forces(2), weight=0.25),
    ]
    examples = [Example(system(i), label, {"run": i, "name": f"s {i}"}) for i, label in enumerate(labels)]
    dataset = Dataset.from_examples(examples)
    write_dataset(tmp_path / name, dataset)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    for example, original in zip(read_dataset(tmp_path / name), dataset, strict=True):
        for field in ("energy", "forces", "stress", "energy_weight", "forces_weight", "stress_weight"):
            np.testing.assert_array_equal(getattr(example.labels, field), getattr(original.labels, field))
        np.testing.assert_array_equal(example.system.positions, original.system.positions)
        assert example.info["run"] == original.info["run"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "set.extxyz"
    path.write_text("old")
    bad = Dataset((system(),), (Labels.create(4, 1.0, np.zeros((4, 3))),), ({},))
    with pytest.raises(ValueError, match="forces has shape"):
        write_dataset(path, bad)
    assert [p.name for p in tmp_path.iterdir()] == ["set.extxyz"]
    assert path.read_text() == "old"
