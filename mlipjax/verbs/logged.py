"""Numbers of a fine-tune, or of a periodic one, in the files of other programs, beside those of the run itself."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from mlipjax.files import digest, write_atomic
from mlipjax.finetuning.history import HISTORY, read_history
from mlipjax.finetuning.periodic import PeriodicListener
from mlipjax.finetuning.pieces import Piece
from mlipjax.finetuning.records import round_rows
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.train import StepInfo, TrainState, read_metrics

Log = Literal["csv", "tensorboard", "wandb"]
Lines = Sequence[Mapping[str, Any]]

CSV, TENSORBOARD = "metrics.csv", "tensorboard"


class Tracker(Protocol):
    """Takes the lines of a run, each with its ``step`` of the optimiser."""

    def write(self, lines: Lines) -> None:
        """Take all lines up to now; those that it has are not written again."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class CsvTracker:
    """``metrics.csv``, a row for every line."""

    def __init__(self, folder: Path) -> None:
        """Write into the folder of a run."""
        self.folder = folder

    def write(self, lines: Lines) -> None:
        """Write the table anew: a run that goes on from a checkpoint repeats lines."""
        rows = [numbers_in(line) for line in lines]
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
        self.written = 0

    def write(self, lines: Lines) -> None:
        """Write a point of every curve; the first ones hide those of a run that was stopped, which come again."""
        for line in lines[self.written :]:
            step = int(line["step"])
            if self.writer is None:
                self.writer = self.package.SummaryWriter(str(self.folder / TENSORBOARD), purge_step=step)
            for name, value in numbers_in(line).items():
                self.writer.add_scalar(name, value, step)
        self.written = len(lines)
        if self.writer is not None:
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
        self.written = 0

    def write(self, lines: Lines) -> None:
        """Log the numbers of lines; the run of a folder is one, however often it is stopped."""
        if not lines:
            return
        if self.run is None:
            name = self.folder.resolve()
            one = digest(str(name))[:16]
            self.run = self.package.init(
                project=os.environ.get("WANDB_PROJECT", "mlipjax"),
                name=name.name,
                id=one,
                dir=str(name),
                resume="allow",
            )
        for line in lines[self.written :]:
            self.run.log(numbers_in(line), step=int(line["step"]))
        self.written = len(lines)

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
    """A listener that also has epochs logged."""

    def __init__(self, listener: FinetuneListener, tell: Callable[[], None]) -> None:
        """Tell ``listener`` all, and of epochs that there is something to log."""
        self.listener, self.tell = listener, tell

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
        self.tell()


class LoggedPeriodicListener(PeriodicListener):
    """A listener that also has labels and training of rounds logged."""

    def __init__(self, listener: PeriodicListener, tell: Callable[[], None]) -> None:
        """Tell ``listener`` all, and of pieces that give numbers that there is something to log."""
        self.listener, self.tell = listener, tell

    def start(self, plan: Any) -> None:
        """Before the first step."""
        self.listener.start(plan)

    def piece(self, piece: Piece) -> None:
        """Before and after every piece of work."""
        self.listener.piece(piece)
        if piece.record is not None and piece.stage in ("label", "train"):
            self.tell()


@contextlib.contextmanager
def logged(
    listener: FinetuneListener | None, log: Sequence[str], out: str | os.PathLike[str] | None
) -> Iterator[FinetuneListener | None]:
    """Listener of a fine-tune that also writes the logs asked for, a line for every epoch; errors as ``_told``.

    Args:
        listener: what is told all besides.
        log: of ``Log``.
        out: folder of the run.
    """
    with _told(log, out, read_metrics) as tell:
        yield listener if tell is None else LoggedListener(listener or FinetuneListener(), tell)


@contextlib.contextmanager
def logged_rounds(
    listener: PeriodicListener | None, log: Sequence[str], out: str | os.PathLike[str] | None
) -> Iterator[PeriodicListener | None]:
    """Listener of a periodic fine-tune that also writes logs (``lines_of_rounds``); arguments as ``logged``."""
    with _told(log, out, lambda folder: lines_of_rounds(read_history(folder / HISTORY))) as tell:
        yield listener if tell is None else LoggedPeriodicListener(listener or PeriodicListener(), tell)


@contextlib.contextmanager
def _told(
    log: Sequence[str], out: str | os.PathLike[str] | None, lines: Callable[[Path], Lines]
) -> Iterator[Callable[[], None] | None]:
    """Writer of the lines of a folder to the logs asked for, called once more at the end; ``None`` for no log.

    Raises:
        ValueError: for a log that is none, without a folder, or whose package is not installed.
    """
    if not log:
        yield None
        return
    if unknown := set(log) - set(get_args(Log)):
        raise ValueError(f"log is {', '.join(sorted(unknown))}; choose of {', '.join(get_args(Log))}.")
    if out is None:
        raise ValueError("logs lie in the folder of a run; give one (out).")
    folder = Path(out)
    trackers = [_TRACKERS[name](folder) for name in dict.fromkeys(log)]

    def tell() -> None:
        for tracker in trackers:
            tracker.write(lines(folder))

    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
        yield tell
        tell()


def lines_of_rounds(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a periodic fine-tune, by all steps of the optimiser up to them.

    One for the labels of every round, with the errors on them of the model that had not seen them
    (``records.round_rows``), and one for every piece of training, with its mean loss.

    Args:
        history: records of the run.
    """
    rows = {row["round"]: row for row in round_rows(history)}
    lines: list[dict[str, Any]] = []
    step = 0
    for record in history:
        number = record["round"] + 1
        if record["stage"] == "train":
            step += len(record["loss"])
            lines.append({"step": step, "round": number, "train_loss": float(np.mean(record["loss"]))})
        elif record["stage"] == "label" and (row := rows.pop(number, None)) is not None:
            parts = {f"system_{index}": part for index, part in enumerate(row.pop("systems"), 1)}
            row.pop("loss")  # of its training, which comes after
            lines.append({"step": step, **row, **(parts if len(parts) > 1 else {})})
    return lines


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
