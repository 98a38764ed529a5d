"""Numbers of a fine-tune in the files of other programs, beside its ``metrics.jsonl``."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from mlipjax.files import write_atomic
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.train import StepInfo, TrainState, read_metrics

Log = Literal["csv", "tensorboard", "wandb"]

CSV, TENSORBOARD = "metrics.csv", "tensorboard"


class Tracker(Protocol):
    """Takes the records of epochs, in order; after a stop perhaps some of them again."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Take the line of ``metrics.jsonl`` of one epoch."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class CsvTracker:
    """``metrics.csv``, a row for every line of ``metrics.jsonl``."""

    def __init__(self, folder: Path) -> None:
        """Write into the folder of a run."""
        self.folder = folder

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the table anew: a run that goes on from a checkpoint repeats epochs."""
        rows = [numbers_in(one) for one in read_metrics(self.folder)]
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, names)
        table.writeheader()
        table.writerows(rows)
        write_atomic(self.folder / CSV, text.getvalue())

    def close(self) -> None:
        """Nothing is left."""


class TensorboardTracker:
    """Event files in ``tensorboard/``, by steps of the optimiser."""

    def __init__(self, folder: Path) -> None:
        """Write into the folder of a run."""
        self.package, self.folder = needed("tensorboardX", "tensorboard"), folder
        self.writer: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a point of every curve; the first one hides points that a stopped run had got further."""
        step = int(record["step"])
        if self.writer is None:
            self.writer = self.package.SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step)
        for name, value in numbers_in(record).items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


class WandbTracker:
    """A run of Weights & Biases; ``WANDB_MODE=offline`` keeps it in ``wandb/``, for ``wandb sync``."""

    def __init__(self, folder: Path) -> None:
        """Write into the folder of a run."""
        self.package, self.folder = needed("wandb", "wandb"), folder
        self.run: Any = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Log the numbers of an epoch; the run of a folder is one, however often it is stopped."""
        if self.run is None:
            name = self.folder.resolve()
            one = hashlib.sha256(str(name).encode()).hexdigest()[:16]
            self.run = self.package.init(
                project=os.environ.get("WANDB_PROJECT", "mlipjax"),
                name=name.name,
                id=one,
                dir=str(name),
                resume="allow",
            )
        self.run.log(numbers_in(record), step=int(record["step"]))

    def close(self) -> None:
        """Finish the run."""
        if self.run is not None:
            self.run.finish()


_TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "csv": CsvTracker,
    "tensorboard": TensorboardTracker,
    "wandb": WandbTracker,
}


class LoggedListener(FinetuneListener):
    """A listener that also hands epochs to trackers."""

    def __init__(self, listener: FinetuneListener, trackers: Sequence[Tracker]) -> None:
        """Tell ``listener`` all, and trackers of epochs."""
        self.listener, self.trackers = listener, trackers

    def start(self, preparation: Any) -> None:
        """Before the first step."""
        self.listener.start(preparation)

    def begin(self, record: dict[str, Any]) -> None:
        """With the errors of epoch 0."""
        self.listener.begin(record)

    def step(self, state: TrainState, info: StepInfo) -> None:
        """After every step."""
        self.listener.step(state, info)

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch."""
        self.listener.epoch(record)
        for tracker in self.trackers:
            tracker.write(record)


@contextlib.contextmanager
def logged(
    listener: FinetuneListener | None, log: Sequence[str], out: str | os.PathLike[str] | None
) -> Iterator[FinetuneListener | None]:
    """Listener of a fine-tune that also writes the logs asked for.

    Args:
        listener: what is told all besides.
        log: of ``Log``.
        out: folder of the run.

    Raises:
        ValueError: for a log that is none, without a folder, or whose package is not installed.
    """
    if not log:
        yield listener
        return
    if unknown := set(log) - set(get_args(Log)):
        raise ValueError(f"log is {', '.join(sorted(unknown))}; choose of {', '.join(get_args(Log))}.")
    if out is None:
        raise ValueError("logs lie in the folder of a run; give one (out).")
    trackers = [_TRACKERS[name](Path(out)) for name in dict.fromkeys(log)]
    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
        yield LoggedListener(FinetuneListener() if listener is None else listener, trackers)


def needed(package: str, extra: str) -> Any:
    """A package that an extra of this one installs.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f'this log needs the package {package}, which is not installed: pip install "mlipjax[{extra}]".'
        ) from error


def numbers_in(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of a record, those of records in it as ``name/name``."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= numbers_in(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + name] = value
    return found
