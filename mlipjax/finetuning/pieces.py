"""Parts that both loops share outside of compiled programs: pieces of work, how they are compiled, tables, the stop."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mlipjax.files import replace_on_success
from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.finetuning.state import FineTuneState, SystemState
from mlipjax.graph import VerletSpec
from mlipjax.system import System

Stage = Literal["sample", "select", "label", "train", "finish", "done"]

RETRIES = 6
"""Number of times that tables that overflowed are made larger before a structure counts as collapsing."""


class Stopped(RuntimeError):
    """A run that cannot go on: the simulation left what a model can be asked for, no label succeeded, ..."""


class Piece(NamedTuple):
    """Progress of a stage of a round.

    Attributes:
        round: from 0.
        stage: "sample" counts frames of a replica, "label" labels, "train" optimiser steps; the others are one piece.
        done, total: parts of the stage; 0 done when it begins.
        record: what also stands in the history, once a part is done and saved; ``None`` before. Of a part that
            has a record of every system, the first one's.
    """

    round: int
    stage: Stage
    done: int
    total: int
    record: dict[str, Any] | None = None


OnPiece = Callable[[Piece], None]


Until = Callable[[Sequence[dict[str, Any]]], str | None]
"""Is given all records before a round and says why to stop, or ``None``."""


def never(history: Sequence[dict[str, Any]]) -> str | None:
    """Go on to the last round."""
    return None


class LoopResult(NamedTuple):
    """The final state, the records of all pieces in order, and why it ended before its last round, if it did."""

    state: FineTuneState
    history: list[dict[str, Any]]
    reason: str | None = None


def frame_at(spec: VerletSpec, system: SystemState, slot: Any) -> System:
    """A frame of a system's buffer, on the host."""
    return System(
        positions=np.asarray(system.buffer.position[slot], np.float64),
        atomic_numbers=np.asarray(system.sim.atomic_numbers),
        cell=np.asarray(system.buffer.cell[slot], np.float64),
        pbc=spec.pbc,
    )


def collapsing() -> Stopped:
    """The error for tables that are too small whatever their size."""
    return Stopped(f"neighbour tables overflowed {RETRIES} times in a row: the structure is collapsing")


def out_of_bounds(round: int, system: int, saved: str = "", after: str = "") -> Stopped:
    """The error for MD of a system that left its limits; ``after`` how many steps, its frame ``saved`` where."""
    return Stopped(
        f"round {round}: a replica of system {system} became too hot, too dense or not finite{after}{saved}. Shorten "
        "the time step, lower the temperature or label more often"
    )


def alarm_stop(
    round: int,
    system: int,
    alarm: AlarmConfig,
    raised: Sequence[int],
    index: Sequence[Sequence[float]],
    saved: str = "",
) -> Stopped:
    """The error for the alarm of some replicas that stops a run.

    Args:
        round: from 0.
        system: from 0.
        alarm: whose index decides.
        raised: replicas with an alarm.
        index: (R, C) readings of every replica.
        saved: where their frames are, in words.
    """
    worst = max(max(index[replica]) for replica in raised)
    return Stopped(
        f"round {round}: the {alarm.index} index of replica {', '.join(map(str, raised))} of system {system} is "
        f"{worst:.2f} times its limit{saved}. Choose on_alarm label or rollback to label such frames and go on"
    )


def no_zero(system: int) -> Stopped:
    """The error for a system without any label in the first round, from which energy zeros are estimated."""
    return Stopped(
        f"round 0: no label of system {system} succeeded, so the difference of its energy zero cannot be estimated. "
        'Start it elsewhere, give labelled frames (data), or choose e0s="model"'
    )


def not_finite(round: int) -> Stopped:
    """The error for training that diverged."""
    return Stopped(f"round {round}: loss or gradient is not finite; lower the learning rate")


def save_stopped(spec: VerletSpec, system: SystemState, folder: Path | None) -> str:
    """Save the newest frame of every replica as ``stopped.extxyz``, if there is a folder; say so in words."""
    if folder is None:
        return ""
    from ase.io import write

    frames = _replicas(spec, system)
    with replace_on_success(folder / "stopped.extxyz") as temporary:
        write(temporary, [frame.to_ase() for frame in frames], format="extxyz")
    return "; see stopped.extxyz"


def enlarged(spec: VerletSpec, system: SystemState, moved_too_far: bool, n_neighbors: int) -> VerletSpec:
    """Tables for where the replicas are now: more slots after an overflow, a wider skin after atoms moved too far."""
    systems = _replicas(spec, system)
    if moved_too_far:
        spec = dataclasses.replace(spec, skin=1.5 * spec.skin)
    return spec.grown(systems, n_neighbors)


def _replicas(spec: VerletSpec, system: SystemState) -> list[System]:
    """Where the replicas of a system are now."""
    dynamics, numbers = system.sim.dynamics, np.asarray(system.sim.atomic_numbers)
    return [
        System(np.asarray(position), numbers, np.asarray(cell), spec.pbc)
        for position, cell in zip(dynamics.position, dynamics.cell, strict=True)
    ]


def compiled(function: Callable[..., Any], *constants: Any, **static: Any) -> Callable[..., Any]:
    """A piece, compiled once per equal constants, also when a run is taken up again in the same process."""
    return functools.partial(run_piece, function, constants, tuple(sorted(static.items())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_piece(
    function: Callable[..., Any], constants: tuple[Any, ...], static: tuple[tuple[str, Any], ...], *arguments: Any
) -> Any:
    """Call ``function(*constants, *arguments, **static)``."""
    return function(*constants, *arguments, **dict(static))
