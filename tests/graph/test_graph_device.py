import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from graph_cases import CASES, ase_edges, assert_reversal, liquid, system, table_edges
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mlipjax.graph import VerletSpec, bins, build_table, needs_rebuild
from mlipjax.graph.bins import Bins, choose_bins
from mlipjax.lattice import completed, heights

SKIN = 0.37
build = jax.jit(build_table, static_argnums=0)
stale = jax.jit(needs_rebuild, static_argnums=0)


def build_for(atoms, cutoff, dtype=np.float64, **changes):
    spec = dataclasses.replace(VerletSpec.for_systems([system(atoms)], cutoff, SKIN), **changes)
    return spec, build(spec, atoms.positions.astype(dtype), atoms.cell.array.astype(dtype))


@pytest.mark.parametrize("name", CASES)
def test_edges_are_those_of_ase(name):
    atoms, cutoff = CASES[name]
    spec, table = build_for(atoms, cutoff)
    assert not table.overflow
    assert table.neighbors.shape == (len(atoms), spec.n_candidates)
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
    images = (4 * pbc[0], 4 * pbc[1], 4 * pbc[2])
    spec = VerletSpec(3.0, 0.5, pbc, True, Bins((1, 1, 1), images, 3), 60, 60)
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
        assert thin or counts.max() > 60


def test_every_overflow_is_flagged():
    atoms, cutoff = liquid(50, 8.5), 4.0
    counts = np.bincount(ase_edges(atoms, cutoff + SKIN)[:, 0])
    spec, table = build_for(atoms, cutoff, n_candidates=int(counts.max()))
    assert not table.overflow
    assert build_for(atoms, cutoff, n_candidates=int(counts.max()) - 1)[1].overflow
    assert build(spec, atoms.positions * np.nan, atoms.cell.array).overflow
    # a cell that has become so thin that more images are in reach, with room for their edges
    thin = atoms.copy()
    thin.set_cell(atoms.cell.array * [[1.0], [1.0], [0.3]], scale_atoms=True)
    roomy = dataclasses.replace(spec, n_candidates=300)
    assert build(roomy, thin.positions, thin.cell.array).overflow
    refitted = roomy.grown([system(thin)])
    table = build(refitted, thin.positions, thin.cell.array)
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), ase_edges(thin, cutoff + SKIN))


def test_atoms_that_gather_in_one_bin_are_flagged_and_fit_after_growth():
    atoms = liquid(400, 20.0)
    spec, table = build_for(atoms, 2.0)
    assert min(spec.bins.number) > 3
    assert not table.overflow
    crowded = atoms.copy()
    crowded.positions[:60] = 2.0 + 0.02 * crowded.positions[:60]
    roomy = dataclasses.replace(spec, n_candidates=100)
    assert build(roomy, crowded.positions, crowded.cell.array).overflow
    refitted = roomy.grown([system(crowded)])
    assert refitted.bins.number == spec.bins.number
    table = build(refitted, crowded.positions, crowded.cell.array)
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), ase_edges(crowded, 2.0 + SKIN))


def _crowd(seed, pbc):
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(6.0, 16.0, 3)) + rng.normal(size=(3, 3)) * 2.0
    return Atoms("H90", positions=rng.uniform(-1.0, 2.0, (90, 3)) @ cell, cell=cell, pbc=pbc)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), pbc=st.sampled_from(PERIODICITIES))
def test_many_bins_in_cells_of_any_angles(seed, pbc):
    atoms = _crowd(seed, pbc)
    spec = VerletSpec(2.2, SKIN, pbc, True, Bins((3, 2, 4), (2, 2, 3), 90), 60, 60)
    table = build(spec, atoms.positions, atoms.cell.array)
    if not table.overflow:
        np.testing.assert_array_equal(table_edges(table), ase_edges(atoms, spec.reach))
        assert_reversal(table)
    else:
        lengths = np.where(pbc, heights(completed(atoms.cell.array, pbc)), np.inf)
        assert (lengths / [3, 2, 4] * [2, 2, 3] < spec.reach * 1.001).any()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), pbc=st.sampled_from(PERIODICITIES), fineness=st.integers(0, 2))
def test_bins_that_are_chosen_have_room_and_reach_all_partners(seed, pbc, fineness):
    atoms = _crowd(seed, pbc)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bins, "_FINENESS", bins._FINENESS[fineness : fineness + 1])
        chosen = choose_bins([system(atoms)], 2.2)
    away, fractional, _ = bins._placed(atoms.positions, atoms.cell.array, pbc, np)
    home = bins._bin_of(fractional, chosen.number, chosen.images, 2.2, pbc, np)
    assert np.bincount(np.ravel_multi_index(home.T, chosen.number)).max() <= chosen.occupancy
    first, second, *shift = ase_edges(atoms, 2.2).T
    between = (
        home[second] - home[first] + (np.stack(shift, 1) + (away[second] - away[first]).astype(int)) * chosen.number
    )
    assert (np.abs(between) <= chosen.images).all()


