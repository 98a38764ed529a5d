"""Labelled frames that a run is given: sizes, shares of a batch, and stacks that are what the model sees elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import atoms, molecule, potential

from mlipjax.data import Dataset, Example
from mlipjax.finetuning.frames import draw_batch, frame_weights
from mlipjax.finetuning.given import make_stack, share_batch, size_groups
from mlipjax.finetuning.state import LabelBuffer
from mlipjax.graph import batch_graphs
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.system import Labels, System


def frames():
    """Structures of two sizes with made-up labels; one has no forces and one no energy."""
    rng = np.random.default_rng(0)
    examples = []
    for number, structure in enumerate((atoms(), molecule(), atoms(), molecule())):
        structure.rattle(0.05, seed=number)
        system = System.from_ase(structure)
        energy = None if number == 1 else -900.0 + rng.normal()
        forces = None if number == 2 else rng.normal(size=(system.n_atoms, 3))
        examples.append(Example(system, Labels.create(system.n_atoms, energy, forces), {}))
    return Dataset.from_examples(examples)


def test_structures_are_grouped_so_that_less_than_half_is_padding():
    groups = size_groups([6, 4, 100, 5, 128, 2])
    assert [group.tolist() for group in groups] == [[5], [1], [0, 3], [2, 4]]


@pytest.mark.parametrize(
    ("size", "amounts", "most", "expected"),
    [
        (5, [25], [5], [5]),
        (5, [25], [3], [3]),
        (6, [10, 10], [5, 5], [3, 3]),
        (5, [10, 10], [5, 5], [3, 2]),
        (2, [5, 5, 90], [5, 5, 90], [1, 1, 1]),
        (8, [25, 175], [5, 175], [1, 7]),
    ],
)
def test_a_batch_is_shared_in_proportion_and_each_has_one(size, amounts, most, expected):
    assert share_batch(size, amounts, most) == expected


def test_labels_count_less_with_every_round_of_their_age():
    buffer = LabelBuffer.empty(System.from_ase(atoms()), 4, "float32").replace(round=jnp.array([0, 1, 2, 2]))
    found = frame_weights(buffer, 2.0, 0.5, jnp.asarray(2))
    np.testing.assert_array_equal(found, [0.5, 1.0, 2.0, 2.0])
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(frame_weights(buffer, 1.0, 1.0, jnp.asarray(2)), 1.0)


def test_a_stack_of_padded_frames_has_the_loss_of_the_same_frames_put_together_on_the_host():
    model, data = potential(), frames()
    params = model.init(jax.random.key(0), jnp.float64)
    stack = make_stack(model, data, 4, "float64")
    assert stack.graphs.positions.shape[:2] == (4, 6)
    batch = draw_batch([stack], jax.random.key(1), jnp.asarray(0))

    def loss(graph, labels):
        return huber_loss()(model.apply(params, graph), labels, graph, LossWeights())[0]

    graph = batch_graphs(data.systems, model.cutoff, n_atoms=20, n_graphs=4, dtype=np.float64)
    labels = Labels(
        energy=np.array([
            label.energy - model.reference_energy(system.atomic_numbers) for system, label, _ in data
        ]),
        forces=np.concatenate([label.forces for label in data.labels]),
        stress=np.stack([label.stress for label in data.labels]),
        **{
            name: np.array([getattr(label, name) for label in data.labels])
            for name in ("energy_weight", "forces_weight", "stress_weight")
        },
    )  # fmt: skip
    expected = loss(jax.tree.map(jnp.asarray, graph), jax.tree.map(lambda leaf: jnp.nan_to_num(leaf), labels))
    assert float(loss(batch.graph, batch.labels)) == pytest.approx(float(expected), rel=1e-9)
