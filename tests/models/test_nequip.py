"""Symmetries of the NequIP potential and the variants of its configuration."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_nequip import (
    LIKE_SEVENNET,
    SMALL,
    SMALLEST,
    graph_of,
    molecule,
    random_params,
    skewed_crystal,
)

from mlipjax.models import NequIPConfig, nequip

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


def test_without_parity_a_chiral_structure_differs_from_its_mirror_image():
    system = skewed_crystal()
    mirrored = system.replace(positions=-system.positions, cell=-system.cell)
    for config, differ in ((LIKE_SEVENNET, True), (SMALLEST, False)):
        potential = nequip(config)
        params = random_params(potential)
        one, other = (energies(potential, params, graph_of(s)).sum() for s in (system, mirrored))
        assert (abs(one - other) > 1e-6) == differ


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": (8, 1)}, "species must be ascending atomic numbers"),
        ({"species": ()}, "species must be ascending atomic numbers"),
        ({"hidden_irreps": "4x1o"}, "hidden_irreps needs even scalars"),
        ({"scale": (1.0, 2.0)}, r"scale needs one number or one per element \(3\), found 2"),
        ({"shift": (1.0,) * 4}, r"shift needs one number or one per element \(3\), found 4"),
        ({"parity": False}, "irreps of a model without parity are all 'e'"),
        ({"envelope_onset": 6.0}, "envelope_onset must be below the cutoff"),
        ({"n_labels": 2}, "n_labels needs an embedding"),
    ],
)
def test_configurations_that_fit_no_potential_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        NequIPConfig(**({"species": (1, 6, 8)} | changes))


def test_stores_and_checkpoints_know_a_model_by_the_settings_of_its_time():
    first = (
        "NequIPConfig(species=(1, 8), cutoff=6.0, hidden_irreps='64x0e + 32x1o + 16x2e', lmax=2, n_layers=3, "
        "radial_basis_size=8, radial_hidden=(64, 64), radial_gain=4.0, envelope_p=6.0, layer_norm=True, "
        "per_species_skip=False, avg_n_neighbors=30.0, scale=1.0, shift=0.0, heads=('energy',))"
    )
    assert repr(NequIPConfig((1, 8))) == first
    assert repr(NequIPConfig((1, 8), envelope_onset=5.0)) == first[:-1] + ", envelope_onset=5.0)"


def test_e0s_must_fit_species_and_heads():
    config = dataclasses.replace(SMALLEST, heads=("a", "b"))
    np.testing.assert_array_equal(nequip(config).e0s, np.zeros((2, 3)))
    np.testing.assert_array_equal(nequip(config, np.arange(3.0)).e0s, [[0.0, 1.0, 2.0]] * 2)
    with pytest.raises(ValueError, match=r"e0s must have shape \(2, 3\) or \(3,\), found \(2,\)"):
        nequip(config, np.zeros(2))
