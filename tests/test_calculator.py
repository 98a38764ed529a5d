import concurrent.futures
import copy
import dataclasses
import functools
import pickle
import pickletools
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.md.verlet import VelocityVerlet
from tiny_nequip import SMALLEST, graph_of, molecule, random_params, skewed_crystal, slab

from mlipjax import Calculator
from mlipjax.graph.follow import Sizes
from mlipjax.models import nequip

E0S = np.array([-13.5, -1030.25, -2040.125])
ONE_LAYER = dataclasses.replace(SMALLEST, n_layers=1, hidden_irreps="4x0e")


@functools.cache
def model():
    potential = nequip(SMALLEST, E0S)
    return potential, random_params(potential)


@functools.cache
def shared_calculator():
    calculator = Calculator(*model())
    calculator._follower.sizes.choose(6, 24)  # one program for all structures of these tests
    return calculator


def fast_calculator(**kwargs):
    potential = nequip(dataclasses.replace(ONE_LAYER, heads=("pbe", "xtb")), [E0S, 2.0 * E0S])
    return Calculator(potential, random_params(potential), **kwargs)


@pytest.mark.parametrize("build", [skewed_crystal, molecule, slab])
def test_results_are_those_of_the_potential(build):
    potential, params = model()
    system = build()
    atoms = system.to_ase()
    atoms.calc = shared_calculator()
    expected = _apply()(params, graph_of(system))
    n = system.n_atoms
    total = float(expected.energy[0]) + potential.reference_energy(system.atomic_numbers)
    assert atoms.get_potential_energy() == pytest.approx(total, rel=1e-14)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected.forces[:n], atol=1e-12)
    assert atoms.get_potential_energies().sum() == pytest.approx(total, rel=1e-14)
    if build is skewed_crystal:
        np.testing.assert_allclose(atoms.get_stress(voigt=False), expected.stress[0], atol=1e-14)
    else:
        with pytest.raises(PropertyNotImplementedError, match="stress needs a cell with three vectors"):
            atoms.get_stress()


@functools.cache
def _apply():
    return jax.jit(model()[0].apply)


def test_slabs_in_a_cell_have_a_stress():
    atoms = fcc111("C", (1, 1, 2), a=4.2, vacuum=6.0)
    atoms.calc = fast_calculator()
    assert list(atoms.pbc) == [True, True, False]
    stress = atoms.get_stress(voigt=False)
    assert np.abs(stress[:2, :2]).max() > 1e-4
    np.testing.assert_allclose(stress, stress.T)


def test_a_trajectory_compiles_once():
    atoms = bulk("C", cubic=True, a=3.9)
    atoms.calc = fast_calculator()
    atoms.rattle(0.05, seed=0)
    noise = np.random.default_rng(0).normal(size=(8, 3))
    atoms.set_momenta(noise * np.sqrt(atoms.get_masses() * 600 * units.kB)[:, None])
    VelocityVerlet(atoms, 1.0 * units.fs).run(20)
    assert atoms.calc.n_compilations == 1


def test_fifty_structures_compile_a_handful_of_programs():
    calculator = fast_calculator()
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 41, 50)
    assert len(set(sizes)) == 25
    for n in sizes:
        length = (12.0 * n) ** (1 / 3) * rng.uniform(0.9, 1.3)
        atoms = Atoms(
            numbers=rng.choice([1, 6, 8], n), positions=rng.uniform(0.0, length, (n, 3)), cell=[length] * 3, pbc=True
        )
        atoms.calc = calculator
        assert np.isfinite(atoms.get_potential_energy())
    assert calculator.n_compilations <= 6


def test_a_size_that_comes_back_often_gets_a_program_that_fits():
    sizes = Sizes()
    assert sizes.choose(40, 60) == (40, 60)
    for _ in range(Sizes.PATIENCE):
        assert sizes.choose(10, 30) == (40, 60)
    assert sizes.choose(10, 30) == (10, 32)
    assert sizes.choose(10, 31) == (10, 32)
    # a few more neighbours: the same structure, a little wider
    assert sizes.choose(40, 62) == (40, 64)
    # much larger ones leave room for others
    assert sizes.choose(65, 100) == (128, 128)
    assert sizes.choose(100, 120) == (128, 128)
    # an atom or two do not go through a program for hundreds
    assert sizes.choose(1, 120) == (8, 128)
    assert len(sizes.programs) == 5


