"""The one state of a periodic fine-tune: the carry of the compiled loop and the checkpoint of the host loop."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.finetuning.alarm import WatchState
from mlipjax.finetuning.setup import SystemSetup
from mlipjax.md.state import SimState
from mlipjax.monitoring import MonitorState
from mlipjax.system import Labels, System
from mlipjax.train import TrainState
from mlipjax.typing import Array, Bool, Float, Int, Key


@struct.dataclass
class LabelBuffer:
    """Frames of one system and their labels: C slots, filled in order.

    Attributes:
        position: (C, N, 3) Å.
        cell: (C, 3, 3) Å.
        labels: with a leading axis C; energies without the student's isolated-atom energies.
        round: (C,) round a frame was made in, -1 for empty slots.
        labelled: (C,) whether the slot holds a label to train on; false for empty slots and failed labels.
        count: () slots filled.
    """

    position: Float[Array, "C N 3"]
    cell: Float[Array, "C 3 3"]
    labels: Labels
    round: Int[Array, " C"]
    labelled: Bool[Array, " C"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, system: System, capacity: int, dtype: Any) -> LabelBuffer:
        """Slots for frames of ``system``; empty ones hold its own positions, which are valid to build a graph of."""
        zeros = jnp.zeros((capacity,), dtype)
        shape = (capacity, system.n_atoms, 3)
        return cls(
            position=jnp.broadcast_to(jnp.asarray(system.positions, dtype), shape),
            cell=jnp.broadcast_to(jnp.asarray(system.cell, dtype), (capacity, 3, 3)),
            labels=Labels(zeros, jnp.zeros(shape, dtype), jnp.zeros((capacity, 3, 3), dtype), zeros, zeros, zeros),
            round=jnp.full((capacity,), -1, jnp.int32),
            labelled=jnp.zeros((capacity,), bool),
            count=jnp.zeros((), jnp.int32),
        )

    def append(
        self, position: Float[Array, "R N 3"], cell: Float[Array, "R 3 3"], round: Int[Array, ""]
    ) -> LabelBuffer:
        """Put R frames into the next slots; they are not labelled yet."""
        slots = self.count + jnp.arange(position.shape[0])
        return dataclasses.replace(
            self,
            position=self.position.at[slots].set(position),
            cell=self.cell.at[slots].set(cell),
            round=self.round.at[slots].set(round),
            count=self.count + position.shape[0],
        )

    def set_labels(self, slots: Int[Array, " R"], labels: Labels, good: Bool[Array, " R"]) -> LabelBuffer:
        """Put labels (leading axis R) into slots; those that are not ``good`` stay unlabelled."""
        stored = jax.tree.map(lambda all, new: all.at[slots].set(new.astype(all.dtype)), self.labels, labels)
        return dataclasses.replace(self, labels=stored, labelled=self.labelled.at[slots].set(good))


@struct.dataclass
class Candidates:
    """Frames of one system and round of which some will be labelled: P slots, filled in order.

    Attributes:
        position: (P, N, 3) Å.
        cell: (P, 3, 3) Å.
        count: () slots filled.
    """

    position: Float[Array, "P N 3"]
    cell: Float[Array, "P 3 3"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, system: System, capacity: int, dtype: Any) -> Candidates:
        """Empty slots, at the positions of ``system``."""
        buffer = LabelBuffer.empty(system, capacity, dtype)
        return cls(buffer.position, buffer.cell, buffer.count)

    def append(self, position: Float[Array, "R N 3"], cell: Float[Array, "R 3 3"]) -> Candidates:
        """Put R frames into the next slots."""
        slots, count = self.count + jnp.arange(position.shape[0]), self.count + position.shape[0]
        return Candidates(self.position.at[slots].set(position), self.cell.at[slots].set(cell), count)


@struct.dataclass
class SystemState:
    """Everything that belongs to one system.

    Attributes:
        sim: replicas.
        buffer: frames and labels so far.
        energy_shift: () eV, taken off every label: the difference of energy zero between oracle and student.
        monitor: charts of its labelled frames under the newest parameters; ``None`` if none are kept.
        watch: what alarms depend on; ``None`` if MD is not watched.
        candidates: frames of this round that are not chosen yet; ``None`` if all that are sampled are labelled.
    """

    sim: SimState
    buffer: LabelBuffer
    energy_shift: Float[Array, ""]
    monitor: MonitorState | None = None
    watch: WatchState | None = None
    candidates: Candidates | None = None


@struct.dataclass
class FineTuneState:
    """Everything the next round depends on, besides static configuration and the numbers in ``Controls``.

    Attributes:
        round: () rounds done.
        key: PRNG key of the run, never split.
        train: parameters, optimiser and their averages; the averaged parameters drive MD.
        systems: replicas, frames and labels of each system.
    """

    round: Int[Array, ""]
    key: Key
    train: TrainState
    systems: tuple[SystemState, ...]

    def with_system(self, index: int, system: SystemState) -> FineTuneState:
        """The same state with another one of its systems."""
        systems = list(self.systems)
        systems[index] = system
        return dataclasses.replace(self, systems=tuple(systems))


def system_key(key: Key, index: int) -> Key:
    """Key of a system, from the run's; the first one has that itself, so that more systems do not move its numbers."""
    return key if index == 0 else jax.random.fold_in(key, _SYSTEMS + index)


