"""The pieces of a round, and the round itself: sample, select, label, chart, train.

Every system is simulated by itself, training is on all. All are pure functions. ``run_compiled`` scans ``make_round``;
``HostLoop`` calls the same pieces one by one, with an oracle that lives outside JAX and a checkpoint in between.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from mlipjax.devices import AXIS, WHOLE, device_mesh, over_devices
from mlipjax.finetuning.alarm import cross_limits, end_round
from mlipjax.finetuning.candidates import select_frames
from mlipjax.finetuning.frames import Share, draw_batch, frame_features, frame_graphs, frame_weights, stack_buffer
from mlipjax.finetuning.sample import SampleInfo, sample_frame
from mlipjax.finetuning.setup import Controls, FrameStack, Setup, SystemControls, SystemSetup
from mlipjax.finetuning.state import (
    FineTuneState,
    FrameErrors,
    RoundInfo,
    SystemInfo,
    SystemState,
    system_key,
)
from mlipjax.graph import GraphBatch
from mlipjax.losses import LossWeights, label_counts
from mlipjax.md.state import rebuild, refresh
from mlipjax.monitoring import MonitorState, fit_charts
from mlipjax.oracles import JittableOracle
from mlipjax.potential import Potential
from mlipjax.system import Labels
from mlipjax.train import ForceField, StepInfo, TrainState
from mlipjax.train.step import LossGradient, apply_gradient, loss_gradient
from mlipjax.typing import Array, Bool, Float, Int, Key, Params


def make_round(
    setup: Setup, oracle: JittableOracle, offsets: Array
) -> Callable[[FineTuneState, Controls], tuple[FineTuneState, RoundInfo]]:
    """One round as a pure function ``(state, controls) -> (state, info)``: it can be scanned, mapped, differentiated.

    Args:
        setup: static parts.
        oracle: one that can live inside a compiled program.
        offsets: (119,) eV, from ``oracles.energy_offsets``.
    """

    def run(state: FineTuneState, controls: Controls) -> tuple[FineTuneState, RoundInfo]:
        sampler, systems, graphs, found = state.train.ema_params, [], [], []
        sampled = []
        for own, system, numbers in zip(setup.systems, state.systems, controls.systems, strict=True):
            interval = partial(_interval, setup.alone(own), sampler, numbers, state.round)
            sampled.append(jax.lax.scan(interval, system, length=own.frames_per_replica))
        parts, chosen = [part for part, _ in sampled], [jnp.zeros((0,), jnp.int32) for _ in sampled]
        if setup.config.select != "interval":
            parts, chosen = select_frames(setup, state, parts, controls)
        for own, system, part, (_, info), rows in zip(
            setup.systems, state.systems, parts, sampled, chosen, strict=True
        ):
            # found once a round: its new frames are labelled, all of them train and are charted
            buffered = frame_graphs(own.spec, part, jnp.arange(part.buffer.labelled.shape[0]))
            fresh = info.fresh.reshape(-1)[rows] if rows.shape[0] else info.fresh.reshape(-1)
            labelled = _label_round(setup, own, sampler, (system, part), buffered, fresh, (oracle, offsets))
            systems.append(labelled.state)
            graphs.append(buffered)
            found.append((info, labelled, rows))
        if setup.config.estimate_shift:
            systems = _share_zero(setup, systems, [labelled.difference for _, labelled, _ in found], state.round)
        infos = tuple(
            _report(own, system, *parts) for own, system, parts in zip(setup.systems, systems, found, strict=True)
        )
        state = dataclasses.replace(state, systems=tuple(systems))
        state, steps = train_frames(setup, state, graphs, controls, setup.config.train_steps)
        state = finish_round(setup, state, graphs, controls)
        return state, RoundInfo(steps.loss, jnp.all(steps.finite), infos)

    return run


@struct.dataclass
class _Labelled:
    """A system with the labels of a round.

    Attributes:
        state: with the labels in its buffer.
        good: (F,) which of them count.
        fresh: (F,) which of their frames are new ones.
        labels: (F, ...).
        predicted: energies and forces of the model that sampled the frames.
        difference: () eV, mean of labels minus predictions.
    """

    state: SystemState
    good: Bool[Array, " F"]
    fresh: Bool[Array, " F"]
    labels: Labels
    predicted: tuple[Array, Array]
    difference: Float[Array, ""]


def _interval(
    setup: Setup, params: Params, controls: SystemControls, round: Int[Array, ""], system: SystemState, _: None
) -> tuple[SystemState, SampleInfo]:
    return sample_frame(setup, params, system, controls, round)


def _label_round(
    setup: Setup,
    own: SystemSetup,
    params: Params,
    states: tuple[SystemState, SystemState],
    graphs: GraphBatch,
    fresh: Bool[Array, " F"],
    source: tuple[JittableOracle, Array],
) -> _Labelled:
    """Label the new frames of a system: those between its two ``states``."""
    before, after = states
    slots = before.buffer.count + jnp.arange(own.labels_per_replica * before.sim.n_replicas)
    new = jax.tree.map(lambda x: x[slots], graphs)
    labels = jax.lax.map(partial(label_one, *source), new)
    good = jnp.isfinite(labels.energy) & jnp.all(jnp.isfinite(labels.forces), axis=(1, 2)) & fresh
    energies, forces = predict_frames(setup.potential, params, new)
    difference = jnp.sum(jnp.where(good, labels.energy - energies, 0.0)) / jnp.maximum(jnp.sum(good), 1)
    state = dataclasses.replace(after, buffer=after.buffer.set_labels(slots, labels, good))
    return _Labelled(state, good, fresh, labels, (energies, forces), difference)


def _share_zero(
    setup: Setup, systems: Sequence[SystemState], differences: Sequence[Array], round: Int[Array, ""]
) -> list[SystemState]:
    """In the first round, take what a constant per element explains of the differences off all labels."""
    shifts = jnp.sum(jnp.asarray(setup.explained) * jnp.stack(list(differences))[None, :], axis=1)
    return [
        dataclasses.replace(
            system, energy_shift=jnp.where(round == 0, shift, system.energy_shift).astype(system.energy_shift.dtype)
        )
        for system, shift in zip(systems, shifts, strict=True)
    ]


def _report(
    own: SystemSetup, system: SystemState, sampled: SampleInfo, labelled: _Labelled, chosen: Int[Array, " K"]
) -> SystemInfo:
    md = sampled.md
    numbers = system.sim.atomic_numbers
    # for reading; the slope of a root mean square at no error is infinite and must not enter derivatives
    given = jax.lax.stop_gradient((*labelled.predicted, labelled.labels, system.energy_shift))
    return SystemInfo(
        temperature=_steps_of(md.trace.temperature),
        potential_energy=_steps_of(md.trace.potential_energy),
        labels_made=jnp.sum(labelled.good),
        labels_failed=jnp.sum(~labelled.good & labelled.fresh),
        md_good=jnp.all(md.good),
        md_valid=jnp.all(md.valid),
        moved_too_far=jnp.any(md.moved_too_far),
        n_neighbors=jnp.max(md.n_neighbors),
        errors=FrameErrors.of(*given, numbers, own),
        labelled=labelled.good,
        alarms=jnp.zeros((system.sim.n_replicas,), bool) if system.watch is None else system.watch.alarmed,
        alarm_index=_steps_of(sampled.reading.index),
        chosen=chosen,
    )


def label_one(oracle: JittableOracle, offsets: Array, graph: GraphBatch) -> Labels:
    """Labels of one structure, without the axis of structures that the oracle's batch has."""
    labels = oracle.label_graph(graph, offsets)
    return dataclasses.replace(jax.tree.map(lambda leaf: leaf[0], labels), forces=labels.forces)


