"""The same loop driven from Python: for oracles that live outside JAX, with a checkpoint after every piece.

What comes next is read off the state itself (``next_stage``), so a run that is killed at any moment and started
again does what it would have done: frames are a function of the state they start from, labels come from the label
store if they were computed, training continues at its last saved step.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import write_atomic
from mlipjax.finetuning.history import HISTORY, History
from mlipjax.finetuning.pieces import (
    RETRIES,
    LoopResult,
    OnPiece,
    Piece,
    Stage,
    Stopped,
    alarm_stop,
    collapsing,
    enlarged,
    frame_at,
    not_finite,
    out_of_bounds,
    save_stopped,
)
from mlipjax.finetuning.records import model_of, record_labels
from mlipjax.finetuning.round import finish_round, frame_graphs, predict_frames, train_frames
from mlipjax.finetuning.sample import SampleInfo, sample_frame
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState, FrameErrors
from mlipjax.graph import GraphBatch, VerletSpec
from mlipjax.locks import folder_alone
from mlipjax.md.state import SimState, rebuild
from mlipjax.models import save
from mlipjax.oracles import Failure, Labeller
from mlipjax.system import Labels, System
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
    """

    setup: Setup
    labeller: Labeller
    controls: Controls
    folder: Path | None = None
    on_piece: OnPiece = lambda piece: None
    _found: tuple[int, GraphBatch] | None = dataclasses.field(default=None, init=False, repr=False)

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
            self._use_tables(VerletSpec.from_json(json.loads(tables.read_text())))
        with Checkpoints(folder / "checkpoints") as checkpoints:
            restored = checkpoints.restore(_without_tables(state))
            if restored is not None:
                # tables are found anew before every use, so they are not part of a checkpoint
                state = dataclasses.replace(restored, sim=dataclasses.replace(restored.sim, table=state.sim.table))
            return self._loop(state, n_rounds, checkpoints, History(folder / HISTORY))

    def _loop(
        self, state: FineTuneState, n_rounds: int, checkpoints: Checkpoints | None, history: History
    ) -> LoopResult:
        pieces = {"sample": self._sample, "label": self._label, "train": self._train, "finish": self._finish}
        number = (checkpoints.latest() if checkpoints else None) or 0
        while (stage := next_stage(self.setup, state, n_rounds)) != "done":
            before = state
            self._tell(before, before, stage)
            key = [int(state.round), stage, int(state.buffer.count if stage == "sample" else state.train.step)]
            state, record = pieces[stage](state)
            record = {"key": key, "round": key[0], "stage": stage, **record}
            # the history first: a piece done twice replaces its record, one never recorded would be missing
            history.add(record)
            if checkpoints is not None:
                number += 1
                checkpoints.save(number, _without_tables(state))
            self._tell(before, state, stage, record)
        return LoopResult(state, history.records())

    def _tell(
        self, before: FineTuneState, after: FineTuneState, stage: Stage, record: dict[str, Any] | None = None
    ) -> None:
        """Tell the listener how far a stage is."""
        config, this = self.setup.config, int(before.round)
        frames = int((np.asarray(after.buffer.round) == this).sum())
        labelled = int((np.asarray(after.buffer.labelled) & (np.asarray(after.buffer.round) == this)).sum())
        done, total = {
            "sample": (frames // after.sim.n_replicas, config.labels_per_replica),
            "label": (labelled, frames),
            "train": (int(after.train.step), config.train_steps),
        }.get(stage, (int(record is not None), 1))
        self.on_piece(Piece(this, stage, done, total, record))

    def _use_tables(self, spec: VerletSpec, *, save: bool = False) -> None:
        self.setup = dataclasses.replace(self.setup, spec=spec)
        if save and self.folder is not None:
            write_atomic(self.folder / _TABLES, json.dumps(spec.to_json()))

    def _sample(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        for _ in range(RETRIES):
            # the search is repeated in the program; here it gives the tables the shapes of the setup
            state = dataclasses.replace(state, sim=_compiled(_find_tables, self.setup)(state.sim))
            after, found = _compiled(sample_frame, self.setup)(state, self.controls)
            info = found.md
            if bool(jnp.all(info.valid)):
                break
            found_too_far, n_found = bool(jnp.any(info.moved_too_far)), int(jnp.max(info.n_neighbors))
            self._use_tables(enlarged(self.setup, state, found_too_far, n_found), save=True)
        else:
            raise collapsing()
        if not bool(jnp.all(info.good)):
            saved = save_stopped(self.setup, after, self.folder)
            n_done = int(jnp.min(jnp.sum(info.n_done, axis=0)))
            raise out_of_bounds(int(state.round), saved, f" after {n_done} steps")

        def steps(trace: Array) -> list[list[float]]:
            return np.moveaxis(np.asarray(trace, np.float64), 1, 0).reshape(trace.shape[1], -1).tolist()

        return after, {
            "temperature_K": steps(info.trace.temperature),
            "potential_energy_eV": steps(info.trace.potential_energy),
            **self._alarms(after, found, steps),
        }

    def _alarms(
        self, state: FineTuneState, found: SampleInfo, steps: Callable[[Array], list[list[float]]]
    ) -> dict[str, Any]:
        """Readings of the charts on the way to the frames; stops the run if that was asked for."""
        alarm = self.setup.config.alarm
        if alarm is None:
            return {}
        raised = np.flatnonzero(np.asarray(found.reading.alarm).any(axis=0)).tolist()
        index = steps(found.reading.index)
        if raised and alarm.on_alarm == "stop":
            raise alarm_stop(int(state.round), alarm, raised, index, save_stopped(self.setup, state, self.folder))
        return {"alarms": raised, "alarm_index": index}

    def _label(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        slots = np.flatnonzero(np.asarray(state.buffer.round) == int(state.round))
        systems = [frame_at(self.setup, state, slot) for slot in slots]
        outcomes = self._labels_of(state, systems)
        good = np.array([not isinstance(outcome, Failure) for outcome in outcomes])
        reference = self.setup.potential.reference_energy(systems[0].atomic_numbers)
        empty = Labels.create(systems[0].n_atoms)
        labels = [empty if isinstance(outcome, Failure) else _relative(outcome, reference) for outcome in outcomes]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *labels)
        predicted = _compiled(_predict, self.setup)(state, jnp.asarray(slots))
        energies, forces = (np.asarray(values, np.float64) for values in predicted)
        first, estimate = int(state.round) == 0, self.setup.config.estimate_shift
        if first and estimate:
            shift = float(np.mean(stacked.energy[good] - energies[good]))
            state = dataclasses.replace(state, energy_shift=jnp.asarray(shift, state.energy_shift.dtype))
        errors = FrameErrors.of(energies, forces, stacked, float(state.energy_shift))
        record = record_labels(errors, good, int((~good).sum()), state, check_zero=first and not estimate)
        buffer = state.buffer.set_labels(jnp.asarray(slots), stacked, jnp.asarray(good))
        return dataclasses.replace(state, buffer=buffer), record

    def _labels_of(self, state: FineTuneState, systems: list[System]) -> list[Labels | Failure]:
        this = int(state.round)

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

        state, info = _compiled(train_frames, self.setup, n_steps=n_steps)(state, self._graphs(state), self.controls)
        if not bool(jnp.all(info.finite)):
            raise not_finite(int(state.round))
        return state, {"loss": np.asarray(info.loss, np.float64).tolist()}

    def _finish(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        if self.folder is not None:
            # before the round counts as done, so that no model is ever missing
            save(self.folder / f"model_{int(state.round) + 1}", *model_of(self.setup, state))
        return _compiled(finish_round, self.setup)(state, self._graphs(state), self.controls), {}

    def _graphs(self, state: FineTuneState) -> GraphBatch:
        """Graphs of all slots of the buffer: once all frames of a round are in, they stay the same to its end."""
        if self._found is None or self._found[0] != int(state.round):
            slots = jnp.arange(state.buffer.labelled.shape[0])
            self._found = int(state.round), _compiled(frame_graphs, self.setup)(state, slots)
        return self._found[1]


def next_stage(setup: Setup, state: FineTuneState, n_rounds: int) -> Stage:
    """Return the next stage of a state. Frames without labels and a fresh optimiser mean that labelling comes next.

    An alarm that is to be labelled ends the sampling of its round.
    """
    config = setup.config
    per_round = config.labels_per_replica * state.sim.n_replicas
    this_round = np.asarray(state.buffer.round) == int(state.round)
    if int(state.round) >= n_rounds:
        return "done"
    alarmed = state.watch is not None and bool(np.asarray(state.watch.alarmed).any())
    interrupted = alarmed and config.alarm is not None and config.alarm.interrupts and this_round.any()
    if this_round.sum() < per_round and not interrupted:
        return "sample"
    if not np.asarray(state.buffer.labelled)[this_round].any():
        return "label"
    return "train" if int(state.train.step) < config.train_steps else "finish"


def _relative(labels: Labels, reference: float) -> Labels:
    return dataclasses.replace(labels, energy=labels.energy - reference)


def _compiled(function: Callable[..., Any], setup: Setup, **static: int) -> Callable[..., Any]:
    """A piece, compiled once per equal setup, also when a run is taken up again in the same process."""
    return functools.partial(_run, function, setup, tuple(sorted(static.items())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(function: Callable[..., Any], setup: Setup, static: tuple[tuple[str, int], ...], *arguments: Any) -> Any:
    return function(setup, *arguments, **dict(static))


def _predict(setup: Setup, state: FineTuneState, slots: Array) -> tuple[Array, Array]:
    """Energies and forces, by the model that sampled them, of frames in the buffer."""
    return predict_frames(setup, state.train.ema_params, frame_graphs(setup, state, slots))


def _find_tables(setup: Setup, sim: SimState) -> SimState:
    return rebuild(setup.spec, sim)


def _without_tables(state: FineTuneState) -> FineTuneState:
    return dataclasses.replace(state, sim=dataclasses.replace(state.sim, table=None))
