"""Symmetries of the NequIP potential and the variants of its configuration."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tiny_nequip import (
    SMALL,
    SMALLEST,
    graph_of,
    molecule,
    predict,
    random_params,
    skewed_crystal,
    slab,
    small_potential,
)

from mlipjax.models import NequIPConfig, nequip

SYSTEMS = {"crystal": skewed_crystal, "molecule": molecule, "slab": slab}
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}

finite = st.floats(-1.0, 1.0, allow_nan=False)
rotations = st.tuples(finite, finite, finite, finite).filter(lambda q: np.linalg.norm(q) > 0.1)
structures = st.tuples(st.sampled_from(sorted(SYSTEMS)), st.integers(0, 3))


def build(structure):
    kind, seed = structure
    return SYSTEMS[kind](seed)


@settings(max_examples=15, deadline=None)
@given(structures, rotations, st.booleans())
def test_rotation_and_inversion(structure, quaternion, invert):
    system = build(structure)
    matrix = Rotation.from_quat(quaternion).as_matrix() * (-1.0 if invert else 1.0)
    rotated = system.replace(positions=system.positions @ matrix.T, cell=system.cell @ matrix.T)
    before, after = predict(system), predict(rotated)
    n = system.n_atoms
    np.testing.assert_allclose(after.energy, before.energy, **TOLERANCE)
    np.testing.assert_allclose(after.node_energy, before.node_energy, **TOLERANCE)
    np.testing.assert_allclose(after.features, before.features, **TOLERANCE)
    np.testing.assert_allclose(after.forces[:n], before.forces[:n] @ matrix.T, **TOLERANCE)
    np.testing.assert_allclose(after.stress[0], matrix @ before.stress[0] @ matrix.T, **TOLERANCE)
    assert np.abs(before.forces).max() > 0.01


@settings(max_examples=10, deadline=None)
@given(structures, st.tuples(finite, finite, finite), st.integers(0, 5))
def test_translation_also_by_lattice_vectors(structure, shift, seed):
    system = build(structure)
    # every atom to another periodic image, and all of them somewhere else
    images = np.random.default_rng(seed).integers(-2, 3, (system.n_atoms, 3)) * np.array(system.pbc)
    moved = system.replace(positions=system.positions + 10.0 * np.array(shift) + images @ system.cell)
    before, after = predict(system), predict(moved)
    for name in ("energy", "node_energy", "features", "forces", "stress"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-8, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(structures, st.randoms(use_true_random=False))
def test_permutation(structure, random):
    system = build(structure)
    order = list(range(system.n_atoms))
    random.shuffle(order)
    permuted = system.replace(positions=system.positions[order], atomic_numbers=system.atomic_numbers[order])
    before, after = predict(system), predict(permuted)
    np.testing.assert_allclose(after.energy, before.energy, **TOLERANCE)
    np.testing.assert_allclose(after.stress, before.stress, **TOLERANCE)
    n = system.n_atoms
    for name in ("node_energy", "features", "forces"):
        np.testing.assert_allclose(getattr(after, name)[:n], getattr(before, name)[order], **TOLERANCE)


def test_a_supercell_has_the_energy_per_atom_of_its_cell():
    system = skewed_crystal()
    offsets = np.array([np.zeros(3), system.cell[1]])
    doubled = system.replace(
        positions=np.concatenate([system.positions + offset for offset in offsets]),
        atomic_numbers=np.tile(system.atomic_numbers, 2),
        cell=system.cell * np.array([[1.0], [2.0], [1.0]]),
    )
    one, two = predict(system), predict(doubled)
    np.testing.assert_allclose(two.energy[0], 2.0 * one.energy[0], **TOLERANCE)
    np.testing.assert_allclose(two.stress[0], one.stress[0], **TOLERANCE)
    np.testing.assert_allclose(two.forces[:10], np.tile(one.forces[:5], (2, 1)), **TOLERANCE)


def test_one_by_one_equals_batched():
    systems = [skewed_crystal(), molecule(), slab()]
    batched = predict(*systems)
    start = 0
    for i, system in enumerate(systems):
        single = predict(system)
        rows = slice(start, start + system.n_atoms)
        np.testing.assert_allclose(batched.energy[i], single.energy[0], **TOLERANCE)
        np.testing.assert_allclose(batched.stress[i], single.stress[0], **TOLERANCE)
        for name in ("node_energy", "features", "forces"):
            np.testing.assert_allclose(
                getattr(batched, name)[rows], getattr(single, name)[: system.n_atoms], **TOLERANCE
            )
        start += system.n_atoms


def test_padding_changes_nothing_and_predicts_zero():
    _, params, apply = small_potential()
    system = skewed_crystal()
    padded = apply(params, graph_of(system))
    exact = apply(params, graph_of(system, n_atoms=5, n_neighbors=None, n_graphs=1))
    np.testing.assert_allclose(padded.energy, [exact.energy[0], 0.0, 0.0], **TOLERANCE)
    np.testing.assert_allclose(padded.stress, [exact.stress[0], *np.zeros((2, 3, 3))], **TOLERANCE)
    for name in ("node_energy", "features", "forces"):
        value, expected = getattr(padded, name), getattr(exact, name)
        np.testing.assert_allclose(value[:5], expected, **TOLERANCE)
        np.testing.assert_array_equal(value[5:], 0.0)


def test_what_stands_in_padding_does_not_matter():
    _, params, apply = small_potential()
    graph = graph_of(skewed_crystal())
    rng = np.random.default_rng(0)
    unused_atoms, unused_slots = ~graph.atom_mask, ~graph.edge_mask
    poisoned = graph.replace(
        positions=np.where(unused_atoms[:, None], rng.normal(size=(16, 3)), graph.positions),
        atomic_numbers=np.where(unused_atoms, 8, graph.atomic_numbers),
        shifts=np.where(unused_slots[..., None], 2, graph.shifts),
        neighbors=np.where(unused_slots, 3, graph.neighbors),
    )
    for value, expected in zip(
        jax.tree.leaves(apply(params, poisoned)), jax.tree.leaves(apply(params, graph)), strict=True
    ):
        np.testing.assert_array_equal(value, expected)


def test_nothing_jumps_at_the_cutoff():
    # two atoms: an edge less, and its energy, forces and features leave without a step
    positions = np.zeros((2, 3))
    energies = []
    for distance in (SMALL.cutoff - 1e-4, SMALL.cutoff + 1e-4):
        positions[1, 0] = distance
        pair = molecule().replace(positions=positions.copy(), atomic_numbers=np.array([6, 8], np.int32))
        energies.append(predict(pair))
    inside, outside = energies
    np.testing.assert_allclose(inside.node_energy, outside.node_energy, atol=1e-9)
    np.testing.assert_allclose(inside.features, outside.features, atol=1e-9)
    np.testing.assert_allclose(inside.forces, outside.forces, atol=1e-6)
    np.testing.assert_array_equal(outside.forces, 0.0)


# Variants of the configuration


def energies(potential, params, graph):
    return np.asarray(jax.jit(lambda p, g: potential.apply(p, g, stress=False).node_energy)(params, graph))


def test_heads_share_the_backbone_and_are_chosen_per_structure():
    two_heads = nequip(dataclasses.replace(SMALLEST, heads=("pbe", "xtb")))
    params = random_params(two_heads)
    assert params["readout_pbe"]["kernel"].shape == params["readout_xtb"]["kernel"].shape == (4, 1)
    graph = graph_of(molecule(), molecule(), n_graphs=2)
    both = energies(two_heads, params, graph.replace(head=np.array([0, 1], np.int32)))
    one_head = nequip(SMALLEST)
    backbone = {name: value for name, value in params.items() if name.startswith("layer")}
    run = jax.jit(lambda p: one_head.apply(p, graph, stress=False).node_energy)
    for rows, head in ((slice(0, 6), "pbe"), (slice(6, 12), "xtb")):
        expected = run(backbone | {"readout_energy": params[f"readout_{head}"]})
        np.testing.assert_allclose(both[rows], expected[rows], rtol=1e-12)
    assert np.abs(both[:6] - both[6:12]).max() > 0.01


def test_scale_and_shift_are_numbers_or_one_per_element():
    graph = graph_of(molecule())
    row = np.searchsorted(SMALLEST.species, graph.atomic_numbers[:6])
    params = random_params(nequip(SMALLEST))
    raw = energies(nequip(dataclasses.replace(SMALLEST, scale=1.0, shift=0.0)), params, graph)[:6]
    scale, shift = (0.5, 1.0, 2.0), (-1.0, 0.0, 3.0)
    per_element = energies(nequip(dataclasses.replace(SMALLEST, scale=scale, shift=shift)), params, graph)[:6]
    np.testing.assert_allclose(per_element, raw * np.array(scale)[row] + np.array(shift)[row], rtol=1e-12)
    one_number = energies(nequip(SMALLEST), params, graph)[:6]
    np.testing.assert_allclose(one_number, raw * SMALLEST.scale + SMALLEST.shift, rtol=1e-12)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_skip_weights_per_species(layer_norm):
    config = dataclasses.replace(SMALLEST, layer_norm=layer_norm)
    shared, per_species = nequip(config), nequip(dataclasses.replace(config, per_species_skip=True))
    params = random_params(shared)
    graph = graph_of(molecule())
    # equal weights for all elements are shared weights
    spread = {
        name: value
        if name.startswith("readout")
        else value | {"skip": {k: np.tile(v, (3,) + (1,) * v.ndim) for k, v in value["skip"].items()}}
        for name, value in params.items()
    }
    assert spread["layer_0"]["skip"]["0e"].shape == (3, 3, 7)
    run = jax.jit(lambda p: per_species.apply(p, graph, stress=False).node_energy)
    np.testing.assert_allclose(run(spread), energies(shared, params, graph), rtol=1e-12)
    # weights of an element act on its atoms only (first in the last layer, which nothing follows)
    before = np.asarray(run(spread))
    spread["layer_1"]["skip"]["0e"][2] *= 2.0
    changed = np.asarray(run(spread)) != before
    np.testing.assert_array_equal(changed, graph.atomic_numbers == 8)


def test_irreps_no_path_reaches_are_left_out():
    config = dataclasses.replace(SMALL, hidden_irreps="8x0e + 2x0o + 4x1o + 3x1e + 4x2e + 2x3o", n_layers=4)
    layers = [" + ".join(map(str, config.layer_irreps(i))) for i in range(4)]
    assert layers == [
        "8x0e + 4x1o + 4x2e",
        "8x0e + 4x1o + 3x1e + 4x2e + 2x3o",
        "8x0e + 2x0o + 4x1o + 3x1e + 4x2e + 2x3o",
        "8x0e",
    ]
    potential = nequip(config)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    assert sorted(shapes["layer_2"]["linear_up"]) == ["0e", "1e", "1o", "2e", "3o"]
    prediction = jax.eval_shape(potential.apply, shapes, graph_of(molecule(), dtype=np.float32))
    assert prediction.features.shape == (16, 32)


@pytest.mark.slow
@pytest.mark.parametrize("invert", [False, True])
def test_irreps_of_both_parities_are_equivariant(invert):
    potential = nequip(dataclasses.replace(SMALL, hidden_irreps="8x0e + 2x0o + 4x1o + 3x1e + 3x2o", n_layers=4))
    params, apply = random_params(potential), jax.jit(potential.apply)
    matrix = Rotation.random(random_state=0).as_matrix() * (-1.0 if invert else 1.0)
    system = skewed_crystal()
    rotated = system.replace(positions=system.positions @ matrix.T, cell=system.cell @ matrix.T)
    before, after = (apply(params, graph_of(s)) for s in (system, rotated))
    np.testing.assert_allclose(after.node_energy, before.node_energy, **TOLERANCE)
    np.testing.assert_allclose(after.forces, before.forces @ matrix.T, **TOLERANCE)
    np.testing.assert_allclose(after.stress, matrix @ before.stress @ matrix.T, **TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": (8, 1)}, "species must be ascending atomic numbers"),
        ({"species": ()}, "species must be ascending atomic numbers"),
        ({"hidden_irreps": "4x1o"}, "hidden_irreps needs even scalars"),
        ({"scale": (1.0, 2.0)}, r"scale needs one number or one per element \(3\), found 2"),
        ({"shift": (1.0,) * 4}, r"shift needs one number or one per element \(3\), found 4"),
    ],
)
def test_configurations_that_fit_no_potential_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NequIPConfig(**({"species": (1, 6, 8)} | changes))


def test_e0s_must_fit_species_and_heads():
    config = dataclasses.replace(SMALLEST, heads=("a", "b"))
    np.testing.assert_array_equal(nequip(config).e0s, np.zeros((2, 3)))
    np.testing.assert_array_equal(nequip(config, np.arange(3.0)).e0s, [[0.0, 1.0, 2.0]] * 2)
    with pytest.raises(ValueError, match=r"e0s must have shape \(2, 3\) or \(3,\), found \(2,\)"):
        nequip(config, np.zeros(2))
