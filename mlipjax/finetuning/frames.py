"""Frames of the loop: their graphs and features, and batches of some of every stack, without padding between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlipjax.finetuning.setup import FrameStack
from mlipjax.finetuning.state import LabelBuffer, SystemState, system_key
from mlipjax.graph import GraphBatch, VerletSpec, build_table, fold_graphs, graph_from_table, join_graphs, pack_edges
from mlipjax.potential import Potential
from mlipjax.train import Batch
from mlipjax.typing import Array, Bool, Float, Int, Key, Params


def frame_graphs(spec: VerletSpec, system: SystemState, slots: Int[Array, " R"]) -> GraphBatch:
    """Graphs of frames in the buffer, one structure each, stacked along a leading axis R."""
    return graphs_at(spec, system, system.buffer.position[slots], system.buffer.cell[slots])


def graphs_at(
    spec: VerletSpec, system: SystemState, position: Float[Array, "R N 3"], cell: Float[Array, "R 3 3"]
) -> GraphBatch:
    """Graphs of a system elsewhere, one structure each, stacked along a leading axis R."""
    numbers, head = system.sim.atomic_numbers, system.sim.head

    def graph(frame: tuple[Array, Array]) -> GraphBatch:
        table = build_table(spec, *frame)
        candidates = graph_from_table(numbers, head, table, *frame)
        return pack_edges(candidates, spec.cutoff, spec.n_neighbors)[0]

    return jax.lax.map(graph, (position, cell))


def frame_features(potential: Potential, params: Params, graph: GraphBatch) -> Float[Array, "N F"]:
    """Invariant features of the last layer."""
    return potential.node_energy(params, graph, graph.positions)[1][:, potential.feature_slices[-1]]


def frame_weights(
    labels: LabelBuffer, weight: float | Array, age_weight: float | Array, round: Int[Array, ""]
) -> Float[Array, " C"]:
    """Factors of labels in the loss: ``weight * age_weight ** age``, the age in rounds.

    Args:
        labels: of a system; empty slots get a factor of no meaning.
        weight: of the system.
        age_weight: of every round of a label's age.
        round: now.
    """
    age = (round - labels.round).astype(labels.labels.energy.dtype)
    return weight * age_weight**age


def stack_buffer(
    batch_size: int, system: SystemState, graphs: GraphBatch, weight: float | Float[Array, " C"]
) -> FrameStack:
    """The frames of a system's buffer.

    Args:
        batch_size: of its frames in every optimiser step.
        system: with labels.
        graphs: of all slots of its buffer.
        weight: factor of labels in the loss.
    """
    labels = system.buffer.labels
    labels = dataclasses.replace(
        labels,
        energy=labels.energy - system.energy_shift,
        energy_weight=labels.energy_weight * weight,
        forces_weight=labels.forces_weight * weight,
        stress_weight=labels.stress_weight * weight,
    )
    return FrameStack(graphs, labels, system.buffer.labelled, batch_size)


class Share(NamedTuple):
    """Which part of a batch: number ``index`` of ``count`` equal ones, that divide the batch sizes of all stacks."""

    index: Int[Array, ""] | int
    count: int


def draw_batch(stacks: Sequence[FrameStack], key: Key, step: Int[Array, ""], share: Share | None = None) -> Batch:
    """The batch of a step: some frames of every stack, in a graph without padding atoms between them.

    Frames are drawn without replacement, epoch by epoch of their stack; the order is a function of key and step, so
    that training in pieces is training in one go.

    Args:
        stacks: of frames.
        key: decides the order.
        step: number of the step.
        share: a part of the batch; by default all of it.
    """
    graphs, labels = [], []
    for index, stack in enumerate(stacks):
        chosen = draw_frames(system_key(key, index), step, stack.labelled, stack.batch_size)
        if share is not None:
            chosen = chosen.reshape(share.count, -1)[share.index]
        graphs.append(fold_graphs(jax.tree.map(lambda x, chosen=chosen: x[chosen], stack.graphs)))
        own = jax.tree.map(lambda x, chosen=chosen: x[chosen], stack.labels)
        labels.append(dataclasses.replace(own, forces=own.forces.reshape(-1, 3)))
    return Batch(join_graphs(graphs), jax.tree.map(lambda *parts: jnp.concatenate(parts), *labels))


def draw_frames(key: Key, step: Array, labelled: Bool[Array, " C"], batch_size: int) -> Int[Array, " B"]:
    """Slots of the batch of a step: epochs of all labelled frames in random order, cut into batches."""
    n_labelled = jnp.maximum(jnp.sum(labelled), 1)

    def draw(position: Array) -> Array:
        order = jax.random.uniform(jax.random.fold_in(key, position // n_labelled), labelled.shape)
        return jnp.argsort(jnp.where(labelled, order, jnp.inf))[position % n_labelled]

    return jax.vmap(draw)(step * batch_size + jnp.arange(batch_size))
