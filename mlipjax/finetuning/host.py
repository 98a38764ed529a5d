"""The same loop driven from Python: for oracles that live outside JAX, with a checkpoint after every piece.

What comes next is read off the state itself (``next_stage``), so a run that is killed at any moment and started
again does what it would have done: frames are a function of the state they start from, labels come from the label
store if they were computed, training continues at its last saved step.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import write_atomic
from mlipjax.finetuning.candidates import select_frames
from mlipjax.finetuning.frames import frame_graphs
from mlipjax.finetuning.history import HISTORY, History
from mlipjax.finetuning.pieces import (
    RETRIES,
    LoopResult,
    OnPiece,
    Piece,
    Stage,
    Stopped,
    Until,
    alarm_stop,
    collapsing,
    enlarged,
    frame_at,
    never,
    no_zero,
    not_finite,
    out_of_bounds,
    save_stopped,
)
from mlipjax.finetuning.records import model_of, record_labels
from mlipjax.finetuning.round import finish_round, predict_frames, train_frames
from mlipjax.finetuning.sample import sample_frame
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.stages import at_start, n_sampled, next_stage
from mlipjax.finetuning.state import FineTuneState, FrameErrors, SystemState
from mlipjax.graph import DenseTable, GraphBatch, VerletSpec
from mlipjax.locks import folder_alone
from mlipjax.md.state import SimState, rebuild
from mlipjax.models import save
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.typing import Array, Params

TRAIN_PIECE = 20
"""Optimiser steps between two checkpoints."""

_TABLES = "tables.json"


@dataclasses.dataclass
class HostLoop:
    """A loop with a folder. Use ``run``.

    Attributes:
        setup: static parts; its tables grow when they have to.
        labeller: oracle, workers and label store.
        controls: learning rate, ensemble, limits.
        folder: of the run: ``checkpoints/``, ``history.jsonl``, ``model_1`` and so on after every round; ``None``
            keeps nothing on disk.
        on_piece: is told of every piece, before and after it.
        until: says before a round whether it is wanted at all.
    """

    setup: Setup
    labeller: Labeller
    controls: Controls
    folder: Path | None = None
    on_piece: OnPiece = lambda piece: None
    until: Until = never
    _found: tuple[int, tuple[GraphBatch, ...]] | None = dataclasses.field(default=None, init=False, repr=False)

    def run(self, state: FineTuneState, n_rounds: int) -> LoopResult:
        """Run until ``n_rounds`` rounds are done, from the newest checkpoint in the folder if there is one.

        Raises:
            Stopped: if a replica became too hot, too dense or not finite, training diverged, every label of a round
                failed, or an alarm is to stop the run.
            InUseError: if another process works in the folder.
        """
        self._found = None
        if self.folder is None:
            return self._loop(state, n_rounds, None, History(None))
        with folder_alone(self.folder):
            return self._resume(self.folder, state, n_rounds)

    def _resume(self, folder: Path, state: FineTuneState, n_rounds: int) -> LoopResult:
        """Go on from what the folder holds."""
        tables = folder / _TABLES
        if tables.exists():
            # sums over more slots round differently: a resumed run must use the tables that it had grown
            for index, fields in enumerate(json.loads(tables.read_text())):
                self.setup = self.setup.with_spec(index, VerletSpec.from_json(fields))
        with Checkpoints(folder / "checkpoints") as checkpoints:
            # a run that goes on for more rounds has room for more frames
            restored = checkpoints.restore(_without_tables(state), grow=True)
            if restored is not None:
                # tables are found anew before every use, so they are not part of a checkpoint
                tables = [system.sim.table for system in state.systems]
                state = _with_tables(restored, tables)
            return self._loop(state, n_rounds, checkpoints, History(folder / HISTORY))

    def _loop(
        self, state: FineTuneState, n_rounds: int, checkpoints: Checkpoints | None, history: History
    ) -> LoopResult:
        number = (checkpoints.latest() if checkpoints else None) or 0
        while (next_one := next_stage(self.setup, state, n_rounds)).stage != "done":
            stage, index = next_one
            if at_start(state) and (reason := self.until(history.records())) is not None:
                return LoopResult(state, history.records(), reason)
            before = state
            self._tell(before, before, stage)
            count = n_sampled(state, index) if stage == "sample" else int(state.train.step)
            key = [int(state.round), stage, count]
            state, records = self._piece(stage, index, state)
            records = [{"key": [*key, r["system"]], "round": key[0], "stage": stage, **r} for r in records]
            # the history first: a piece done twice replaces its record, one never recorded would be missing
            for record in records:
                history.add(record)
            if checkpoints is not None:
                number += 1
                checkpoints.save(number, _without_tables(state))
            self._tell(before, state, stage, records[0])
        return LoopResult(state, history.records())

    def _piece(self, stage: Stage, index: int, state: FineTuneState) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """Do a piece of work; a record of every system, of training one."""
        if stage == "sample":
            system, record = self._sample(index, state)
            return state.with_system(index, system), [{"system": index, **record}]
        if stage == "select":
            return self._select(state)
        if stage == "label":
            return self._label(state)
        state, record = self._train(state) if stage == "train" else self._finish(state)
        return state, [{"system": 0, **record}]

    def _tell(
        self, before: FineTuneState, after: FineTuneState, stage: Stage, record: dict[str, Any] | None = None
    ) -> None:
        """Tell the listener how far a stage is."""
        this = int(before.round)
        frames = [np.asarray(system.buffer.round) == this for system in after.systems]
        labelled = [np.asarray(system.buffer.labelled) for system in after.systems]
        taken = (
            int(own.sum() if system.candidates is None else system.candidates.count) // system.sim.n_replicas
            for own, system in zip(frames, after.systems, strict=True)
        )
        counts = {
            "sample": (sum(taken), sum(own.frames_per_replica for own in self.setup.systems)),
            "label": (sum(int((a & b).sum()) for a, b in zip(frames, labelled, strict=True)), sum(map(np.sum, frames))),
            "train": (int(after.train.step), self.setup.config.train_steps),
        }
        done, total = counts.get(stage, (int(record is not None), 1))
        self.on_piece(Piece(this, stage, done, int(total), record))

    def _use_tables(self, index: int, spec: VerletSpec) -> None:
        self.setup = self.setup.with_spec(index, spec)
        if self.folder is not None:
            write_atomic(self.folder / _TABLES, json.dumps([own.spec.to_json() for own in self.setup.systems]))

    def _sample(self, index: int, state: FineTuneState) -> tuple[SystemState, dict[str, Any]]:
        system, numbers = state.systems[index], self.controls.systems[index]
        params = state.train.ema_params
        for _ in range(RETRIES):
            own = self.setup.systems[index]
            # the search is repeated in the program; here it gives the tables the shapes of the setup
            system = dataclasses.replace(system, sim=_compiled(_find_tables, own.spec)(system.sim))
            sample = _compiled(sample_frame, self.setup.potential, self.setup.config, own)
            after, found = sample(params, system, numbers, state.round)
            info = found.md
            if bool(jnp.all(info.valid)):
                break
            found_too_far, n_found = bool(jnp.any(info.moved_too_far)), int(jnp.max(info.n_neighbors))
            self._use_tables(index, enlarged(own.spec, system, found_too_far, n_found))
        else:
            raise collapsing()
        if not bool(jnp.all(info.good)):
            saved = save_stopped(own.spec, after, self.folder)
            n_done = int(jnp.min(jnp.sum(info.n_done, axis=0)))
            raise out_of_bounds(int(state.round), index, saved, f" after {n_done} steps")

        def steps(trace: Array) -> list[list[float]]:
            return np.moveaxis(np.asarray(trace, np.float64), 1, 0).reshape(trace.shape[1], -1).tolist()

        record = {
            "temperature_K": steps(info.trace.temperature),
            "potential_energy_eV": steps(info.trace.potential_energy),
        }
        alarm = self.setup.config.alarm
        if alarm is None:
            return after, record
        raised = np.flatnonzero(np.asarray(found.reading.alarm).any(axis=0)).tolist()
        readings = steps(found.reading.index)
        if raised and alarm.on_alarm == "stop":
            saved = save_stopped(own.spec, after, self.folder)
            raise alarm_stop(int(state.round), index, alarm, raised, readings, saved)
        return after, {**record, "alarms": raised, "alarm_index": readings}

    def _select(self, state: FineTuneState) -> tuple[FineTuneState, list[dict[str, Any]]]:
        systems, chosen = _compiled(select_frames, self.setup)(state, state.systems, self.controls)
        records = [{"system": index, "chosen": np.asarray(rows).tolist()} for index, rows in enumerate(chosen)]
        return dataclasses.replace(state, systems=tuple(systems)), records

    def _label(self, state: FineTuneState) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """Label the frames of all systems together, so that no worker waits for another system."""
        this, first = int(state.round), int(state.round) == 0
        slots = [np.flatnonzero(np.asarray(system.buffer.round) == this) for system in state.systems]
        parts = list(zip(self.setup.systems, state.systems, slots, strict=True))
        frames = [[frame_at(own.spec, system, slot) for slot in new] for own, system, new in parts]
        outcomes = iter(self._labels_of(this, [frame for new in frames for frame in new]))
        found = [self._stacked(new, list(itertools.islice(outcomes, len(new)))) for new in frames]
        predictions = [self._predicted(state, index, new) for index, new in enumerate(slots)]
        systems = list(state.systems)
        if first and self.setup.config.estimate_shift:
            if missing := [index for index, (_, good) in enumerate(found) if not good.any()]:
                raise no_zero(missing[0])
            means = [
                np.mean(labels.energy[good] - energies[good])
                for (labels, good), (energies, _) in zip(found, predictions, strict=True)
            ]
            shifts = self.setup.explained @ np.array(means)
            systems = [
                dataclasses.replace(system, energy_shift=jnp.asarray(shift, system.energy_shift.dtype))
                for system, shift in zip(systems, shifts, strict=True)
            ]
        records = []
        check_zero = first and not self.setup.config.estimate_shift
        for index, ((own, _, new), (labels, good)) in enumerate(zip(parts, found, strict=True)):
            system = systems[index]
            numbers, shift = np.asarray(system.sim.atomic_numbers), float(system.energy_shift)
            errors = FrameErrors.of(*predictions[index], labels, shift, numbers, own)
            record = record_labels(own, errors, good, int((~good).sum()), shift, check_zero=check_zero)
            records.append({"system": index, **record})
            buffer = system.buffer.set_labels(jnp.asarray(new), labels, jnp.asarray(good))
            systems[index] = dataclasses.replace(system, buffer=buffer)
        return dataclasses.replace(state, systems=tuple(systems)), records

    def _stacked(self, frames: list[System], outcomes: list[Labels | Failure]) -> tuple[Labels, np.ndarray]:
        """Labels of a system's frames, one after the other, without the model's isolated atoms; and which are any."""
        good = np.array([not isinstance(outcome, Failure) for outcome in outcomes])
        reference = self.setup.potential.reference_energy(frames[0].atomic_numbers)
        empty = Labels.create(frames[0].n_atoms)
        labels = [empty if isinstance(outcome, Failure) else _relative(outcome, reference) for outcome in outcomes]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *labels), good

    def _predicted(self, state: FineTuneState, index: int, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies and forces, by the model that sampled them, of frames of a system."""
        predict = _compiled(_predict, self.setup.potential, self.setup.systems[index].spec)
        energies, forces = predict(state.train.ema_params, state.systems[index], jnp.asarray(slots))
        return np.asarray(energies, np.float64), np.asarray(forces, np.float64)

    def _labels_of(self, this: int, systems: list[System]) -> list[Labels | Failure]:
        def tell(done: int, total: int, outcome: Labels | Failure) -> None:
            self.on_piece(Piece(this, "label", done, total))

        try:
            outcomes = self.labeller.label(systems, tell)
        except BrokenExecutor as error:
            raise Stopped(f"round {this}: {error}") from error
        if all(isinstance(outcome, Failure) for outcome in outcomes):
            reason = next(outcome.reason for outcome in outcomes if isinstance(outcome, Failure))
            raise Stopped(f"round {this}: none of {len(systems)} labels succeeded: {reason}")
        return outcomes

    def _train(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        n_steps = min(TRAIN_PIECE, self.setup.config.train_steps - int(state.train.step))
        train = _compiled(train_frames, self.setup, n_steps=n_steps)
        state, info = train(state, self._graphs(state), self.controls)
        if not bool(jnp.all(info.finite)):
            raise not_finite(int(state.round))
        return state, {"loss": np.asarray(info.loss, np.float64).tolist()}

    def _finish(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        if self.folder is not None:
            # before the round counts as done, so that no model is ever missing
            save(self.folder / f"model_{int(state.round) + 1}", *model_of(self.setup, state))
        return _compiled(finish_round, self.setup)(state, self._graphs(state), self.controls), {}

    def _graphs(self, state: FineTuneState) -> tuple[GraphBatch, ...]:
        """Graphs of all slots of each buffer: once all frames of a round are in, they stay the same to its end."""
        if self._found is None or self._found[0] != int(state.round):
            graphs = (
                _compiled(frame_graphs, own.spec)(system, jnp.arange(system.buffer.labelled.shape[0]))
                for own, system in zip(self.setup.systems, state.systems, strict=True)
            )
            self._found = int(state.round), tuple(graphs)
        return self._found[1]


def training_memory(setup: Setup, state: FineTuneState, controls: Controls) -> int | None:
    """Bytes that a piece of training will take, from the program that will run: compiled once, here instead of later.

    ``None`` where the compiler does not say.

    Args:
        setup: static parts.
        state: before the first round.
        controls: the numbers of the run.
    """
    graphs = tuple(
        jax.eval_shape(functools.partial(frame_graphs, own.spec), system, jnp.arange(system.buffer.labelled.shape[0]))
        for own, system in zip(setup.systems, state.systems, strict=True)
    )
    static = (("n_steps", min(TRAIN_PIECE, setup.config.train_steps)),)
    found = _run.lower(train_frames, (setup,), static, state, graphs, controls).compile().memory_analysis()
    if found is None:
        return None
    return int(found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes)


def _relative(labels: Labels, reference: float) -> Labels:
    return dataclasses.replace(labels, energy=labels.energy - reference)


def _compiled(function: Callable[..., Any], *constants: Any, **static: int) -> Callable[..., Any]:
    """A piece, compiled once per equal constants, also when a run is taken up again in the same process."""
    return functools.partial(_run, function, constants, tuple(sorted(static.items())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    function: Callable[..., Any], constants: tuple[Any, ...], static: tuple[tuple[str, int], ...], *arguments: Any
) -> Any:
    return function(*constants, *arguments, **dict(static))


def _predict(
    potential: Potential, spec: VerletSpec, params: Params, system: SystemState, slots: Array
) -> tuple[Array, Array]:
    return predict_frames(potential, params, frame_graphs(spec, system, slots))


def _find_tables(spec: VerletSpec, sim: SimState) -> SimState:
    return rebuild(spec, sim)


def _with_tables(state: FineTuneState, tables: Sequence[DenseTable | None]) -> FineTuneState:
    systems = (
        dataclasses.replace(system, sim=dataclasses.replace(system.sim, table=table))
        for system, table in zip(state.systems, tables, strict=True)
    )
    return dataclasses.replace(state, systems=tuple(systems))


def _without_tables(state: FineTuneState) -> FineTuneState:
    return _with_tables(state, [None] * len(state.systems))