def predict_frames(
    potential: Potential, params: Params, graphs: GraphBatch
) -> tuple[Float[Array, " R"], Float[Array, "R N 3"]]:
    """Energies (eV, without isolated atoms) and forces (eV/Å) of stacked frames, one after the other."""

    def one(graph: GraphBatch) -> tuple[Array, Array]:
        prediction = potential.apply(params, graph, stress=False)
        return prediction.energy[0], prediction.forces

    return jax.lax.map(one, graphs)


def train_frames(
    setup: Setup,
    state: FineTuneState,
    graphs: Sequence[GraphBatch],
    controls: Controls,
    n_steps: int,
    mesh: Mesh | None = None,
) -> tuple[FineTuneState, StepInfo]:
    """Train on the labelled frames of all systems for ``n_steps`` steps, going on from ``state.train.step``.

    Given frames join those of the systems in every batch; replayed ones have a batch of their own beside it.

    Args:
        setup: static parts.
        state: with the frames and their labels.
        graphs: of all slots of each system's buffer (``frame_graphs``).
        controls: the numbers of the training.
        n_steps: optimiser steps.
        mesh: devices that the frames of every batch are divided over (``mesh_of_batches``): all of them take the same
            steps, on the sum of their gradients.
    """
    key = jax.random.fold_in(state.train.key, state.round)
    stacks = [
        stack_buffer(
            own.batch_size,
            system,
            stack,
            frame_weights(system.buffer, numbers.weight, controls.age_weight, state.round),
        )
        for own, system, stack, numbers in zip(setup.systems, state.systems, graphs, controls.systems, strict=True)
    ]
    gradient = loss_gradient(ForceField(setup.potential, setup.loss), setup.optimizer)
    update = apply_gradient(setup.optimizer)
    less = jax.tree.map(lambda weight: controls.replay_weight * weight, controls.hyper.weights)

    def on(stacks: Sequence[FrameStack], key: Key, weights: LossWeights, train: TrainState) -> LossGradient:
        if mesh is None:
            batch = draw_batch(stacks, key, train.step)
            return gradient(train.params, batch, weights, label_counts(batch.labels, batch.graph))
        batch = draw_batch(stacks, key, train.step, Share(jax.lax.axis_index(AXIS), mesh.size))
        counts = jax.lax.psum(label_counts(batch.labels, batch.graph), AXIS)
        return jax.lax.psum(gradient(train.params, batch, weights, counts), AXIS)

    def steps(train: TrainState, own: Sequence[FrameStack], controls: Controls, key: Key, less: LossWeights) -> Any:
        def body(train: TrainState, _: None) -> tuple[TrainState, StepInfo]:
            result = on([*own, *controls.given], key, controls.hyper.weights, train)
            if controls.replay:
                again = on(controls.replay, jax.random.fold_in(key, _REPLAY), less, train)
                added = jax.tree.map(jnp.add, result.gradient, again.gradient)
                result = LossGradient(result.loss + again.loss, result.terms, added)
            return update(train, result, controls.hyper)

        return jax.lax.scan(body, train, length=n_steps)

    train, info = over_devices(steps, mesh, WHOLE, WHOLE)(state.train, stacks, controls, key, less)
    return dataclasses.replace(state, train=train), info


