"""The driver: frames, restarts, repeats, the gate."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from ase.io import read
from pair_potential import argon, argon_spec, pair_potential

import mlipjax.md as md
from mlipjax.calculator import Calculator
from mlipjax.data import read_dataset
from mlipjax.locks import InUseError
from mlipjax.potential import Model

LANGEVIN = md.Langevin(5.0, 60.0, 20.0)
NPT = md.IsotropicNPT(5.0, 60.0, 1000.0, 150.0, 600.0)


def simulate(n_steps, ensemble=LANGEVIN, params=None, system=None, folder=None, **options):
    """Run with pieces of five steps, so that few programs are compiled."""
    potential, default = pair_potential()
    if folder is not None:
        options |= {"trajectory": folder / "t.extxyz", "checkpoint": folder / "t.npz"}
    options = {"key": jax.random.key(7), "frame_every": 5, "chunk_steps": 10, "spec": argon_spec()} | options
    return md.run(Model(potential, params or default), md.Start(system or argon()), ensemble, n_steps, **options)


def same_bits(first, second):
    leaves = [jax.tree.leaves(jax.tree.map(lambda x: x, run.state.dynamics.set(rng=None))) for run in (first, second)]
    same = all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    return same and np.array_equal(*(jax.random.key_data(run.state.dynamics.rng) for run in (first, second)))


@pytest.mark.parametrize("ensemble", [LANGEVIN, NPT], ids=["langevin", "npt"])
def test_a_stopped_run_continues_bit_for_bit(tmp_path, ensemble):
    whole = simulate(30, ensemble, folder=tmp_path / "whole", n_replicas=2)
    # half of it falls between two searches for neighbours
    half = simulate(15, ensemble, folder=tmp_path / "parts", n_replicas=2)
    assert half.n_frames == 6
    parts = simulate(30, ensemble, folder=tmp_path / "parts", n_replicas=2)
    assert (parts.resumed_from, parts.n_frames) == (15, 12)
    assert same_bits(whole, parts)
    assert whole.statistics.averages().keys() == parts.statistics.averages().keys()
    for name, average in whole.statistics.averages().items():
        np.testing.assert_allclose(average, parts.statistics.averages()[name], rtol=1e-12, err_msg=name)
    assert (tmp_path / "whole/t.extxyz").read_bytes() == (tmp_path / "parts/t.extxyz").read_bytes()
    # and a third call finds nothing to do
    assert simulate(30, ensemble, folder=tmp_path / "parts", n_replicas=2).resumed_from == 30


def test_a_killed_run_continues_from_its_last_checkpoint(tmp_path):
    class Killed(Exception):
        pass

    def kill(state, info):
        del info
        if int(state.step) == 20:
            raise Killed

    whole = simulate(30, folder=tmp_path / "whole", n_replicas=2)
    with pytest.raises(Killed):
        simulate(30, folder=tmp_path / "killed", n_replicas=2, checkpoint_seconds=0.0, on_chunk=kill)
    # frames of step 20 are in the file, but the checkpoint is of step 10
    assert len(read(tmp_path / "killed/t.extxyz", ":")) == 8
    again = simulate(30, folder=tmp_path / "killed", n_replicas=2)
    assert again.resumed_from == 10
    assert same_bits(whole, again)
    assert (tmp_path / "whole/t.extxyz").read_bytes() == (tmp_path / "killed/t.extxyz").read_bytes()


def damaged_checkpoints(arrays):
    header = json.loads(str(arrays["header"]))
    yield "no header", {name: array for name, array in arrays.items() if name != "header"}
    yield "header is a list", arrays | {"header": np.array("[]")}
    yield "no statistics", {name: array for name, array in arrays.items() if not name.startswith("statistics")}
    yield "huge tables", arrays | {"header": np.array(json.dumps(header | {"spec": huge(header["spec"])}))}
    yield "pickle", arrays | {"state.x": np.array([print])}
    for field in ("settings", "spec", "chunk_steps"):
        yield f"{field} is a word", arrays | {"header": np.array(json.dumps(header | {field: "x"}))}
        without = {key: value for key, value in header.items() if key != field}
        yield f"no {field}", arrays | {"header": np.array(json.dumps(without))}
    positions = next(name for name in arrays if name.startswith("state") and arrays[name].ndim == 3)
    yield "cut", arrays | {positions: arrays[positions][:, :-1]}
    yield "NaN", arrays | {positions: np.full_like(arrays[positions], np.nan)}
    yield "table without cells", arrays | {"table.cells": np.zeros_like(arrays["table.cells"])}
    yield "table far away", arrays | {"table.positions": arrays["table.positions"] + 1e7}
    spec = header["spec"]
    nowhere = spec | {"pbc": [1, "x", None]}
    yield "periodic along words", arrays | {"header": np.array(json.dumps(header | {"spec": nowhere}))}
    yield "infinite", arrays | {positions: np.full_like(arrays[positions], -np.inf)}
    yield "step before the first", arrays | {"state.step": np.full_like(arrays["state.step"], -3)}
    yield "table cut", arrays | {"table.positions": arrays["table.positions"][:, :-1]}


def huge(spec):
    return spec | {"n_neighbors": 10**15}


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    simulate(5, folder=tmp_path, n_replicas=2)
    with np.load(tmp_path / "t.npz") as file:
        whole = dict(file)
    with pytest.raises(ValueError, match=r"temperature_K was 60\.0, is 70\.0"):
        simulate(10, LANGEVIN.replace(temperature_K=70.0), folder=tmp_path, n_replicas=2)
    params = jax.tree.map(lambda leaf: 1.01 * leaf, pair_potential()[1])
    with pytest.raises(ValueError, match="parameters was"):
        simulate(10, params=params, folder=tmp_path, n_replicas=2)
    (tmp_path / "t.npz").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a checkpoint"):
        simulate(10, folder=tmp_path, n_replicas=2)
    for name, arrays in damaged_checkpoints(whole):
        print(name)  # shown if it fails
        np.savez(tmp_path / "t.npz", **arrays)
        with pytest.raises(ValueError, match="checkpoint") as error:
            simulate(10, folder=tmp_path, n_replicas=2)
        assert "\n" not in str(error.value)
        assert str(tmp_path / "t.npz") in str(error.value)
    (tmp_path / "t.npz").unlink()
    with pytest.raises(ValueError, match="without a checkpoint"):
        simulate(10, folder=tmp_path, n_replicas=2)


def test_a_run_that_stopped_in_its_first_piece_leaves_its_files_to_another(tmp_path):
    too_close = md.default_limits(60.0, argon().n_atoms, 5.0, 3.0)
    with pytest.raises(md.SimulationStopped):
        simulate(10, folder=tmp_path, limits=too_close)
    again = simulate(10, folder=tmp_path)
    assert (again.resumed_from, again.n_frames) == (0, 2)
    # now there is something to lose
    with pytest.raises(ValueError, match="belongs to another run"):
        simulate(10, folder=tmp_path, limits=too_close)


def test_two_processes_cannot_write_one_trajectory(tmp_path):
    code = (
        f"from mlipjax.locks import Lock; lock = Lock({str(tmp_path / 't.extxyz')!r}); print('', flush=True); input()"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(InUseError, match=r"t\.extxyz is in use by another process"):
            simulate(5, folder=tmp_path)
    finally:
        other.kill()
        other.wait()
    assert simulate(5, folder=tmp_path).n_frames == 1


def test_trajectory_holds_what_a_calculator_computes(tmp_path):
    simulate(10, folder=tmp_path, n_replicas=2)
    potential, params = pair_potential()
    calculator = Calculator(potential, params)
    frames = read(tmp_path / "t.extxyz", ":")
    assert [(f.info["run"], f.info["step"], f.info["time_fs"]) for f in frames] == [
        (0, 5, 25.0),
        (1, 5, 25.0),
        (0, 10, 50.0),
        (1, 10, 50.0),
    ]
    for frame in frames:
        stored = frame.calc.results
        atoms = frame.copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(stored["energy"], abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), stored["forces"], atol=1e-9)
        np.testing.assert_allclose(atoms.get_stress(), stored["stress"], atol=1e-12)
        assert 5.0 < frame.get_temperature() < 90.0
    assert np.array_equal(frames[0].get_momenta().shape, (32, 3))
    assert len(read_dataset(tmp_path / "t.extxyz")) == 4


def test_a_repeated_chunk_gives_the_trajectory_of_large_tables(tmp_path):
    del tmp_path
    small = argon_spec()
    tight = dataclasses.replace(small, n_candidates=24, bins=small.bins._replace(occupancy=8), n_neighbors=16)
    grown = simulate(10, spec=tight)
    assert grown.n_repeats >= 1
    shortened = simulate(10, spec=md.VerletSpec.for_systems([argon()], 6.5, skin=0.05))
    assert shortened.n_repeats >= 1
    plain = simulate(10)
    assert plain.n_repeats == 0
    for run in (grown, shortened):
        np.testing.assert_allclose(run.state.dynamics.position, plain.state.dynamics.position, atol=1e-10)
        np.testing.assert_allclose(run.state.dynamics.momentum, plain.state.dynamics.momentum, atol=1e-10)


def squeezed():
    """Two atoms far too close: they fly apart and heat the crystal."""
    system = argon()
    positions = np.array(system.positions)
    positions[1] = positions[0] + [1.9, 0.0, 0.0]
    return system.replace(positions=positions)


def attractive():
    """Parameters of a potential that pulls atoms into each other."""
    _, params = pair_potential()
    return params | {"epsilon": -5.0 * params["epsilon"]}


def broken():
    _, params = pair_potential()
    return params | {"sigma": params["sigma"] * np.nan}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"system": squeezed}, "the temperature is"),
        ({"params": attractive}, "Å apart"),
        ({"params": broken}, "not finite"),
    ],
    ids=["hot", "close", "nan"],
)
def test_gate_stops_the_run_and_keeps_the_frame(tmp_path, case, reason):
    options = {name: make() for name, make in case.items()}
    if reason == "Å apart":
        options["limits"] = md.Limits(temperature_K=1e9, contact_ratio=0.8)
    with pytest.raises(md.SimulationStopped, match=reason) as caught:
        simulate(500, folder=tmp_path, **options)
    error = caught.value
    assert str(error.path) in str(error)
    assert "\n" not in str(error)
    frame = read(error.path)
    assert frame.info["step"] == error.step < 500
    assert reason in frame.info["reason"]
    np.testing.assert_allclose(frame.positions, error.system.positions)
    if reason == "the temperature is":
        assert frame.get_temperature() > md.default_limits(60.0, 32).temperature_K
    elif reason == "Å apart":
        distances = frame.get_all_distances(mic=True) + 99.0 * np.eye(32)
        assert distances.min() < 0.8 * 2 * 1.06
        assert np.isfinite(frame.get_forces()).all()
    else:
        assert np.isnan(frame.get_forces()).all()
        assert np.isfinite(frame.positions).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "must be 1 or more"),
        ({"ensemble": NPT, "system": "slab"}, "choose NVT or NVE|Choose NVT or NVE"),
        ({"system": "single"}, "Repeat the cell"),
        ({"system": "krypton"}, "does not know Kr"),
    ],
)
def test_bad_input_is_one_clear_error(change, message):
    systems = {
        "slab": argon().replace(pbc=(True, True, False)),
        "single": argon().replace(positions=argon().positions[:1], atomic_numbers=argon().atomic_numbers[:1]),
        "krypton": argon().replace(atomic_numbers=np.full(32, 36)),
    }
    arguments = {"n_steps": 5, "ensemble": LANGEVIN} | change
    if isinstance(arguments.get("system"), str):
        arguments["system"] = systems[arguments["system"]]
    with pytest.raises(ValueError, match=message):
        simulate(**arguments)