def test_float32_without_64_bit_mode_leaves_the_settings_alone():
    atoms = skewed_crystal().to_ase()
    jax.config.update("jax_enable_x64", False)
    try:
        results = {}
        for dtype in ("float32", "float64"):
            atoms.calc = fast_calculator(dtype=dtype)
            results[dtype] = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
            assert not jax.config.jax_enable_x64
            assert jnp.ones(1).dtype == jnp.float32
    finally:
        jax.config.update("jax_enable_x64", True)
    low, high = results["float32"], results["float64"]
    for value, expected in zip(low, high, strict=True):
        assert np.asarray(value).dtype == np.float64
        np.testing.assert_allclose(value, expected, atol=2e-5)
    assert np.abs(low[1] - high[1]).max() > 1e-12


def test_energies_of_millions_of_eV_lose_nothing_in_float32():
    huge = 1e6 * np.array([1.0, 2.0, 3.0]) / 7.0
    potential = nequip(ONE_LAYER, -huge)
    params = random_params(potential)
    with_e0s = Calculator(potential, params, dtype="float32")
    without = Calculator(potential.replace(e0s=np.zeros((1, 3))), params, dtype="float32")
    atoms = skewed_crystal().to_ase() * (2, 1, 1)
    interaction = without.get_potential_energy(atoms)
    references = -huge[np.searchsorted(SMALLEST.species, atoms.numbers)].sum()
    assert references < -2.5e6
    total = with_e0s.get_potential_energy(atoms)
    assert total - references == pytest.approx(interaction, abs=1e-8)
    # in float32 neighbouring numbers of that size are 0.25 eV apart
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-2
    change = with_e0s.get_potential_energy(moved) - total
    assert change == pytest.approx(-1e-2 * with_e0s.get_forces(atoms)[0, 0], abs=2e-4)
    assert abs(change) > 5e-4


def test_heads_are_chosen_by_name():
    atoms = molecule().to_ase()
    pbe, xtb = (fast_calculator(head=task).get_potential_energy(atoms) for task in (None, "xtb"))
    references = E0S[np.searchsorted(SMALLEST.species, atoms.numbers)].sum()
    assert xtb - pbe == pytest.approx(references, abs=20.0)
    with pytest.raises(ValueError, match="this model has the heads pbe, xtb; found 'dft'"):
        fast_calculator(head="dft")


def test_bad_input_is_refused_with_one_clear_line():
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64', found 'bfloat16'"):
        fast_calculator(dtype="bfloat16")
    calculator = shared_calculator()
    with pytest.raises(ValueError, match="this potential does not know Fe; it knows H, C, O"):
        calculator.get_potential_energy(bulk("Fe"))
    broken = molecule().to_ase()
    broken.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        calculator.get_potential_energy(broken)


def test_a_copy_computes_the_same_wherever_it_went():
    atoms = molecule().to_ase()
    atoms.calc = fast_calculator(head="xtb")
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    for copied in (pickle.loads(pickle.dumps(atoms)), copy.deepcopy(atoms)):
        assert copied.calc is not atoms.calc
        assert copied.calc.parameters == atoms.calc.parameters
        assert copied.calc.results.keys() == atoms.calc.results.keys()
        copied.calc.reset()
        assert copied.get_potential_energy() == energy
        np.testing.assert_array_equal(copied.get_forces(), forces)
    # what travels is names and arrays: no function of the program is inside
    names = {
        argument
        for opcode, argument, _ in pickletools.genops(pickle.dumps(fast_calculator(), protocol=0))
        if opcode.name == "GLOBAL"
    }
    assert {name.split()[0].split(".")[0] for name in names} <= {"mlipjax", "numpy", "builtins", "_codecs", "copyreg"}
    assert [name for name in names if name.startswith("mlipjax")] == ["mlipjax.calculator _restored"]


def test_a_database_keeps_a_trace_of_the_model(tmp_path):
    from ase.db import connect

    atoms = molecule().to_ase()
    atoms.calc = fast_calculator(head="xtb", dtype="float32")
    atoms.get_potential_energy()
    connect(tmp_path / "a.db").write(atoms)
    row = connect(tmp_path / "a.db").get(1)
    assert row.calculator == "mlipjax"
    assert row.calculator_parameters == {"model": atoms.calc.parameters["model"], "dtype": "float32", "head": "xtb"}
    other = jax.tree.map(lambda leaf: 1.001 * leaf, atoms.calc.params)
    assert Calculator(atoms.calc.potential, other).parameters["model"] != atoms.calc.parameters["model"]


