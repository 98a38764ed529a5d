"""Relaxations side by side: FIRE against ASE's, tables that grow, structures that do not notice each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.optimize import FIRE
from migration_case import bistable, pair, vacancy_jump

from mlipjax.graph import VerletSpec
from mlipjax.relaxation import fire, relax
from mlipjax.relaxation.batch import evaluate
from mlipjax.relaxation.cell import strains
from mlipjax.relaxation.run import in_parts


def test_one_clock_for_all_atoms_moves_them_as_ase_does():
    atoms = bulk("Ar", "fcc", a=1.6, cubic=True)
    atoms.pbc = False
    atoms.rattle(0.1, seed=0)
    atoms.calc = LennardJones()
    reference = []
    optimizer = FIRE(atoms, logfile=None)
    optimizer.attach(lambda: reference.append((atoms.positions.copy(), atoms.get_forces().copy())))
    optimizer.run(fmax=0.0, steps=60)
    x, state, step = jnp.asarray(reference[0][0]), fire.init(jnp.zeros((4, 3))), jax.jit(fire.step)
    for positions, forces in reference:
        np.testing.assert_allclose(x, positions, atol=1e-10)
        move, state = step(jnp.asarray(forces), state)
        x = x + fire.shortened(move, fire.norm(move))
    assert float(state.dt) != pytest.approx(0.1)  # it went downhill, and up


def test_strains_are_orthonormal_and_leave_open_directions_alone():
    cell = np.array([[3.0, 0, 0], [-1.5, 2.6, 0.3], [0.2, 0.1, 9.0]])
    for pbc, number in (((True,) * 3, 6), ((True, True, False), 3), ((False, False, True), 1)):
        basis = strains("full", cell, pbc)
        flat = basis.reshape(6, 9)
        np.testing.assert_allclose(flat @ flat.T, np.diag(np.arange(6) < number), atol=1e-12)
        periodic = cell[np.array(pbc)]
        normals = np.linalg.svd(periodic, full_matrices=True)[2][len(periodic) :]
        np.testing.assert_allclose(basis @ normals.T, 0.0, atol=1e-12)
        stretch = strains("volume", cell, pbc)[0]
        np.testing.assert_allclose(periodic @ stretch * np.sqrt(len(periodic)), periodic, atol=1e-12)
    up = strains("normal", cell, (True,) * 3)[0]
    np.testing.assert_allclose(cell[:2] @ up, 0.0, atol=1e-12)
    with pytest.raises(ValueError, match="three cell vectors"):
        relax(pair(), [bistable()[0]], cell="full")


def test_tables_grow_where_neighbours_do_not_fit_and_are_used_again():
    potential = pair().potential
    spec = VerletSpec.for_systems(vacancy_jump(), potential.cutoff)
    enough = relax(pair(), vacancy_jump(), max_steps=5, dtype="float64", spec=spec)
    assert enough.spec == spec
    tight = dataclasses.replace(spec, n_candidates=8, n_neighbors=4)
    grown = relax(pair(), vacancy_jump(), max_steps=5, dtype="float64", spec=tight)
    np.testing.assert_allclose(grown.energies, enough.energies, atol=1e-10)
    assert grown.spec.n_neighbors > tight.n_neighbors
    before = evaluate._cache_size()
    relax(pair(), vacancy_jump(), max_steps=3, dtype="float64", spec=grown.spec)
    assert evaluate._cache_size() == before


def test_relaxations_do_not_depend_on_their_company_and_say_how_they_went():
    potential = pair().potential
    first, last = vacancy_jump()
    seen = []
    spec = VerletSpec.for_systems([first, last], potential.cutoff)
    options = {"fmax": 0.05, "dtype": "float64", "spec": spec}
    alone = relax(pair(), [first, first], **options)
    found = relax(pair(), [first, last], keep_path=True, on_step=lambda *a: seen.append(a), **options)
    np.testing.assert_allclose(alone.systems[0].positions, found.systems[0].positions, atol=1e-9)
    assert found.converged.all()
    assert np.all(found.energies < found.initial_energies)
    np.testing.assert_array_equal(found.initial.systems[1].positions, last.positions)
    assert [step for step, _ in seen] == list(range(1, found.steps + 1))
    assert len(found.path) == found.steps
    assert seen[-1][1] == found.residual.max() < 0.05


def test_parts_are_filled_up_with_copies():
    assert list(in_parts("abcde", 2)) == [(["a", "b"], 2), (["c", "d"], 2), (["e", "e"], 1)]
