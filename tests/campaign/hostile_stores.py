"""Hostile files that this package writes or defines: stores of labels, property sets, E0s, monitors, restarts."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from campaign.hostile_case import Case, Kind, check_neighbours
from campaign.mutations import npy_bytes, pick, spoil_array, spoil_bytes, spoil_json

MD_STEPS = 4
"""Steps of the run that the good restart file belongs to."""


def make_store(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile folder of labelled structures: an array (its checksum right or not), the description, or the files."""
    path = folder / "store"
    shutil.copytree(good / "store", path)
    description = path / "store.json"
    way = pick(rng, ["array", "array", "array", "description", "bytes", "bytes", "files", "infos"])
    arrays = sorted(path.glob("*.npy"))
    target = pick(rng, arrays)
    refuse = False
    if way == "description":
        text, what = spoil_json(rng, json.loads(description.read_text()))
        description.write_bytes(text.encode(errors="surrogatepass"))
    elif way == "bytes":
        before = target.read_bytes()
        content, what = spoil_bytes(rng, before)
        target.write_bytes(content)
        refuse, what = content != before, f"{target.name}: {what}"
    elif way == "files":
        what = pick(rng, ["missing", "folder", "loop", "no description"])
        target = description if what == "no description" else target
        target.unlink()
        if what == "folder":
            target.mkdir()
        elif what == "loop":
            target.symlink_to(target.name)
        refuse, what = True, f"{target.name}: {what}"
    else:
        target = path / "infos.npy" if way == "infos" else target
        content, what = spoil_array(rng, np.load(target))
        target.write_bytes(content)
        _sign_store(path)
        what = f"{target.name}, checksum right: {what}"
    return Case(path, what, refuse, arguments=("evaluate", "--model", str(good / "model"), "--data", str(path)))


def _sign_store(path: Path) -> None:
    description = json.loads((path / "store.json").read_text())
    for name in description["sha256"]:
        description["sha256"][name] = hashlib.sha256((path / f"{name}.npy").read_bytes()).hexdigest()
    (path / "store.json").write_text(json.dumps(description))


def read_store(path: Path, good: Path) -> None:
    """A store is read as any labelled structures are."""
    from mlipjax.data import read_dataset

    for system, labels, _ in read_dataset(path, required=()):
        numbers = np.asarray(system.atomic_numbers)
        assert len(numbers), "a structure without atoms"
        assert numbers.min() >= 1, "element 0"
        assert numbers.max() <= 118, "an element that does not exist"
        for value in (system.positions, system.cell, labels.energy, labels.forces, labels.stress, labels.energy_weight):
            assert np.isfinite(np.asarray(value)).all(), "numbers that are not finite"
        check_neighbours(system)


def spoil_npz(rng: np.random.Generator, content: bytes, header: str | None) -> tuple[bytes, str]:
    """Spoil an ``.npz``: an array, the JSON of its header, the members, or bytes."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    members = {name: npy_bytes(array) for name, array in arrays.items()}
    ways = ["array", "array", "array", "missing", "twice", "bomb", "bytes", "bytes", "plain", "pickled"]
    way = pick(rng, ways + (["header"] * 4 if header else []))
    name = pick(rng, sorted(arrays))
    if way == "bytes":
        return spoil_bytes(rng, content)
    if way == "plain":
        return members[name], f"npz: the array {name} alone"
    what = f"npz: {way} {name}"
    if way == "header" and header is not None:
        text, what = spoil_json(rng, json.loads(str(arrays[header])))
        members[header] = npy_bytes(np.asarray(text.replace("\x00", " ")))
    elif way == "array":
        members[name], what = spoil_array(rng, arrays[name])
        what = f"npz: {name}: {what}"
    elif way == "missing":
        del members[name]
    elif way == "pickled":
        buffer = io.BytesIO()
        np.save(buffer, np.array([{}, None], object), allow_pickle=True)
        members[name] = buffer.getvalue()
    elif way == "bomb":
        shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (25000000,), }"
        shape += b" " * (-(len(shape) + 11) % 64) + b"\n"
        members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(shape)) + shape + bytes(200_000_000)
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", zipfile.ZIP_DEFLATED if way == "bomb" else zipfile.ZIP_STORED, compresslevel=1
    ) as archive:
        for member, data in members.items():
            archive.writestr(f"{member}.npy", data)
        if way == "twice":
            archive.writestr(f"{name}.npy", npy_bytes(np.zeros(3)))
    return buffer.getvalue(), what


def make_properties(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile set of structures with one number each."""
    content, what = spoil_npz(rng, (good / "good.npz").read_bytes(), None)
    path = folder / "gaps.npz"
    path.write_bytes(content)
    return Case(path, what)


def read_properties(path: Path, good: Path) -> None:
    """In memory and unpacked to a folder, the same; what is accepted can be computed with."""
    from mlipjax.data.properties import open_properties, targets

    data = open_properties(path, "gap")
    for system in data.systems:
        numbers = np.asarray(system.atomic_numbers)
        assert 1 <= numbers.min() <= numbers.max() <= 118, f"elements {numbers}"
        assert np.isfinite(system.positions).all(), "positions that are not finite"
        assert np.isfinite(system.cell).all(), "a cell that is not finite"
        check_neighbours(system)
    assert np.isfinite(targets(data, "gap")).all(), "values that are not finite"
    cached = open_properties(path, "gap", cache=path.parent / "cache")
    assert np.array_equal(targets(cached, "gap"), targets(data, "gap")), "other values from the unpacked folder"


