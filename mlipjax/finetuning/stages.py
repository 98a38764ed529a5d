"""Next piece of work of the loop on the host, read off its state."""

from __future__ import annotations

import numpy as np

from mlipjax.finetuning.pieces import Stage
from mlipjax.finetuning.setup import Setup
from mlipjax.finetuning.state import FineTuneState, SystemState


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
