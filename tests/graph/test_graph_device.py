import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from graph_cases import CASES, ase_edges, assert_reversal, liquid, system, table_edges
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlipjax.graph import DeviceTableSpec, build_table, needs_rebuild

SKIN = 0.37
build = jax.jit(build_table, static_argnums=0)
stale = jax.jit(needs_rebuild, static_argnums=0)


def build_for(atoms, cutoff, dtype=np.float64, **changes):
    spec = dataclasses.replace(DeviceTableSpec.for_system(system(atoms), cutoff, SKIN), **changes)
    return spec, build(spec, atoms.positions.astype(dtype), atoms.cell.array.astype(dtype))


@pytest.mark.parametrize("name", CASES)
def test_edges_are_those_of_ase(name):
    atoms, cutoff = CASES[name]
    spec, table = build_for(atoms, cutoff)
    assert not table.overflow
    assert table.neighbors.shape == (len(atoms), spec.n_neighbors)
    np.testing.assert_array_equal(table_edges(table), ase_edges(atoms, cutoff + SKIN))
    assert_reversal(table)


@pytest.mark.parametrize("name", ["skewed, 2 atoms", "slab without third vector", "liquid"])
def test_edges_are_those_of_ase_in_single_precision(name):
    atoms, cutoff = CASES[name]
    atoms = atoms.copy()
    atoms.positions, atoms.cell[:] = np.float32(atoms.positions), np.float32(atoms.cell.array)
    # no pair is so close to the edge of the search that rounding decides
    expected = ase_edges(atoms, cutoff + SKIN - 2e-5)
    assert len(expected) == len(ase_edges(atoms, cutoff + SKIN + 2e-5))
    _, table = build_for(atoms, cutoff, np.float32)
    assert table.reference_positions.dtype == np.float32
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), expected)
    assert_reversal(table)


PERIODICITIES = [(True, True, True), (True, False, True), (False, False, True), (False, False, False)]


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1.0, 6.0), pbc=st.sampled_from(PERIODICITIES))
def test_random_cells_give_the_edges_of_ase_or_overflow(seed, scale, pbc):
    rng = np.random.default_rng(seed)
    cell = rng.normal(size=(3, 3)) * scale
    assume(abs(np.linalg.det(cell)) > max(4.0, 0.1 * np.prod(np.linalg.norm(cell, axis=1))))
    atoms = Atoms("H3", positions=rng.uniform(-1.0, 2.0, (3, 3)) @ cell, cell=cell, pbc=pbc)
    spec = DeviceTableSpec(
        cutoff=3.0,
        skin=0.5,
        n_edges=220,
        n_neighbors=60,
        images=(4 * pbc[0], 4 * pbc[1], 4 * pbc[2]),
        pbc=pbc,
    )
    table = build(spec, atoms.positions, cell)
    if not table.overflow:
        np.testing.assert_array_equal(table_edges(table), ase_edges(atoms, spec.reach))
        assert_reversal(table)
    elif not any(pbc):
        pytest.fail("three atoms overflowed a table of 60 neighbours each")
    else:
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        counts = np.bincount(ase_edges(atoms, spec.reach)[:, 0], minlength=3)
        thin = np.ceil(spec.reach / heights).max() > 4 or pbc != (True, True, True)
        assert thin or counts.max() > 60 or counts.sum() > 220


def test_every_overflow_is_flagged():
    atoms, cutoff = liquid(50, 8.5), 4.0
    counts = np.bincount(ase_edges(atoms, cutoff + SKIN)[:, 0])
    exact = {"n_neighbors": int(counts.max()), "n_edges": int(counts.sum())}
    spec, table = build_for(atoms, cutoff, **exact)
    assert not table.overflow
    assert build_for(atoms, cutoff, **{**exact, "n_neighbors": exact["n_neighbors"] - 1})[1].overflow
    # the search holds both directions of an edge or one: half the edges can never be enough
    assert build_for(atoms, cutoff, **{**exact, "n_edges": exact["n_edges"] // 2 - 1})[1].overflow
    assert build(spec, atoms.positions * np.nan, atoms.cell.array).overflow
    # a cell that has become so thin that more images are in reach, with room for their edges
    thin = atoms.copy()
    thin.set_cell(atoms.cell.array * [[1.0], [1.0], [0.3]], scale_atoms=True)
    roomy = dataclasses.replace(spec, n_neighbors=300, n_edges=15_000)
    assert build(roomy, thin.positions, thin.cell.array).overflow
    refitted = roomy.holding(DeviceTableSpec.for_system(system(thin), cutoff, SKIN))
    assert refitted.images[2] > spec.images[2]
    assert refitted.n_neighbors == 300
    table = build(refitted, thin.positions, thin.cell.array)
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), ase_edges(thin, cutoff + SKIN))


def test_only_sizes_of_one_kind_are_joined():
    spec = DeviceTableSpec.for_system(system(Atoms("H")), 4.0, SKIN)
    with pytest.raises(ValueError, match="cannot be joined"):
        spec.holding(dataclasses.replace(spec, cutoff=5.0))


