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
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import replace_on_success, write_atomic
from mlipjax.finetuning.history import History
from mlipjax.finetuning.round import finish_round, frame_graphs, train_frames
from mlipjax.finetuning.sample import SampleInfo, sample_frame
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState
from mlipjax.graph import GraphBatch, VerletSpec
from mlipjax.locks import folder_alone
from mlipjax.md.state import SimState, rebuild
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.typing import Array

Stage = Literal["sample", "label", "train", "finish", "done"]

TRAIN_PIECE = 20
"""Optimiser steps between two checkpoints."""

_RETRIES = 6

_TABLES = "tables.json"


class Stopped(RuntimeError):
    """The simulation left what a model can be asked for; the offending frame is in ``stopped.extxyz``."""


class HostListener(Protocol):
    """Told of every piece of work; ``record`` is what also stands in ``history.jsonl``."""

    def piece(self, stage: Stage, state: FineTuneState, record: dict[str, Any]) -> None:
        """After a piece of work."""

    def round_done(self, state: FineTuneState) -> None:
        """When a round is trained and before it is counted as done, so that what is saved here is never missing."""


class HostResult(NamedTuple):
    """The final state, and the records of all pieces in order."""

    state: FineTuneState
    history: list[dict[str, Any]]


@dataclasses.dataclass
class HostLoop:
    """A loop with a folder. Use ``run``.

    Attributes:
        setup: static parts; its tables grow when they have to.
        labeller: oracle, workers and label store.
        controls: learning rate, ensemble, limits.
        folder: of the run: ``checkpoints/``, ``history.jsonl``; ``None`` keeps nothing on disk.
        estimate_shift: whether the mean difference between the first round's labels and the model's energies is
            taken off all labels, for an oracle whose energies have another zero.
        listener: is told of every piece.
    """

    setup: Setup
    labeller: Labeller
    controls: Controls
    folder: Path | None = None
    estimate_shift: bool = False
    listener: HostListener | None = None
    _found: tuple[int, GraphBatch] | None = dataclasses.field(default=None, init=False, repr=False)

    def run(self, state: FineTuneState, n_rounds: int) -> HostResult:
        """Run until ``n_rounds`` rounds are done, from the newest checkpoint in the folder if there is one.

        Raises:
            Stopped: if a replica became too hot, too dense or not finite, training diverged, or an alarm is to stop
                the run.
            RuntimeError: if every label of a round failed.
            InUseError: if another process works in the folder.
        """
        self._found = None
        if self.folder is None:
            return self._loop(state, n_rounds, None, History(None))
        with folder_alone(self.folder):
            return self._resume(self.folder, state, n_rounds)

    def _resume(self, folder: Path, state: FineTuneState, n_rounds: int) -> HostResult:
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
            return self._loop(state, n_rounds, checkpoints, History(folder / "history.jsonl"))

    def _loop(
        self, state: FineTuneState, n_rounds: int, checkpoints: Checkpoints | None, history: History
    ) -> HostResult:
        pieces = {"sample": self._sample, "label": self._label, "train": self._train, "finish": self._finish}
        number = (checkpoints.latest() if checkpoints else None) or 0
        while (stage := next_stage(self.setup, state, n_rounds)) != "done":
            key = [int(state.round), stage, int(state.buffer.count if stage == "sample" else state.train.step)]
            state, record = pieces[stage](state)
            record = {"key": key, "round": key[0], "stage": stage, **record}
            # the history first: a piece done twice replaces its record, one never recorded would be missing
            history.add(record)
            if checkpoints is not None:
                number += 1
                checkpoints.save(number, _without_tables(state))
            if self.listener is not None:
                self.listener.piece(stage, state, record)
        return HostResult(state, history.records())

    def _use_tables(self, spec: VerletSpec, *, save: bool = False) -> None:
        self.setup = dataclasses.replace(self.setup, spec=spec)
        if save and self.folder is not None:
            write_atomic(self.folder / _TABLES, json.dumps(spec.to_json()))

    def _sample(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        for _ in range(_RETRIES):
            # the search is repeated in the program; here it gives the tables the shapes of the setup
            state = dataclasses.replace(state, sim=_compiled(_find_tables, self.setup)(state.sim))
            after, found = _compiled(sample_frame, self.setup)(state, self.controls)
            info = found.md
            if bool(jnp.all(info.valid)):
                break
            self._use_tables(_enlarge(self.setup, state, info), save=True)
        else:
            raise Stopped(f"neighbour tables overflowed {_RETRIES} times in a row: the structure is collapsing")
        if not bool(jnp.all(info.good)):
            self._save_stopped(after)
            raise Stopped(
                f"round {int(state.round)}: a replica became too hot, too dense or not finite after "
                f"{int(jnp.min(jnp.sum(info.n_done, axis=0)))} steps; see stopped.extxyz. "
                "Shorten the time step, lower the temperature or label more often"
            )

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
        """What the charts said on the way to the frames; stops the run if that was asked for."""
        alarm = self.setup.config.alarm
        if alarm is None:
            return {}
        raised = np.flatnonzero(np.asarray(found.reading.alarm).any(axis=0))
        index = steps(found.reading.index)
        if len(raised) and alarm.on_alarm == "stop":
            self._save_stopped(state)
            worst = max(max(index[replica]) for replica in raised)
            raise Stopped(
                f"round {int(state.round)}: the {alarm.index} index of replica {', '.join(map(str, raised))} is "
                f"{worst:.2f} times its limit; see stopped.extxyz. Choose on_alarm label or rollback to label such "
                "frames and go on"
            )
        return {"alarms": raised.tolist(), "alarm_index": index}

    def _label(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        slots = np.flatnonzero(np.asarray(state.buffer.round) == int(state.round))
        systems = [_frame(self.setup, state, slot) for slot in slots]
        outcomes = self.labeller.label(systems)
        good = np.array([not isinstance(outcome, Failure) for outcome in outcomes])
        if not good.any():
            reason = next(outcome.reason for outcome in outcomes if isinstance(outcome, Failure))
            raise RuntimeError(f"round {int(state.round)}: none of {len(slots)} labels succeeded: {reason}")
        reference = self.setup.potential.reference_energy(systems[0].atomic_numbers)
        empty = Labels.create(systems[0].n_atoms)
        labels = [empty if isinstance(outcome, Failure) else _relative(outcome, reference) for outcome in outcomes]
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *labels)
        energies, forces = self._predict(state, slots)
        if self.estimate_shift and int(state.round) == 0:
            shift = float(np.mean(stacked.energy[good] - energies[good]))
            state = dataclasses.replace(state, energy_shift=jnp.asarray(shift, state.energy_shift.dtype))
        errors = energies + float(state.energy_shift) - stacked.energy
        buffer = state.buffer.set_labels(jnp.asarray(slots), stacked, jnp.asarray(good))
        n_atoms = systems[0].n_atoms
        return dataclasses.replace(state, buffer=buffer), {
            "labels_made": int(good.sum()),
            "labels_failed": int((~good).sum()),
            "energy_shift_eV": float(state.energy_shift),
            "energy_error_eV_per_atom": (errors[good] / n_atoms).tolist(),
            "force_rmse_eV_per_A": np.sqrt(np.mean((forces - stacked.forces)[good] ** 2, axis=(1, 2))).tolist(),
            "force_mae_eV_per_A": np.mean(np.abs(forces - stacked.forces)[good], axis=(1, 2)).tolist(),
        }

    def _predict(self, state: FineTuneState, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies and forces, by the model that sampled them, of frames in the buffer."""
        energies, forces = _compiled(_predict, self.setup)(state, jnp.asarray(slots))
        return np.asarray(energies, np.float64), np.asarray(forces, np.float64)

    def _train(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        n_steps = min(TRAIN_PIECE, self.setup.config.train_steps - int(state.train.step))

        state, info = _compiled(train_frames, self.setup, n_steps=n_steps)(state, self._graphs(state), self.controls)
        if not bool(jnp.all(info.finite)):
            raise Stopped(f"round {int(state.round)}: loss or gradient is not finite; lower the learning rate")
        return state, {"loss": np.asarray(info.loss, np.float64).tolist()}

    def _finish(self, state: FineTuneState) -> tuple[FineTuneState, dict[str, Any]]:
        if self.listener is not None:
            self.listener.round_done(state)
        return _compiled(finish_round, self.setup)(state, self._graphs(state), self.controls), {}

    def _graphs(self, state: FineTuneState) -> GraphBatch:
        """Graphs of all slots of the buffer: once all frames of a round are in, they stay the same to its end."""
        if self._found is None or self._found[0] != int(state.round):
            slots = jnp.arange(state.buffer.labelled.shape[0])
            self._found = int(state.round), _compiled(frame_graphs, self.setup)(state, slots)
        return self._found[1]

    def _save_stopped(self, state: FineTuneState) -> None:
        if self.folder is not None:
            from ase.io import write

            frames = [_frame(self.setup, state, state.buffer.count - 1 - i) for i in range(state.sim.n_replicas)]
            with replace_on_success(self.folder / "stopped.extxyz") as temporary:
                write(temporary, [frame.to_ase() for frame in frames], format="extxyz")


def next_stage(setup: Setup, state: FineTuneState, n_rounds: int) -> Stage:
    """What a state needs next. Frames without labels and a fresh optimiser mean that labelling comes next.

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


def with_energy_shift(potential: Potential, atomic_numbers: np.ndarray, shift: float) -> Potential:
    """Move the isolated-atom energies so that the energy of one composition moves by ``shift`` eV.

    Of all moves that do so, the smallest: in proportion to the number of atoms of each element.
    """
    counts = np.array([np.sum(np.asarray(atomic_numbers) == z) for z in potential.species], np.float64)
    return potential.replace(e0s=potential.e0s + shift * counts / np.sum(counts**2))


def _frame(setup: Setup, state: FineTuneState, slot: Any) -> System:
    return System(
        positions=np.asarray(state.buffer.position[slot], np.float64),
        atomic_numbers=np.asarray(state.sim.atomic_numbers),
        cell=np.asarray(state.buffer.cell[slot], np.float64),
        pbc=setup.spec.pbc,
    )


def _relative(labels: Labels, reference: float) -> Labels:
    return dataclasses.replace(labels, energy=labels.energy - reference)


def _enlarge(setup: Setup, state: FineTuneState, info: Any) -> VerletSpec:
    """Tables for where the replicas are now: more slots after an overflow, a wider skin after atoms moved too far."""
    dynamics, spec = state.sim.dynamics, setup.spec
    systems = [
        System(np.asarray(position), np.asarray(state.sim.atomic_numbers), np.asarray(cell), spec.pbc)
        for position, cell in zip(dynamics.position, dynamics.cell, strict=True)
    ]
    if bool(jnp.any(info.moved_too_far)):
        spec = dataclasses.replace(spec, skin=1.5 * spec.skin)
    return spec.grown(systems, int(jnp.max(info.n_neighbors)))


def _compiled(function: Callable[..., Any], setup: Setup, **static: int) -> Callable[..., Any]:
    """A piece, compiled once per equal setup, also when a run is taken up again in the same process."""
    return functools.partial(_run, function, setup, tuple(sorted(static.items())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(function: Callable[..., Any], setup: Setup, static: tuple[tuple[str, int], ...], *arguments: Any) -> Any:
    return function(setup, *arguments, **dict(static))


def _predict(setup: Setup, state: FineTuneState, slots: Array) -> tuple[Array, Array]:
    def one(graph: Any) -> tuple[Array, Array]:
        prediction = setup.potential.apply(state.train.ema_params, graph, stress=False)
        return prediction.energy[0], prediction.forces

    return jax.lax.map(one, frame_graphs(setup, state, slots))


def _find_tables(setup: Setup, sim: SimState) -> SimState:
    return rebuild(setup.spec, sim)


def _without_tables(state: FineTuneState) -> FineTuneState:
    return dataclasses.replace(state, sim=dataclasses.replace(state.sim, table=None))
