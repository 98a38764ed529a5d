"""The same loop driven from Python: for oracles that live outside JAX, with a checkpoint after every piece.

What comes next is read off the state itself (``next_stage``), so a run that is killed at any moment and started
again does what it would have done: frames are a function of the state they start from, labels come from the label
store if they were computed, training continues at its last saved step.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.devices import bring_home, device_mesh
from mlipjax.files import write_atomic
from mlipjax.finetuning.candidates import select_frames
from mlipjax.finetuning.frames import frame_graphs
from mlipjax.finetuning.labelling import FrameLabels
from mlipjax.finetuning.pieces import (
    RETRIES,
    LoopResult,
    OnPiece,
    Piece,
    Stage,
    Until,
    alarm_stop,
    collapsing,
    compiled,
    enlarged,
    never,
    not_finite,
    out_of_bounds,
    run_piece,
    save_stopped,
)
from mlipjax.finetuning.records import HISTORY, History, model_of
from mlipjax.finetuning.round import finish_round, mesh_of_batches, train_frames
from mlipjax.finetuning.sample import sample_frame
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState, SystemState
from mlipjax.graph import DenseTable, GraphBatch, VerletSpec
from mlipjax.locks import folder_alone
from mlipjax.md.state import rebuild
from mlipjax.models import save
from mlipjax.oracles import Labeller
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.typing import Array

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
        asynchronous: do not wait for the labels of a round before it trains (``labelling``); numbers then depend on how
            fast labels come.
    """

    setup: Setup
    labeller: Labeller
    controls: Controls
    folder: Path | None = None
    on_piece: OnPiece = lambda piece: None
    until: Until = never
    asynchronous: bool = False
    _labels: FrameLabels = dataclasses.field(init=False, repr=False)
    _found: tuple[int, tuple[GraphBatch, ...]] | None = dataclasses.field(default=None, init=False, repr=False)

    def run(self, state: FineTuneState, n_rounds: int) -> LoopResult:
        """Run until ``n_rounds`` rounds are done, from the newest checkpoint in the folder if there is one.

        Raises:
            Stopped: if a replica became too hot, too dense or not finite, training diverged, every label of a round
                failed, or an alarm is to stop the run.
            InUseError: if another process works in the folder.
        """
        self._found, self._labels = None, FrameLabels(self.labeller, self.asynchronous, self.folder)
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
        reason = None
        while (next_one := next_stage(self.setup, state, n_rounds))[0] != "done":
            stage, index = next_one
            if at_start(state) and (reason := self.until(history.records())) is not None:
                break
            if stage == "label" and self._labels.passed(state):
                stage = "train"
            before = state
            self._labels.start(self.setup, state)
            self._tell(before, before, stage)
            count = n_sampled(state, index) if stage == "sample" else int(state.train.step)
            state, records = self._piece(stage, index, state, last=int(state.round) == n_rounds - 1)
            _record(history, (int(before.round), stage, count), records)
            if checkpoints is not None:
                number += 1
                checkpoints.save(number, _without_tables(state))
            self._tell(before, state, stage, records[0] if records else None)
        last = int(state.round) - 1
        state, records = self._labels.complete_before(self.setup, state, self.on_piece)
        if records:  # of a run that ends before it meant to, or has done so
            _record(history, (last, "label", 0), records)
            if checkpoints is not None:
                checkpoints.save(number + 1, _without_tables(state))
        return LoopResult(state, history.records(), reason)

    def _piece(
        self, stage: Stage, index: int, state: FineTuneState, *, last: bool
    ) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """Do a piece of work, maybe of the last round; a record of every system, of training one."""
        if stage == "sample":
            system, record = self._sample(index, state)
            return state.with_system(index, system), [{"system": index, **record}]
        if stage == "select":
            return self._select(state)
        if stage == "label":
            self._graphs(state)  # while labels are computed
            wait = last or int(state.round) == 0
            return self._labels.label(self.setup, state, self.on_piece, wait=wait)
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
            system = dataclasses.replace(system, sim=compiled(rebuild, own.spec)(system.sim))
            mesh = device_mesh(system.sim.n_replicas)
            sample = compiled(sample_frame, self.setup.alone(own), mesh=mesh)
            after, found = bring_home(sample(params, system, numbers, state.round), mesh)
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
        systems, chosen = compiled(select_frames, self.setup)(state, state.systems, self.controls)
        records = [{"system": index, "chosen": np.asarray(rows).tolist()} for index, rows in enumerate(chosen)]
        return dataclasses.replace(state, systems=tuple(systems)), records

    def _train(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        n_steps = min(TRAIN_PIECE, self.setup.config.train_steps - int(state.train.step))
        state = self._labels.arrived(self.setup, state)
        mesh = mesh_of_batches(self.setup, self.controls)
        train = compiled(train_frames, self.setup, n_steps=n_steps, mesh=mesh)
        after, info = train(state, self._graphs(state), self.controls)
        state = dataclasses.replace(state, train=bring_home(after.train, mesh))
        if not bool(jnp.all(info.finite)):
            raise not_finite(int(state.round))
        record: dict[str, Any] = {"loss": np.asarray(info.loss, np.float64).tolist()}
        if self._labels.asynchronous:
            record["labelled"] = [int(np.sum(system.buffer.labelled)) for system in state.systems]
        return state, record

    def _finish(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        if self.folder is not None:
            # before the round counts as done, so that no model is ever missing
            save(self.folder / f"model_{int(state.round) + 1}", *model_of(self.setup, state))
        return compiled(finish_round, self.setup)(state, self._graphs(state), self.controls), {}

    def _graphs(self, state: FineTuneState) -> tuple[GraphBatch, ...]:
        """Graphs of all slots of each buffer: once all frames of a round are in, they stay the same to its end."""
        if self._found is None or self._found[0] != int(state.round):
            graphs = (
                compiled(frame_graphs, own.spec)(system, jnp.arange(system.buffer.labelled.shape[0]))
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
    mesh = mesh_of_batches(setup, controls)
    static = (("mesh", mesh), ("n_steps", min(TRAIN_PIECE, setup.config.train_steps)))
    found = run_piece.lower(train_frames, (setup,), static, state, graphs, controls).compile().memory_analysis()
    if found is None:
        return None
    return int(found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes)


def _record(history: History, piece: tuple[int, str, int], records: Sequence[dict[str, Any]]) -> None:
    """Add the records of a piece, each of its round: done twice it replaces them, never recorded they were missing."""
    this, stage, count = piece
    for record in records:
        round = record.get("round", this)
        history.add({"key": [round, stage, count, record["system"]], "round": round, "stage": stage, **record})


def _with_tables(state: FineTuneState, tables: Sequence[DenseTable | None]) -> FineTuneState:
    systems = (
        dataclasses.replace(system, sim=dataclasses.replace(system.sim, table=table))
        for system, table in zip(state.systems, tables, strict=True)
    )
    return dataclasses.replace(state, systems=tuple(systems))


def _without_tables(state: FineTuneState) -> FineTuneState:
    return _with_tables(state, [None] * len(state.systems))


def next_stage(setup: Setup, state: FineTuneState, n_rounds: int) -> tuple[Stage, int]:
    """Return the stage that comes next for a state, and the system that it is about (0 for those of all systems).

    Frames without labels and a fresh optimiser mean that labelling comes next. An alarm that is to be labelled ends the
    sampling of its system in its round.
    """
    this = int(state.round)
    if this >= n_rounds:
        return "done", 0
    for index, (own, system) in enumerate(zip(setup.systems, state.systems, strict=True)):
        taken = int((np.asarray(system.buffer.round) == this).sum())
        if system.candidates is not None:
            if taken == 0 and int(system.candidates.count) < own.frames_per_replica * system.sim.n_replicas:
                return "sample", index
        elif taken < own.labels_per_replica * system.sim.n_replicas and not (taken and _interrupted(setup, system)):
            return "sample", index
    if any(system.candidates is not None and int(system.candidates.count) for system in state.systems):
        return "select", 0
    step = int(state.train.step)
    if not step and not any(
        np.any(np.asarray(s.buffer.labelled) & (np.asarray(s.buffer.round) == this)) for s in state.systems
    ):
        return "label", 0
    return ("train" if step < setup.config.train_steps else "finish"), 0


def n_sampled(state: FineTuneState, index: int) -> int:
    """Frames that a system has sampled: in all, or of its candidates in this round."""
    system = state.systems[index]
    return int(system.buffer.count if system.candidates is None else system.candidates.count)


def _interrupted(setup: Setup, system: SystemState) -> bool:
    alarm = setup.config.alarm
    if alarm is None or system.watch is None or not alarm.interrupts:
        return False
    return bool(np.asarray(system.watch.alarmed).any())


def at_start(state: FineTuneState) -> bool:
    """Tell whether nothing of a round is done yet."""
    this = int(state.round)
    frames = any(np.any(np.asarray(system.buffer.round) == this) for system in state.systems)
    return not frames and not any(
        system.candidates is not None and int(system.candidates.count) for system in state.systems
    )
