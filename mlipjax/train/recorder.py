"""Files that a run leaves: checkpoints, a line of numbers for every epoch, and models along the way."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlipjax.files import naming, write_atomic
from mlipjax.hosts import arrays_of_first, json_of_first
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.train.state import TrainState
from mlipjax.typing import Params

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """Averaged parameters, those that a run validates, to be kept at some of its steps.

    Attributes:
        steps: optimiser steps done at each; 0 is before the first one.
        write: is called with the number of steps and the parameters. A run that was killed may call it again, with
            the same numbers, for the steps it repeats.
    """

    steps: frozenset[int] = frozenset()
    write: Callable[[int, Params], None] = lambda step, params: None

    def take(self, state: TrainState) -> None:
        """Write if it is time to."""
        if (step := int(state.step)) in self.steps:
            self.write(step, state.ema_params)


class Recorder:
    """Epoch records of one run, its checkpoints, neither on disk without a folder; and its snapshots.

    Snapshots of a step come before any checkpoint of it or of a later one: a run that goes on from a checkpoint has
    those up to there, and takes the others.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None, interval: float, snapshots: Snapshots | None = None
    ) -> None:
        """Record in ``folder``, with at least ``interval`` seconds between checkpoints."""
        self.folder = None if folder is None else Path(folder)
        self.interval = interval
        self.snapshots = Snapshots() if snapshots is None else snapshots
        self.records: list[dict[str, Any]] = []
        self.saved_at = time.monotonic()
        self.checkpoints = None if self.folder is None else Checkpoints(self.folder / CHECKPOINTS)

    def resume(self, state: TrainState) -> TrainState:
        """Return the newest checkpoint, or ``state``; forget epochs recorded after it, which will be repeated.

        Of several processes the first has the folder, and what it finds counts for all.
        """
        if self.folder is not None and self.checkpoints is not None:
            state = self.checkpoints.restore(state) or state
            self.records = [record for record in read_metrics(self.folder) if record["step"] <= int(state.step)]
            write_atomic(self.folder / METRICS, "".join(json.dumps(record) + "\n" for record in self.records))
        state, self.records = arrays_of_first(state), json_of_first(self.records)
        self.snapshots.take(state)
        return state

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        self.records.append(record)
        if self.folder is not None:
            with naming(path := self.folder / METRICS), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def save(self, state: TrainState, *, now: bool = False) -> None:
        """Save a checkpoint if the last one is long enough ago, or ``now``."""
        if self.checkpoints is not None and (now or time.monotonic() - self.saved_at >= self.interval):
            self.checkpoints.save(int(state.step), state)
            self.saved_at = time.monotonic()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.checkpoints is not None:
            self.checkpoints.close()


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the epochs recorded in a run's folder; a line cut short by a kill is left out."""
    path = Path(folder) / METRICS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
