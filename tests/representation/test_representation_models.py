"""Classes, features and messages of real (tiny) models, and whole comparisons of them."""

import dataclasses

import jax
import numpy as np
import pytest
from ase.build import bulk, molecule
from tiny_nequip import LIKE_SEVENNET, SMALL, graph_of, random_params, skewed_crystal, slab, small_potential
from tiny_nequip import molecule as methanol
from tiny_potential import init_params, tiny_potential

from mlipjax.graph import edge_vectors
from mlipjax.models import nequip
from mlipjax.potential import Model
from mlipjax.representation import (
    Members,
    atom_elements,
    atom_structures,
    choose_pairs,
    choose_structures,
    compare,
    coordination,
    edge_messages,
    environment_classes,
    node_features,
    old_data_residual,
    usable,
)
from mlipjax.system import System


def system(name):
    return System.from_ase(molecule(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CH3CH2OH", {"C4": 2, "O2": 1, "H": 6}),
        ("C2H4", {"C3": 2, "H": 4}),
        ("HCN", {"H": 1, "C2": 1, "N1": 1}),
        ("CH3CONH2", {"C4": 1, "C3": 1, "O1": 1, "N3": 1, "H": 5}),
        ("C5H5N", {"C3": 5, "N2": 1, "H": 5}),
        ("CF4", {"C4": 1, "F": 4}),
    ],
)
def test_the_ten_classes_of_the_paper(name, expected):
    classes, counts = np.unique(environment_classes([system(name)]), return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == expected


def test_coordination_counts_periodic_images():
    assert coordination(System.from_ase(bulk("Si"))).tolist() == [4, 4]
    assert environment_classes([System.from_ase(bulk("NaCl", "rocksalt", 5.64))]).tolist() == ["Na6", "Cl6"]


def test_only_classes_with_enough_atoms_in_enough_structures_count():
    classes = np.array(["a"] * 12 + ["b"] * 12 + ["c"] * 12)
    structure = np.concatenate([np.arange(12), np.arange(12), np.zeros(12, int)])
    np.testing.assert_array_equal(usable(classes, structure), classes != "c")
    with pytest.raises(ValueError, match=r"fewer than two environment classes.*c \(12\)"):
        usable(classes[12:], structure[12:])


def test_structures_are_drawn_up_to_a_number_of_atoms():
    systems = [system("CH4")] * 10
    assert len(choose_structures(systems, 27)) == 5
    np.testing.assert_array_equal(choose_structures(systems, 1000), np.arange(10))


def test_features_are_those_of_the_layer_in_the_order_of_the_structures():
    potential = tiny_potential()
    params = init_params(potential)
    systems = [skewed_crystal(), methanol(), slab()]
    together = node_features(Model(potential, params), systems, layer=0, dtype="float64")
    graph = graph_of(*systems, cutoff=potential.cutoff)
    rows = np.flatnonzero(graph.atom_mask)
    features = jax.jit(potential.node_energy)(params, graph, graph.positions)[1]
    expected = np.asarray(features)[rows][:, potential.feature_slices[0]]
    np.testing.assert_allclose(together, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(atom_elements(systems), np.asarray(graph.atomic_numbers)[rows])
    np.testing.assert_array_equal(atom_structures(systems), np.asarray(graph.graph_index)[rows])
    with pytest.raises(ValueError, match="no layer 2: this model has 2"):
        node_features(Model(potential, params), systems, layer=2)


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(LIKE_SEVENNET, n_labels=0)], ids=["nequip", "sevennet"])
def test_messages_add_up_to_what_the_layer_sums(config):
    potential = nequip(config)
    params = random_params(potential)
    systems = [skewed_crystal(), methanol()]
    pairs = choose_pairs(systems, SMALL.cutoff, per_structure=10_000)
    graph = graph_of(*systems)
    recorded = linear_down_outputs(potential, params, graph)
    starts = np.array([0, systems[0].n_atoms])
    for layer in (0, 1):
        messages = edge_messages(Model(potential, params), systems, pairs, layer=layer, dtype="float64")
        assert len(messages) == graph.edge_mask.sum()
        total = np.zeros((int(graph.atom_mask.sum()), messages.shape[1]))
        np.add.at(total, pairs.receiver + starts[pairs.structure], messages)
        kernel = np.asarray(params[f"layer_{layer}"]["linear_down"]["0e"])
        expected = recorded[layer][np.flatnonzero(graph.atom_mask)]
        np.testing.assert_allclose(total @ kernel / np.sqrt(len(kernel)), expected, rtol=1e-9, atol=1e-11)


def linear_down_outputs(potential, params, graph):
    """Scalars (N, C) that every layer makes of the summed messages, recorded inside the network."""

    @jax.jit
    def record(params, graph):
        vectors = edge_vectors(graph, graph.positions, graph.cells)
        species = potential.species_index(graph.atomic_numbers)
        return potential.module.apply(
            {"params": params}, graph, vectors, species,
            capture_intermediates=lambda module, _: module.name == "linear_down", mutable=["intermediates"],
        )[1]["intermediates"]  # fmt: skip

    layers = record(params, graph)
    return [np.asarray(layers[f"layer_{i}"]["linear_down"]["__call__"][0][0])[:, 0, :] for i in range(len(layers))]