def test_headroom_holds_a_denser_state():
    atoms = liquid(50, 8.0)
    spec = DeviceTableSpec.for_system(system(atoms), 4.0, SKIN, headroom=1.5)
    denser = atoms.copy()
    denser.set_cell(atoms.cell.array * 0.93, scale_atoms=True)
    table = build(spec, denser.positions, denser.cell.array)
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), ase_edges(denser, 4.0 + SKIN))


def test_vmap_over_replicas_with_their_own_cells_equals_single_builds():
    atoms = liquid(40, 8.0)
    spec = DeviceTableSpec.for_system(system(atoms), 4.0, SKIN, headroom=2.0)
    rng = np.random.default_rng(0)
    positions = atoms.positions + rng.normal(scale=0.1, size=(3, 40, 3))
    cells = atoms.cell.array * np.array([0.98, 1.0, 1.03])[:, None, None]
    tables = jax.jit(jax.vmap(partial(build_table, spec)))(positions, cells)
    assert not tables.overflow.any()
    for index in range(3):
        single = build(spec, positions[index], cells[index])
        for name in ("neighbors", "shifts", "edge_mask", "reverse", "overflow"):
            np.testing.assert_array_equal(getattr(tables, name)[index], getattr(single, name))
    flags = jax.vmap(partial(needs_rebuild, spec))(tables, jnp.asarray(positions).at[1].add(9.0), cells)
    np.testing.assert_array_equal(flags, [False, True, False])


def test_a_new_state_does_not_trace_again():
    atoms = liquid(40, 8.0)
    spec = DeviceTableSpec.for_system(system(atoms), 4.0, SKIN)
    traces = []

    @jax.jit
    def counted(positions, cell):
        traces.append(None)
        return build_table(spec, positions, cell)

    for step in range(3):
        counted(atoms.positions + 0.1 * step, atoms.cell.array * (1.0 + 0.01 * step))
    assert len(traces) == 1


def test_no_pair_comes_within_the_cutoff_unnoticed():
    atoms = liquid(60, 9.0)
    spec = DeviceTableSpec.for_system(system(atoms), 4.0, SKIN, headroom=2.0)
    table = build(spec, atoms.positions, atoms.cell.array)
    held = {tuple(edge) for edge in table_edges(table)}
    rng = np.random.default_rng(0)
    verdicts = []
    for size in np.linspace(0.0, 1.0, 40):
        deformation = np.eye(3) + 0.03 * size * rng.normal(size=(3, 3))
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ deformation)
        kick = rng.normal(size=(60, 3))
        kick *= 0.6 * SKIN * rng.uniform() * size / np.linalg.norm(kick, axis=1, keepdims=True)
        moved.positions = atoms.positions @ deformation + kick
        rebuild = bool(stale(spec, table, moved.positions, moved.cell.array))
        verdicts.append(rebuild)
        if not rebuild:
            assert {tuple(edge) for edge in ase_edges(moved, 4.0)} <= held
    assert not verdicts[0]
    assert 5 < sum(verdicts) < 35


def test_a_table_is_stale_after_half_the_skin_a_strain_or_nan():
    atoms = liquid(40, 8.0)
    spec = DeviceTableSpec.for_system(system(atoms), 4.0, SKIN, headroom=2.0)
    positions, cell = jnp.asarray(atoms.positions), jnp.asarray(atoms.cell.array)
    table = build(spec, positions, cell)
    assert not stale(spec, table, positions, cell)
    assert not stale(spec, table, positions.at[3, 1].add(0.499 * SKIN), cell)
    assert stale(spec, table, positions.at[3, 1].add(0.501 * SKIN), cell)
    assert not stale(spec, table, positions * 1.01, cell * 1.01)
    assert stale(spec, table, positions * 0.9, cell * 0.9)
    assert stale(spec, table, positions, cell * 0.9)
    assert stale(spec, table, positions.at[0].set(jnp.nan), cell)


@pytest.mark.parametrize("name", ["slab without third vector", "wire", "molecule", "upright slab"])
def test_a_table_of_an_unchanged_system_stays_valid(name):
    atoms, cutoff = CASES[name]
    spec, table = build_for(atoms, cutoff)
    assert not stale(spec, table, atoms.positions + 0.1 * SKIN, atoms.cell.array)


@pytest.mark.parametrize(("skin", "headroom"), [(-0.1, 1.2), (0.5, 1.0), (float("nan"), 1.2)])
def test_bad_sizes_are_refused(skin, headroom):
    with pytest.raises(ValueError, match="skin must be >= 0 and the headroom > 1"):
        DeviceTableSpec.for_system(system(Atoms("H")), 3.0, skin, headroom)


def test_a_search_too_large_for_its_integers_is_refused():
    spec = DeviceTableSpec(3.0, 0.5, 10**7, 60, (1, 1, 1), (True, True, True))
    with pytest.raises(ValueError, match="too many for a device table"):
        jax.eval_shape(partial(build_table, spec), jnp.zeros((500, 3)), jnp.eye(3))