@pytest.mark.parametrize("block", [64, 1000])
def test_blocks_of_atoms_give_the_table_of_all_at_once(monkeypatch, block):
    atoms = liquid(300, 18.0)
    spec, whole = build_for(atoms, 2.5)
    monkeypatch.setattr(bins, "AT_ONCE", block * spec.bins.partners)
    table = jax.jit(lambda *at: build_table(spec, *at))(atoms.positions, atoms.cell.array)
    jax.tree.map(np.testing.assert_array_equal, table, whole)


def test_sizes_for_several_states_hold_each_of_them():
    atoms = liquid(50, 8.0)
    denser = atoms.copy()
    denser.set_cell(atoms.cell.array * 0.93, scale_atoms=True)
    spec = VerletSpec.for_systems([system(atoms), system(denser)], 4.0, SKIN)
    table = build(spec, denser.positions, denser.cell.array)
    assert not table.overflow
    np.testing.assert_array_equal(table_edges(table), ase_edges(denser, 4.0 + SKIN))


def test_sizes_grow_to_what_was_counted_and_grow_in_any_case():
    structure = system(liquid(50, 8.0))
    spec = VerletSpec.for_systems([structure], 4.0, SKIN)
    assert spec.grown([structure], 100).n_neighbors == 108  # five per cent more, in fours
    again = spec.grown([structure])
    assert min(again.bins.images) > max(spec.bins.images)
    assert again.bins.occupancy > spec.bins.occupancy
    for name in ("n_candidates", "n_neighbors"):
        assert getattr(again, name) > getattr(spec, name)


def test_sizes_are_read_from_json_as_they_are_written_and_as_they_were():
    spec = VerletSpec.for_systems([system(liquid(50, 8.0))], 4.0, SKIN)
    fields = json.loads(json.dumps(spec.to_json()))
    assert VerletSpec.from_json(fields) == spec
    structure = liquid(50, 8.0)
    former = {name: fields[name] for name in ("cutoff", "skin", "pbc")} | {"n_edges": 4000, "images": [1, 1, 1]}
    flat = former | {name: fields[name] for name in ("has_volume", "n_candidates", "n_neighbors")}
    nested = {
        "candidates": former | {"n_neighbors": spec.n_candidates},
        "n_neighbors": spec.n_neighbors,
        "periodic": True,
    }
    assert VerletSpec.from_json(flat) == VerletSpec.from_json(nested)
    table = build(VerletSpec.from_json(flat), structure.positions, structure.cell.array)
    np.testing.assert_array_equal(table_edges(table), ase_edges(structure, 4.0 + SKIN))
    wrong_bins = [[[0, 1, 1], [1, 1, 1], 50], [[1, 1], [1, 1], 50], [[1, 1, 1], [1, 1, 1], -1]]
    for broken in (
        {"n_candidates": -1},
        {"skin": "wide"},
        {"pbc": [1, 1, 0]},
        *({"bins": wrong} for wrong in wrong_bins),
    ):
        with pytest.raises(ValueError, match="expected sizes of neighbour tables"):
            VerletSpec.from_json(fields | broken)


def test_vmap_over_replicas_with_their_own_cells_equals_single_builds():
    atoms = liquid(40, 8.0)
    spec = VerletSpec.for_systems([system(atoms)], 4.0, SKIN)
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
    spec = VerletSpec.for_systems([system(atoms)], 4.0, SKIN)
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
    spec = VerletSpec.for_systems([system(atoms)], 4.0, SKIN)
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
    spec = VerletSpec.for_systems([system(atoms)], 4.0, SKIN)
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


@pytest.mark.parametrize("skin", [-0.1, float("nan")])
def test_bad_sizes_are_refused(skin):
    with pytest.raises(ValueError, match="must be 0 or more"):
        VerletSpec.for_systems([system(Atoms("H"))], 3.0, skin)


def test_a_search_too_large_for_its_integers_is_refused():
    spec = VerletSpec(3.0, 0.5, (True,) * 3, True, Bins((100, 100, 100), (1, 1, 1), 60), 1000, 60)
    with pytest.raises(ValueError, match="too many for a device table"):
        jax.eval_shape(partial(build_table, spec), jnp.zeros((2_200_000, 3)), jnp.eye(3))