def test_messages_do_not_turn_with_the_structure_and_reach_the_cutoff_smoothly():
    potential, params, _ = small_potential()
    one = methanol()
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    turned = dataclasses.replace(one, positions=one.positions @ turn)
    pairs = choose_pairs([one], 3.0, per_structure=40)
    assert {"C-H", "H-C", "C-O", "O-H"} <= set(pairs.classes)
    before, after = (edge_messages(Model(potential, params), [s], pairs, dtype="float64") for s in (one, turned))
    np.testing.assert_allclose(before, after, rtol=1e-9, atol=1e-11)


def test_other_models_have_no_known_messages():
    potential = tiny_potential()
    pairs = choose_pairs([methanol()], 3.0)
    with pytest.raises(ValueError, match="known for NequIP models; this one is a TinyConfig"):
        edge_messages(Model(potential, init_params(potential)), [methanol()], pairs)


def clouds(rng, n_structures, noise):
    """Three classes of atoms per structure around fixed centres in eight channels."""
    centers = 4.0 * np.random.default_rng(0).standard_normal((3, 8))
    classes = np.tile(["C4", "C3", "H"], 4 * n_structures)
    members = Members(classes, np.repeat(np.arange(n_structures), 12), np.where(classes == "H", 1, 6))
    rows = np.tile([0, 1, 2], 4 * n_structures)
    return centers[rows] + noise * rng.standard_normal((len(rows), 8)), members


def test_a_model_compared_with_itself_has_not_moved():
    features, members = clouds(np.random.default_rng(1), 20, 1.0)
    result = compare({"a": features, "same": features.copy()}, members, n_resamples=20, maps=None)
    drift = result.drift["same"]
    for name, expected in {"cka": 1.0, "cka_within": 1.0, "wasserstein": 0.0, "sliced_wasserstein": 0.0}.items():
        assert drift[name].value == pytest.approx(expected, abs=1e-9)
    for name in ("angle_atoms_deg", "angle_channels_deg"):
        assert drift[name].value == pytest.approx(0.0, abs=1e-3)
    assert drift["davies_bouldin_original_ratio"].low == drift["davies_bouldin_original_ratio"].high == 1.0
    assert drift["q_before_under_after"].value == pytest.approx(1.0, rel=1e-4)


def test_a_collapsed_model_is_told_from_one_with_another_basis():
    rng = np.random.default_rng(2)
    features, members = clouds(rng, 20, 1.0)
    turned = features @ np.linalg.qr(rng.standard_normal((8, 8)))[0]
    line = np.ones((8, 1)) / np.sqrt(8)
    collapsed = features @ line @ line.T + 0.05 * features
    models = {"before": features, "turned": turned, "collapsed": collapsed, "wider": np.hstack([features, features])}
    result = compare(models, members, n_resamples=40, maps=None)
    assert result.n_members == 240
    assert result.classes == {"C3": 80, "C4": 80, "H": 80}
    turned, collapsed, wider = (result.drift[name] for name in ("turned", "collapsed", "wider"))
    assert turned["cka"].value == pytest.approx(1.0)
    assert turned["davies_bouldin_original_ratio"].value == pytest.approx(1.0)
    assert turned["angle_channels_deg"].value > 20.0
    assert turned["angle_atoms_deg"].value == pytest.approx(0.0, abs=1e-3)
    assert turned["wasserstein"].low > 0.5
    assert collapsed["effective_rank_within_ratio"].high < 0.7
    assert collapsed["davies_bouldin_original_ratio"].value > 1.1
    assert collapsed["cka_within"].high < 0.9
    assert turned["q_before_under_after"].value > 1.0
    assert wider["cka"].value == pytest.approx(1.0)
    assert "wasserstein" not in wider


def test_old_data_far_from_the_plane_of_the_new_have_a_large_q():
    features, members = clouds(np.random.default_rng(3), 20, 1.0)
    new, old = features.copy(), features.copy()
    new[:, 4:] *= 0.1  # the new data hardly vary in half of the channels
    new[:, 4:] += 10.0
    q = old_data_residual(new, members.elements, old, members.elements, members.structure, n_components=2)
    same = old_data_residual(new, members.elements, new, members.elements, members.structure, n_components=2)
    assert same.value == pytest.approx(1.0, rel=1e-3)
    assert q.low > 10.0
    with pytest.raises(ValueError, match="no element in common"):
        old_data_residual(new, members.elements, old, members.elements + 30, members.structure)


def test_features_that_are_not_finite_or_of_other_atoms_are_refused():
    features, members = clouds(np.random.default_rng(4), 10, 1.0)
    broken = features.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match="features of b are not finite"):
        compare({"a": features, "b": broken}, members)
    with pytest.raises(ValueError, match="b has features of 119 members, there are 120"):
        compare({"a": features, "b": features[1:]}, members)


def test_models_of_different_width_are_compared_from_structures_on():
    systems = [methanol(seed) for seed in range(12)]
    members = Members(environment_classes(systems), atom_structures(systems), atom_elements(systems))
    models = {"narrow": tiny_potential(width=8), "wide": tiny_potential(width=12)}
    features = {
        name: node_features(Model(model, init_params(model)), systems, dtype="float64")
        for name, model in models.items()
    }
    result = compare(features, members, n_resamples=10, maps=None)
    assert set(result.classes) == {"C4", "H", "O2"}
    drift = result.drift["wide"]
    assert 0.0 < drift["cka"].value < 0.999
    assert 0.0 < drift["cka_within"].value < 0.999
    assert "sliced_wasserstein" not in drift
