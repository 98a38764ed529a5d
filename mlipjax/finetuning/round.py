"""The pieces of a round, and the round itself: sample, label, chart, train.

All are pure functions. ``run_compiled`` scans ``make_round``; ``HostLoop`` calls the same pieces one by one, with an
oracle that lives outside JAX and a checkpoint in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from mlipjax.finetuning.alarm import cross_limits, end_round
from mlipjax.finetuning.sample import SampleInfo, sample_frame
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState, FrameErrors, LabelBuffer, RoundInfo
from mlipjax.graph import GraphBatch, build_table, fold_graphs, graph_from_table, pack_edges
from mlipjax.md.state import rebuild, refresh
from mlipjax.monitoring import MonitorState, fit_charts
from mlipjax.oracles import JittableOracle
from mlipjax.potential import Potential
from mlipjax.system import Labels
from mlipjax.train import Batch, StepInfo, TrainState, train_step
from mlipjax.typing import Array, Bool, Float, Int, Params


def make_round(
    setup: Setup, oracle: JittableOracle, offsets: Array
) -> Callable[[FineTuneState, Controls], tuple[FineTuneState, RoundInfo]]:
    """One round as a pure function ``(state, controls) -> (state, info)``: it can be scanned, mapped, differentiated.

    Args:
        setup: static parts.
        oracle: one that can live inside a compiled program.
        offsets: (119,) eV, from ``oracles.energy_offsets``.
    """
    config = setup.config

    def run(state: FineTuneState, controls: Controls) -> tuple[FineTuneState, RoundInfo]:
        first = state.buffer.count
        sample = partial(sample_frame, setup)

        def interval(state: FineTuneState, _: None) -> tuple[FineTuneState, SampleInfo]:
            return sample(state, controls)

        sampler = state.train.ema_params
        state, (md, fresh, reading) = jax.lax.scan(interval, state, length=config.labels_per_replica)
        alarmed = _alarmed(state)
        slots = first + jnp.arange(config.labels_per_replica * state.sim.n_replicas)
        # found once a round: its new frames are labelled, all of them train and are charted
        buffered = frame_graphs(setup, state, jnp.arange(state.buffer.labelled.shape[0]))
        graphs = jax.tree.map(lambda x: x[slots], buffered)
        labels = jax.lax.map(partial(label_one, oracle, offsets), graphs)
        fresh = fresh.reshape(-1)
        good = jnp.isfinite(labels.energy) & jnp.all(jnp.isfinite(labels.forces), axis=(1, 2)) & fresh
        state = dataclasses.replace(state, buffer=state.buffer.set_labels(slots, labels, good))
        energies, forces = predict_frames(setup, sampler, graphs)
        if config.estimate_shift:
            difference = jnp.sum(jnp.where(good, labels.energy - energies, 0.0)) / jnp.maximum(jnp.sum(good), 1)
            shift = jnp.where(state.round == 0, difference, state.energy_shift)
            state = dataclasses.replace(state, energy_shift=shift.astype(state.energy_shift.dtype))
        # for reading; the slope of a root mean square at no error is infinite and must not enter derivatives
        errors = FrameErrors.of(*jax.lax.stop_gradient((energies, forces, labels, state.energy_shift)))
        state, steps = train_frames(setup, state, buffered, controls, config.train_steps)
        state = finish_round(setup, state, buffered, controls)
        return state, RoundInfo(
            loss=steps.loss,
            temperature=_steps_of(md.trace.temperature),
            potential_energy=_steps_of(md.trace.potential_energy),
            labels_made=jnp.sum(good),
            labels_failed=jnp.sum(~good & fresh),
            md_good=jnp.all(md.good),
            md_valid=jnp.all(md.valid),
            moved_too_far=jnp.any(md.moved_too_far),
            n_neighbors=jnp.max(md.n_neighbors),
            train_finite=jnp.all(steps.finite),
            errors=errors,
            labelled=good,
            alarms=alarmed,
            alarm_index=_steps_of(reading.index),
        )

    return run


def frame_graphs(setup: Setup, state: FineTuneState, slots: Int[Array, " R"]) -> GraphBatch:
    """Graphs of frames in the buffer, one structure each, stacked along a leading axis R."""
    numbers, head = state.sim.atomic_numbers, state.sim.head

    def graph(slot: Array) -> GraphBatch:
        position, cell = state.buffer.position[slot], state.buffer.cell[slot]
        table = build_table(setup.spec, position, cell)
        candidates = graph_from_table(numbers, head, table, position, cell)
        return pack_edges(setup.spec, candidates)[0]

    return jax.lax.map(graph, slots)


def label_one(oracle: JittableOracle, offsets: Array, graph: GraphBatch) -> Labels:
    """Labels of one structure, without the axis of structures that the oracle's batch has."""
    labels = oracle.label_graph(graph, offsets)
    return Labels(
        energy=labels.energy[0],
        forces=labels.forces,
        stress=labels.stress[0],
        energy_weight=labels.energy_weight[0],
        forces_weight=labels.forces_weight[0],
        stress_weight=labels.stress_weight[0],
    )