def make_e0s(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile file of isolated-atom energies."""
    e0s = json.loads((good / "e0s.json").read_text())
    if rng.random() < 0.7:
        names = ["Xx", "X", "mg", "1", "", "Mg ", "Og", "comment", "é"]
        value = e0s | {pick(rng, names): pick(rng, [-1.0, "x", None, 1e300])} if rng.random() < 0.2 else e0s
        text, what = spoil_json(rng, value)
        content = text.encode(errors="surrogatepass")
    else:
        content, what = spoil_bytes(rng, (good / "e0s.json").read_bytes())
    path = folder / "e0s.json"
    path.write_bytes(content)
    return Case(path, what)


def read_e0_file(path: Path, good: Path) -> None:
    """Check that what is accepted maps elements to energies."""
    from mlipjax.train import read_e0s

    for number, energy in read_e0s(path).items():
        assert 1 <= number <= 118, f"element {number}"
        assert abs(energy) < 1e30, f"an energy of {energy}"


def make_monitor(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile monitor."""
    content, what = spoil_npz(rng, (good / "monitor.npz").read_bytes(), "header")
    path = folder / "monitor.npz"
    path.write_bytes(content)
    command = (
        "monitor",
        "--model",
        str(good / "model"),
        "--reference",
        str(path),
        "--data",
        str(good / "crystals.extxyz"),
    )
    return Case(path, what, arguments=command)


def read_monitor(path: Path, good: Path) -> None:
    """Check that what is accepted has charts of finite numbers for elements that exist, and fits together."""
    from mlipjax.monitoring import load_monitor

    _sane_monitor(load_monitor(path))


def _sane_monitor(monitor: Any) -> None:
    assert len(monitor.species) > 0, "no species"
    assert all(isinstance(z, int) and 1 <= z <= 118 for z in monitor.species), f"species {monitor.species}"
    assert 0.0 < monitor.level < 1.0, f"level {monitor.level}"
    assert monitor.layers in ("last", "all"), f"layers {monitor.layers}"
    for name, value in vars(monitor.charts).items():
        array = np.asarray(value)
        assert array.dtype.kind in "fiub", f"{name} of type {array.dtype}"
        assert not np.isnan(array.astype(float)).any(), f"{name} is NaN"
    rows = {np.shape(monitor.charts.mean)[0], np.shape(monitor.charts.components)[0], len(monitor.species)}
    assert len(rows) == 1, f"charts of {rows} elements"


def make_restart(rng: np.random.Generator, folder: Path, good: Path) -> Case:
    """A hostile restart file, next to a good trajectory."""
    content, what = spoil_npz(rng, (good / "md_restart.npz").read_bytes(), "header")
    path = folder / "md_restart.npz"
    path.write_bytes(content)
    shutil.copy(good / "md.extxyz", folder / "md.extxyz")
    return Case(path, what, arguments=md_command(good, folder / "md.extxyz"))


def md_command(good: Path, out: Path) -> tuple[str, ...]:
    """The run that the restart file belongs to."""
    return ("md", "--model", str(good / "model"), "--structure", str(good / "crystal.extxyz"), "--out", str(out),
        "--steps",
            str(MD_STEPS), "--every", "2", "--ensemble", "nve")  # fmt: skip


@functools.cache
def _template(good: Path) -> tuple[Any, Any]:
    """State and settings of the good run."""
    import jax

    import mlipjax
    from mlipjax.data import read_last_atoms
    from mlipjax.md import Start, VerletSpec, init, make_ensemble
    from mlipjax.system import System

    model = mlipjax.load(good / "model")
    system = System.from_ase(read_last_atoms(good / "crystal.extxyz"))
    ensemble = make_ensemble("nve", timestep_fs=1.0, temperature_K=300.0)
    spec = VerletSpec.for_systems([system], model.potential.cutoff)
    with np.load(good / "md_restart.npz", allow_pickle=False) as file:
        settings = json.loads(str(file["header"]))["settings"]

    def begin(params, key):
        return init(model._replace(params=params), spec, Start(system), ensemble, key)

    state = jax.eval_shape(begin, model.params, jax.random.key(0))
    return state, settings


def read_restart(path: Path, good: Path) -> None:
    """Check that what is accepted continues the run from finite numbers."""
    import jax

    from mlipjax.md.restart import load_checkpoint

    template, settings = _template(good)
    checkpoint = load_checkpoint(path, template, settings)
    for leaf in jax.tree.leaves(checkpoint.state.dynamics):
        if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):  # random keys are of a type that numpy does not know
            assert np.isfinite(np.asarray(leaf)).all(), "a state that is not finite"
    assert 0 <= int(checkpoint.state.step) <= 10**9, f"step {int(checkpoint.state.step)}"
    assert isinstance(checkpoint.n_frames, int), f"{checkpoint.n_frames!r} frames"
    assert isinstance(checkpoint.chunk_steps, int), f"chunks of {checkpoint.chunk_steps!r} steps"
    assert checkpoint.n_frames >= 0, f"{checkpoint.n_frames} frames"
    assert checkpoint.chunk_steps >= 1, f"chunks of {checkpoint.chunk_steps} steps"


KINDS = (
    Kind("labelled store", make_store, read_store, every=2),
    Kind("property set", make_properties, read_properties),
    Kind("E0 file", make_e0s, read_e0_file),
    Kind("monitor", make_monitor, read_monitor, every=3),
    Kind("restart file", make_restart, read_restart, every=10),
)