def test_threads_that_share_a_calculator_get_their_own_results():
    calculator = fast_calculator()
    frames = []
    for seed in range(8):
        atoms = molecule().to_ase()
        atoms.rattle(0.05, seed=seed)
        frames.append(atoms)
    expected = [calculator.get_potential_energy(atoms) for atoms in frames]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(calculator.get_potential_energy, frames))
    assert found == expected
    assert len(set(expected)) == 8


def test_the_former_name_of_the_head_still_works_with_a_warning():
    with pytest.warns(DeprecationWarning, match="head="):
        assert fast_calculator(task="xtb").parameters["head"] == "xtb"


def test_what_cannot_be_computed_is_an_error_that_names_the_atoms():
    calculator = fast_calculator()
    twice = Atoms("CO2H", [[0, 0, 0], [1.2, 0, 0], [0, 1.2, 0], [1.2, 0, 1e-9]])
    with pytest.raises(ValueError, match="atoms O 1 and H 3 are 1e-09 Å apart"):
        calculator.get_potential_energy(twice)
    assert calculator.results == {}
    flat = Atoms("C", cell=[[3.0, 0, 0], [0, 3.0, 0], [0, 0, 0.01]], pbc=True)
    with pytest.raises(ValueError, match="atom C 0 and its periodic image"):
        calculator.get_forces(flat)
    broken = molecule().to_ase()
    broken.positions[2, 0] = np.inf
    with pytest.raises(ValueError, match="position of atom 2 is not finite"):
        calculator.get_potential_energy(broken)
    with pytest.raises(ValueError, match="does not know X"):
        calculator.get_potential_energy(Atoms("CX", [[0, 0, 0], [1, 0, 0]]))
    with pytest.raises(ValueError, match="at least one atom"):
        calculator.get_potential_energy(Atoms())
    potential, params = calculator.potential, jax.tree.map(lambda leaf: leaf * np.inf, calculator.params)
    with pytest.raises(ValueError, match="atom 0 are not finite"):
        Calculator(potential, params).get_potential_energy(molecule().to_ase())


def test_descriptors_are_the_features_of_the_layers():
    atoms = molecule().to_ase()
    potential, params = model()
    calculator = shared_calculator()
    found = calculator.get_descriptors(atoms)
    expected = np.asarray(_apply()(params, graph_of(molecule())).features)[: len(atoms)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    first = potential.feature_slices[0].stop
    np.testing.assert_array_equal(calculator.get_descriptors(atoms, num_layers=1), found[:, :first])
    with pytest.raises(ValueError, match="1 to 2, or -1 for all; found 3"):
        calculator.get_descriptors(atoms, num_layers=3)
    with pytest.raises(ValueError, match="invariants_only"):
        calculator.get_descriptors(atoms, False)
    with pytest.raises(ValueError, match="has seen none"):
        fast_calculator().get_descriptors()


@pytest.mark.parametrize("build", [skewed_crystal, molecule])
def test_the_hessian_is_the_derivative_of_the_forces(build):
    atoms = build().to_ase()
    calculator = fast_calculator(head="xtb")
    hessian = calculator.get_hessian(atoms)
    n, step = len(atoms), 1e-4
    assert hessian.shape == (3 * n, n, 3)
    for atom, axis in ((0, 0), (n - 1, 2)):
        forces = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            forces.append(calculator.get_forces(moved))
        slope = (forces[1] - forces[0]) / (2 * step)
        np.testing.assert_allclose(hessian[3 * atom + axis], slope, atol=1e-6)
    np.testing.assert_allclose(hessian.sum(axis=1), 0.0, atol=1e-10)
    atoms.calc = calculator
    atoms.get_potential_energy()
    np.testing.assert_array_equal(calculator.get_hessian(), hessian)


def test_forces_go_through_ases_socket():
    calculator = fast_calculator()
    atoms = skewed_crystal().to_ase()
    expected = calculator.get_potential_energy(atoms), calculator.get_forces(atoms), calculator.get_stress(atoms)
    name = f"mlipjax-{time.time_ns()}"
    with SocketIOCalculator(unixsocket=name, timeout=60) as server:
        client = threading.Thread(target=lambda: run_client(name, atoms.copy(), calculator))
        client.start()
        atoms.calc = server
        assert atoms.get_potential_energy() == pytest.approx(expected[0], rel=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), expected[1], atol=1e-9)
        np.testing.assert_allclose(atoms.get_stress(), expected[2], atol=1e-9)
    client.join(60)
    assert not client.is_alive()


def run_client(name, atoms, calculator):
    """Run as a script at the other end of a socket does."""
    atoms.calc = calculator
    SocketClient(unixsocket=name).run(atoms, use_stress=True)