def predict_frames(
    setup: Setup, params: Params, graphs: GraphBatch
) -> tuple[Float[Array, " R"], Float[Array, "R N 3"]]:
    """Energies (eV, without isolated atoms) and forces (eV/Å) of stacked frames, one after the other."""

    def one(graph: GraphBatch) -> tuple[Array, Array]:
        prediction = setup.potential.apply(params, graph, stress=False)
        return prediction.energy[0], prediction.forces

    return jax.lax.map(one, graphs)


def train_frames(
    setup: Setup, state: FineTuneState, graphs: GraphBatch, controls: Controls, n_steps: int
) -> tuple[FineTuneState, StepInfo]:
    """Train on the labelled frames for ``n_steps`` steps, going on from ``state.train.step``.

    Frames are drawn without replacement, epoch by epoch; the order is a function of the key, the round and the step,
    so that training in pieces is training in one go.

    Args:
        setup: static parts.
        state: with the frames and their labels.
        graphs: of all slots of the buffer (``frame_graphs``).
        controls: the numbers of the training.
        n_steps: optimiser steps.
    """
    step = train_step(setup.potential, setup.optimizer, setup.loss)
    labels = dataclasses.replace(state.buffer.labels, energy=state.buffer.labels.energy - state.energy_shift)
    key = jax.random.fold_in(state.train.key, state.round)

    def body(train: TrainState, _: None) -> tuple[TrainState, StepInfo]:
        chosen = draw_frames(key, train.step, state.buffer, setup.config.batch_size)
        graph = fold_graphs(jax.tree.map(lambda x: x[chosen], graphs))
        batch = Batch(graph, _fold_labels(jax.tree.map(lambda x: x[chosen], labels)))
        return step(train, batch, controls.hyper)

    train, info = jax.lax.scan(body, state.train, length=n_steps)
    return dataclasses.replace(state, train=train), info


def draw_frames(key: Array, step: Array, buffer: LabelBuffer, batch_size: int) -> Int[Array, " B"]:
    """Slots of the batch of a step: epochs of all labelled frames in random order, cut into batches."""
    n_labelled = jnp.maximum(jnp.sum(buffer.labelled), 1)

    def draw(position: Array) -> Array:
        order = jax.random.uniform(jax.random.fold_in(key, position // n_labelled), buffer.labelled.shape)
        return jnp.argsort(jnp.where(buffer.labelled, order, jnp.inf))[position % n_labelled]

    return jax.vmap(draw)(step * batch_size + jnp.arange(batch_size))


def finish_round(setup: Setup, state: FineTuneState, graphs: GraphBatch, controls: Controls) -> FineTuneState:
    """Refresh the replicas' forces and the charts with the new parameters, and get ready for the next round.

    The next round trains a new optimiser, from the averaged parameters of this one. Replicas that raised an alarm are
    rolled back if that was asked for. ``graphs`` are those of all slots of the buffer (``frame_graphs``).
    """
    averaged = state.train.ema_params
    if setup.config.alarm is not None and state.watch is not None:
        key = jax.random.fold_in(state.key, state.round)
        temperature = controls.ensemble.temperature_K
        watch, sim = end_round(setup.config.alarm, state.watch, state.sim, key, temperature)
        state = dataclasses.replace(state, watch=watch, sim=sim)
    if setup.config.chart_components:
        state = dataclasses.replace(state, monitor=chart_frames(setup, state, graphs))
    return dataclasses.replace(
        state,
        sim=refresh(setup.potential, setup.spec, averaged, rebuild(setup.spec, state.sim)),
        train=TrainState.create(averaged, setup.optimizer, state.train.key),
        round=state.round + 1,
    )


def chart_frames(setup: Setup, state: FineTuneState, graphs: GraphBatch) -> MonitorState:
    """Charts of the last layer's features over all labelled frames, with limits if they are to raise alarms."""
    features = jax.lax.map(partial(frame_features, setup.potential, state.train.ema_params), graphs)
    species = setup.potential.species_index(state.sim.atomic_numbers)
    weights = jnp.broadcast_to(state.buffer.labelled[:, None], features.shape[:2]).astype(features.dtype)
    charts = fit_charts(
        features.reshape(-1, features.shape[-1]),
        jnp.tile(species, features.shape[0]),
        weights.reshape(-1),
        len(setup.potential.species),
        setup.config.chart_components,
    )
    if setup.config.alarm is None:
        return charts
    features = jax.lax.stop_gradient(features)
    return cross_limits(charts, features, species, state.buffer.labelled, setup.config.alarm)


def frame_features(potential: Potential, params: Params, graph: GraphBatch) -> Float[Array, "N F"]:
    """Invariant features of the last layer."""
    return potential.node_energy(params, graph, graph.positions)[1][:, potential.feature_slices[-1]]


def _alarmed(state: FineTuneState) -> Bool[Array, " R"]:
    return jnp.zeros((state.sim.n_replicas,), bool) if state.watch is None else state.watch.alarmed


def _fold_labels(labels: Labels) -> Labels:
    return dataclasses.replace(labels, forces=labels.forces.reshape(-1, 3))


def _steps_of(trace: Float[Array, "L C R S"]) -> Float[Array, "R T"]:
    """Put labels, chunks and steps of a trace one after the other."""
    return jnp.moveaxis(trace, 2, 0).reshape(trace.shape[2], -1)