def mesh_of_batches(setup: Setup, controls: Controls) -> Mesh | None:
    """Devices for the frames of a batch: each has equally many of every stack."""
    sizes = [own.batch_size for own in setup.systems]
    sizes += [stack.batch_size for stack in (*controls.given, *controls.replay)]
    return device_mesh(math.gcd(*sizes))


_REPLAY = 0x5245_504C
"""Another stream than the order of frames to learn from."""


def finish_round(setup: Setup, state: FineTuneState, graphs: Sequence[GraphBatch], controls: Controls) -> FineTuneState:
    """Refresh the replicas' forces and the charts with the new parameters, and get ready for the next round.

    The next round trains a new optimiser, from the averaged parameters of this one. Replicas that raised an alarm are
    rolled back if that was asked for. ``graphs`` are those of all slots of each buffer (``frame_graphs``).
    """
    averaged = state.train.ema_params
    key = jax.random.fold_in(state.key, state.round)
    systems = []
    for index, (own, system, stack) in enumerate(zip(setup.systems, state.systems, graphs, strict=True)):
        if setup.config.alarm is not None and system.watch is not None:
            kelvin = controls.systems[index].ensemble.temperature_K
            watch, sim = end_round(setup.config.alarm, system.watch, system.sim, system_key(key, index), kelvin)
            system = dataclasses.replace(system, watch=watch, sim=sim)
        if setup.config.chart_components:
            system = dataclasses.replace(system, monitor=chart_frames(setup, averaged, system, stack))
        sim = refresh(setup.moving(own), own.spec, averaged, rebuild(own.spec, system.sim))
        systems.append(dataclasses.replace(system, sim=sim))
    return dataclasses.replace(
        state,
        systems=tuple(systems),
        train=TrainState.create(averaged, setup.optimizer, state.train.key),
        round=state.round + 1,
    )


def chart_frames(setup: Setup, params: Params, system: SystemState, graphs: GraphBatch) -> MonitorState:
    """Charts of the last layer's features over all labelled frames of a system, with limits if they raise alarms."""
    features = jax.lax.map(partial(frame_features, setup.potential, params), graphs)
    species = setup.potential.species_index(system.sim.atomic_numbers)
    labelled = system.buffer.labelled
    weights = jnp.broadcast_to(labelled[:, None], features.shape[:2]).astype(features.dtype)
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
    return cross_limits(charts, features, species, labelled, setup.config.alarm)


def _steps_of(trace: Float[Array, "L C R S"]) -> Float[Array, "R T"]:
    """Put labels, chunks and steps of a trace one after the other."""
    return jnp.moveaxis(trace, 2, 0).reshape(trace.shape[2], -1)
