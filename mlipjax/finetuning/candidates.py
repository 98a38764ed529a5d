"""Frames that are chosen to be labelled: what is known of the candidates of a round, and the choice among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mlipjax.finetuning.frames import frame_features, frame_graphs, graphs_at
from mlipjax.finetuning.selection import at_intervals, at_random, element_features, farthest, largest, scales_of
from mlipjax.finetuning.setup import Controls, Setup, SystemSetup
from mlipjax.finetuning.state import Candidates, FineTuneState, SystemState, system_key
from mlipjax.graph import GraphBatch
from mlipjax.monitoring import FRAME_INDICES, read_graph
from mlipjax.potential import Model
from mlipjax.precision import exact
from mlipjax.typing import Array, Bool, Float, Int, Key, Params
from mlipjax.uncertainty import Rigidity, last_layer_paths
from mlipjax.uncertainty.last_layer import training_rows

_MOVES = 4
"""Random moves of a labelled frame that stand for its forces in the posterior."""
_RIDGE = 1e-4
"""``s^2`` of the posterior as a fraction of the mean eigenvalue: what float32 resolves."""
_SELECTION = 0x5345_4C45
"""Another stream than that of velocities after an alarm."""


def select_frames(
    setup: Setup, state: FineTuneState, systems: Sequence[SystemState], controls: Controls
) -> tuple[list[SystemState], list[Int[Array, " K"]]]:
    """Choose among the candidates of every system, and put the chosen frames into its buffer, in the order of time.

    All that is learnt from labels (posterior, charts, what is known already) is learnt from those of earlier rounds.

    Args:
        setup: static parts, with the way of choosing.
        state: of the run, by the beginning of the round or later.
        systems: with all candidates of the round.
        controls: the numbers of the run.

    Returns:
        the systems, and which of the candidates of each were chosen.
    """
    params = jax.lax.stop_gradient(state.train.ema_params)
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.round), _SELECTION)
    rigidity, n_known = None, jnp.zeros((), jnp.int32)
    if setup.config.select in ("uncertain", "uncertain-diverse"):
        rigidity, n_known = _posterior(setup, params, systems, controls, key)
    found, chosen = [], []
    for index, (own, system) in enumerate(zip(setup.systems, systems, strict=True)):
        assert system.candidates is not None
        rows = _choose(setup, own, params, system, (rigidity, n_known > 0, system_key(key, index)))
        position, cell = system.candidates.position[rows], system.candidates.cell[rows]
        buffer = system.buffer.append(position, cell, state.round)
        emptied = dataclasses.replace(system.candidates, count=jnp.zeros_like(system.candidates.count))
        found.append(dataclasses.replace(system, buffer=buffer, candidates=emptied))
        chosen.append(rows)
    return found, chosen


def _choose(
    setup: Setup,
    own: SystemSetup,
    params: Params,
    system: SystemState,
    known: tuple[Rigidity | None, Bool[Array, ""], Key],
) -> Int[Array, " K"]:
    """Indices of the candidates of a system that are labelled."""
    rigidity, is_known, key = known
    candidates, select = jax.lax.stop_gradient(system.candidates), setup.config.select
    assert isinstance(candidates, Candidates)
    total, n_replicas = len(candidates.position), system.sim.n_replicas
    n = total // own.sample_factor
    if select == "random":
        return at_random(key, total, n)
    intervals = at_intervals(total, n, n_replicas)
    graphs = graphs_at(own.spec, system, candidates.position, candidates.cell)
    if select == "alarm":
        index, has_limit = _alarm_index(setup, params, system, graphs)
        return jnp.where(has_limit, largest(index, n), intervals)
    std = None if rigidity is None else _force_std(setup, params, rigidity, graphs)
    if select == "uncertain":
        assert std is not None
        return jnp.where(is_known, largest(std, n), intervals)
    labelled = frame_graphs(own.spec, system, jnp.arange(len(system.buffer.labelled)))
    features, others = (_described(setup, params, system, part) for part in (graphs, labelled))
    scale = scales_of(features, len(setup.potential.species))[None, :]
    return farthest(features / scale, n, others / scale, system.buffer.labelled, std)


def _described(setup: Setup, params: Params, system: SystemState, graphs: GraphBatch) -> Float[Array, "C D"]:
    """Features per element of stacked frames."""
    features = jax.lax.map(lambda graph: frame_features(setup.potential, params, graph), graphs)
    species = setup.potential.species_index(system.sim.atomic_numbers)
    return element_features(features, species, len(setup.potential.species))


def _alarm_index(
    setup: Setup, params: Params, system: SystemState, graphs: GraphBatch
) -> tuple[Float[Array, " P"], Bool[Array, ""]]:
    """The deciding index of the charts for every candidate, and whether there are limits by now."""
    charts, alarm = system.monitor, setup.config.alarm
    assert charts is not None
    assert alarm is not None
    k, rows = FRAME_INDICES.index(alarm.index), setup.potential.species_index(system.sim.atomic_numbers)
    model = Model(setup.potential, params)
    index = jax.lax.map(lambda graph: read_graph(*model, charts, rows, graph).frame[0, k], graphs)
    return index, jnp.isfinite(charts.frame_limits[k])


def _force_std(setup: Setup, params: Params, rigidity: Rigidity, graphs: GraphBatch) -> Float[Array, " P"]:
    """Root mean square over the atoms of a frame of the error bars of forces; their unit is arbitrary."""

    def one(graph: GraphBatch) -> Array:
        found = rigidity.spread(setup.potential, params, graph)
        return jnp.sqrt(jnp.sum(found.forces**2) / (3.0 * jnp.sum(graph.atom_mask)))

    return jax.lax.map(one, graphs)


@exact
def _posterior(
    setup: Setup, params: Params, systems: Sequence[SystemState], controls: Controls, key: Key
) -> tuple[Rigidity, Int[Array, ""]]:
    """Posterior of the last layer by the forces of all labelled frames, and how many these are.

    Its scale is arbitrary, which no choice depends on.
    """
    potential = setup.potential
    paths = last_layer_paths(params, potential.heads[0])
    stacks = [(stack.graphs, stack.labelled) for stack in controls.given]
    for own, system in zip(setup.systems, systems, strict=True):
        slots = jnp.arange(len(system.buffer.labelled))
        stacks.append((frame_graphs(own.spec, system, slots), system.buffer.labelled))
    total, count = jnp.zeros(()), jnp.zeros((), jnp.int32)
    for number, (graphs, labelled) in enumerate(stacks):
        keys = jax.random.split(jax.random.fold_in(key, number), len(labelled))

        def gram(one: tuple[GraphBatch, Array]) -> Array:
            rows = training_rows(potential, params, one[0], paths, one[1], _MOVES)[1]
            rows = rows.reshape(-1, rows.shape[-1])
            return rows.T @ rows

        grams = jax.lax.map(gram, (graphs, keys))
        total = total + jnp.sum(jnp.where(labelled[:, None, None], grams, 0.0), axis=0)
        count = count + jnp.sum(labelled)
    eigenvalues, basis = jnp.linalg.eigh(jax.lax.stop_gradient(total))
    eigenvalues = jnp.maximum(eigenvalues, 0.0)
    ridge = jnp.where(count > 0, _RIDGE * jnp.mean(eigenvalues), 1.0)
    return Rigidity(basis, eigenvalues, ridge, jnp.ones(2, basis.dtype), paths), count
