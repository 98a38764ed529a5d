"""What a run leaves in its folder: checkpoints, and a line of numbers for every epoch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from mlipjax.files import write_atomic
from mlipjax.train.checkpoint import Checkpoints
from mlipjax.train.state import TrainState

METRICS = "metrics.jsonl"


class Recorder:
    """Checkpoints and epoch records of one run; without a folder it records nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None, interval: float) -> None:
        """Record in ``folder``, with at least ``interval`` seconds between checkpoints."""
        self.folder = None if folder is None else Path(folder)
        self.interval = interval
        self.saved_at = time.monotonic()
        self.checkpoints = None if self.folder is None else Checkpoints(self.folder / "checkpoints")

    def resume(self, state: TrainState) -> TrainState:
        """Return the newest checkpoint, or ``state``; forget epochs recorded after it, which will be repeated."""
        if self.folder is None or self.checkpoints is None:
            return state
        state = self.checkpoints.restore(state) or state
        records = [record for record in read_metrics(self.folder) if record["step"] <= int(state.step)]
        write_atomic(self.folder / METRICS, "".join(json.dumps(record) + "\n" for record in records))
        return state

    def write(self, record: dict[str, Any]) -> None:
        """Append one line."""
        if self.folder is not None:
            with open(self.folder / METRICS, "a", encoding="utf-8") as file:
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