_SYSTEMS = 0x5359_5300
"""Beyond all numbers of rounds, steps and replicas that keys are folded with."""


class FrameErrors(NamedTuple):
    """Predictions minus labels, of R frames of one system.

    Attributes:
        energy: (R,) eV.
        force_rmse, force_mae: (R,) eV/Å, over atoms and components.
        element_force_rmse: (R,) eV/Å over the atoms of each element, in the order of the composition.
        worst_atom: (R,) atom whose force is furthest off.
    """

    energy: Float[Array, " R"]
    force_rmse: Float[Array, " R"]
    force_mae: Float[Array, " R"]
    element_force_rmse: tuple[Float[Array, " R"], ...]
    worst_atom: Int[Array, " R"]

    @classmethod
    def of(cls, energies: Any, forces: Any, labels: Labels, shift: Any, atomic_numbers: Any, own: SystemSetup) -> Self:
        """Compare; arrays of JAX or numpy alike.

        Args:
            energies: (R,) eV, predicted.
            forces: (R, N, 3) eV/Å, predicted.
            labels: with a leading axis R.
            shift: eV, by how much the labels' energies are higher for their zero alone.
            atomic_numbers: (N,).
            own: the system.
        """
        difference = forces - labels.forces
        of_atom = (difference**2).mean(axis=2)
        return cls(
            energy=energies + shift - labels.energy,
            force_rmse=(difference**2).mean(axis=(1, 2)) ** 0.5,
            force_mae=abs(difference).mean(axis=(1, 2)),
            element_force_rmse=tuple(
                ((of_atom * (atomic_numbers == z)[None, :]).sum(axis=1) / count) ** 0.5 for z, count in own.composition
            ),
            worst_atom=of_atom.argmax(axis=1),
        )


@struct.dataclass
class SystemInfo:
    """Report of a round on one system; with a leading axis after a scan.

    Attributes:
        temperature: (R, S) K, after every MD step.
        potential_energy: (R, S) eV, interaction energy after every MD step.
        labels_made: () labels the round added.
        labels_failed: () frames it could not use.
        md_good: () false if a replica became too hot, too dense or not finite.
        md_valid: () false if a neighbour table overflowed or went stale: the round must be repeated.
        moved_too_far: () whether atoms moved so far that the skin of the tables was too thin.
        n_neighbors: () largest number of neighbours of an atom.
        errors: of the model that sampled the F frames of the round, on their labels.
        labelled: (F,) which of these labels count.
        alarms: (R,) whether a replica raised an alarm in the round; its frame is then the alarmed one.
        alarm_index: (R, C) after every chunk, the deciding index over its limit; 0 where there is no limit, or while
            a replica is held at its alarmed frame. Empty (C = 0) if MD is not watched.
        chosen: (K,) which of the sampled frames were labelled; empty if all were.
    """

    temperature: Float[Array, "R S"]
    potential_energy: Float[Array, "R S"]
    labels_made: Int[Array, ""]
    labels_failed: Int[Array, ""]
    md_good: Bool[Array, ""]
    md_valid: Bool[Array, ""]
    moved_too_far: Bool[Array, ""]
    n_neighbors: Int[Array, ""]
    errors: FrameErrors
    labelled: Bool[Array, " F"]
    alarms: Bool[Array, " R"]
    alarm_index: Float[Array, "R C"]
    chosen: Int[Array, " K"]


@struct.dataclass
class RoundInfo:
    """Report of a round; with a leading axis after a scan.

    Attributes:
        loss: (T,) training loss of each step.
        train_finite: () false if an optimiser step was skipped because its gradient was not finite.
        systems: what each system has to report.
    """

    loss: Float[Array, " T"]
    train_finite: Bool[Array, ""]
    systems: tuple[SystemInfo, ...]
