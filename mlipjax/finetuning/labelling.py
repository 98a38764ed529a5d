"""Labels of the loop on the host: asked for as soon as there is a frame, put into the state when they are there.

While MD goes on, the frames it has left behind are labelled; that changes no number. With ``asynchronous`` a round does
not wait for its labels either: it trains on those that have come, the next one samples, and before that one trains all
labels of the round before are waited for. The first round (from which the energy zero is estimated) and the last one
wait for their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import write_atomic
from mlipjax.finetuning.frames import frame_graphs
from mlipjax.finetuning.pieces import OnPiece, Piece, Stopped, compiled, frame_at, no_zero
from mlipjax.finetuning.records import record_labels
from mlipjax.finetuning.round import predict_frames
from mlipjax.finetuning.setup import Setup
from mlipjax.finetuning.state import FineTuneState, FrameErrors, SystemState
from mlipjax.graph import VerletSpec
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.typing import Array, Params

PREDICTED = "predicted.npz"
"""Predictions of models for frames whose labels are under way, in the folder of an asynchronous run."""


class Predicted(NamedTuple):
    """Of the frames of a system in a round, by the model that sampled them: energies (R,) eV, forces (R, N, 3) eV/Å."""

    energies: np.ndarray
    forces: np.ndarray


class FrameLabels:
    """Hands frames to a labeller, and its labels to the state.

    Args:
        labeller: oracle, workers and label store.
        asynchronous: rounds do not wait for their labels; without workers of its own an oracle makes them wait.
        folder: of the run, if any.
    """

    def __init__(self, labeller: Labeller, asynchronous: bool, folder: Path | None) -> None:
        self.asynchronous = asynchronous and labeller.concurrent
        self._labeller = labeller
        self._path = folder / PREDICTED if self.asynchronous and folder is not None else None
        self._predicted = _read(self._path)
        self._started: set[tuple[int, int]] = set()
        self._passed = self._complete = -1

    def start(self, setup: Setup, state: FineTuneState) -> None:
        """Have all frames without a label computed that the run waits for.

        Raises:
            Stopped: labels cannot be computed where they are to be.
        """
        if not self._labeller.concurrent:
            return
        first = int(state.round) - int(self.asynchronous)
        for index, (own, system) in enumerate(zip(setup.systems, state.systems, strict=True)):
            open = (np.asarray(system.buffer.round) >= max(first, 0)) & ~np.asarray(system.buffer.labelled)
            new = [slot for slot in np.flatnonzero(open).tolist() if (index, slot) not in self._started]
            self._started |= {(index, slot) for slot in new}
            with _stopping(int(state.round)):
                self._labeller.start([frame_at(own.spec, system, slot) for slot in new])

    def passed(self, state: FineTuneState) -> bool:
        """Tell whether a round has been through with labelling, though none of its labels may be there."""
        return self._passed == int(state.round)

    def label(
        self, setup: Setup, state: FineTuneState, on_piece: OnPiece, *, wait: bool
    ) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """Label the frames of this round, of all systems together, so that no worker waits for another system.

        Args:
            setup: static parts.
            state: with all frames of the round, and the model that sampled them.
            on_piece: is told of labels.
            wait: for all labels of the round; else for those of the one before.

        Returns:
            the state with the labels that are there, and a record for each system of every round that is complete.

        Raises:
            Stopped: every label of a round failed, or the energy zero cannot be found.
        """
        this = int(state.round)
        slots = _slots(state, this)
        self._keep(this, [_predicted(setup, state, index, new) for index, new in enumerate(slots)])
        self._passed = this
        state, records = self.complete_before(setup, state, on_piece)
        if wait or not self.asynchronous:
            state, new = self.complete(setup, state, this, on_piece)
            return state, records + new
        return self.arrived(setup, state), records

    def arrived(self, setup: Setup, state: FineTuneState) -> FineTuneState:
        """The state with those labels of this round that have come by now."""
        if not self.asynchronous:
            return state
        systems = list(state.systems)
        for index, new in enumerate(_slots(state, int(state.round))):
            own, system = setup.systems[index], systems[index]
            new = new[~np.asarray(system.buffer.labelled)[new]]
            frames = [frame_at(own.spec, system, slot) for slot in new]
            with _stopping(int(state.round)):
                found = self._labeller.collect(frames)
            there = [number for number, outcome in enumerate(found) if isinstance(outcome, Labels)]
            if there:
                labels, good = _stacked(setup, [frames[n] for n in there], [found[n] for n in there])
                buffer = system.buffer.set_labels(jnp.asarray(new[there]), labels, jnp.asarray(good))
                systems[index] = dataclasses.replace(system, buffer=buffer)
        return dataclasses.replace(state, systems=tuple(systems))

    def complete_before(
        self, setup: Setup, state: FineTuneState, on_piece: OnPiece
    ) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """The same as ``complete`` for the round before this one, if it did not wait for its labels."""
        before = int(state.round) - 1
        if not self.asynchronous or before <= self._complete or before not in self._predicted:
            return state, []
        return self.complete(setup, state, before, on_piece)

    def complete(
        self, setup: Setup, state: FineTuneState, round: int, on_piece: OnPiece
    ) -> tuple[FineTuneState, list[dict[str, Any]]]:
        """Wait for all labels of a round; the state with them, and a record of every system.

        Raises:
            Stopped: see ``label``.
        """
        slots = _slots(state, round)
        frames = [
            [frame_at(own.spec, system, slot) for slot in new]
            for own, system, new in zip(setup.systems, state.systems, slots, strict=True)
        ]
        outcomes = iter(self._outcomes(round, [frame for new in frames for frame in new], on_piece))
        found = [_stacked(setup, new, list(itertools.islice(outcomes, len(new)))) for new in frames]
        predictions, systems = self._predicted[round], list(state.systems)
        estimates = round == 0 and setup.config.estimate_shift
        if estimates:
            if missing := [index for index, (_, good) in enumerate(found) if not good.any()]:
                raise no_zero(missing[0])
            means = [
                np.mean(labels.energy[good] - predicted.energies[good])
                for (labels, good), predicted in zip(found, predictions, strict=True)
            ]
            systems = [
                dataclasses.replace(system, energy_shift=jnp.asarray(shift, system.energy_shift.dtype))
                for system, shift in zip(systems, setup.explained @ np.array(means), strict=True)
            ]
        records = []
        for index, (own, new, (labels, good)) in enumerate(zip(setup.systems, slots, found, strict=True)):
            system = systems[index]
            numbers, shift = np.asarray(system.sim.atomic_numbers), float(system.energy_shift)
            errors = FrameErrors.of(*predictions[index], labels, shift, numbers, own)
            record = record_labels(
                own, errors, good, int((~good).sum()), shift, check_zero=round == 0 and not estimates
            )
            records.append({"system": index, "round": round, **record})
            buffer = system.buffer.set_labels(jnp.asarray(new), labels, jnp.asarray(good))
            systems[index] = dataclasses.replace(system, buffer=buffer)
        self._complete = round
        return dataclasses.replace(state, systems=tuple(systems)), records

    def _outcomes(self, round: int, systems: list[System], on_piece: OnPiece) -> list[Labels | Failure]:
        def tell(done: int, total: int, outcome: Labels | Failure) -> None:
            on_piece(Piece(round, "label", done, total))

        with _stopping(round):
            outcomes = self._labeller.label(systems, tell)
        if all(isinstance(outcome, Failure) for outcome in outcomes):
            reason = next(outcome.reason for outcome in outcomes if isinstance(outcome, Failure))
            raise Stopped(f"round {round}: none of {len(systems)} labels succeeded: {reason}")
        return outcomes

    def _keep(self, round: int, predicted: list[Predicted]) -> None:
        """Keep what was predicted in this round beside what was in the one before, whose labels may be under way."""
        self._predicted = {r: known for r, known in self._predicted.items() if r == round - 1} | {round: predicted}
        if self._path is not None:
            arrays = {
                f"{number}/{index}/{name}": array
                for number, parts in self._predicted.items()
                for index, part in enumerate(parts)
                for name, array in part._asdict().items()
            }
            content = io.BytesIO()
            np.savez(content, **arrays)
            write_atomic(self._path, content.getvalue())


def _read(path: Path | None) -> dict[int, list[Predicted]]:
    """Content that ``FrameLabels`` kept in a file; nothing if there is none."""
    found: dict[int, list[Predicted]] = {}
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as arrays:
            for name in sorted(arrays.files, key=lambda name: tuple(map(int, name.split("/")[:2]))):
                number, index, field = name.split("/")
                if field == "energies":
                    part = Predicted(arrays[name], arrays[f"{number}/{index}/forces"])
                    found.setdefault(int(number), []).append(part)
    return found


@contextlib.contextmanager
def _stopping(round: int) -> Iterator[None]:
    """Turn an error of the workers into the end of a run."""
    try:
        yield
    except BrokenExecutor as error:
        raise Stopped(f"round {round}: {error}") from error


def _slots(state: FineTuneState, round: int) -> list[np.ndarray]:
    """Slots of the frames of a round in the buffer of each system."""
    return [np.flatnonzero(np.asarray(system.buffer.round) == round) for system in state.systems]


def _stacked(setup: Setup, frames: list[System], outcomes: list[Any]) -> tuple[Labels, np.ndarray]:
    """Labels of a system's frames, one after the other, without the model's isolated atoms; and which are any."""
    good = np.array([not isinstance(outcome, Failure) for outcome in outcomes])
    reference = setup.potential.reference_energy(frames[0].atomic_numbers)
    empty = Labels.create(frames[0].n_atoms)
    labels = [
        empty if isinstance(outcome, Failure) else dataclasses.replace(outcome, energy=outcome.energy - reference)
        for outcome in outcomes
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *labels), good


def _predicted(setup: Setup, state: FineTuneState, index: int, slots: np.ndarray) -> Predicted:
    """Energies and forces, by the model that sampled them, of frames of a system."""
    predict = compiled(_predict, setup.potential, setup.systems[index].spec)
    energies, forces = predict(state.train.ema_params, state.systems[index], jnp.asarray(slots))
    return Predicted(np.asarray(energies, np.float64), np.asarray(forces, np.float64))


def _predict(
    potential: Potential, spec: VerletSpec, params: Params, system: SystemState, slots: Array
) -> tuple[Array, Array]:
    return predict_frames(potential, params, frame_graphs(spec, system, slots))
