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
from mlipjax.finetuning.pieces import Piece
from mlipjax.finetuning.records import HISTORY, read_history, round_rows
from mlipjax.train import read_metrics

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


class Logged:
    """A listener of a fine-tune, or of a periodic one, that also has numbers logged as soon as there are new ones."""

    def __init__(self, listener: Any, tell: Callable[[], None]) -> None:
        """Tell ``listener`` all, and when there is something to log."""
        self.listener, self.tell = listener, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch."""
        self.listener.epoch(record)
        self.tell()

    def piece(self, piece: Piece) -> None:
        """Before and after every piece of work; labels and training give numbers."""
        self.listener.piece(piece)
        if piece.record is not None and piece.stage in ("label", "train"):
            self.tell()


@contextlib.contextmanager
def logged(
    listener: Any, log: Sequence[str], out: str | os.PathLike[str] | None, lines: Callable[[Path], Lines] = read_metrics
) -> Iterator[Any]:
    """Listener of a fine-tune, or of a periodic one, that also writes the logs asked for.

    Args:
        listener: what is told all besides.
        log: of ``Log``.
        out: folder of the run.
        lines: what is logged of this folder: a line for every epoch, or ``rounds_in`` it.

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
    folder = Path(out)
    trackers = [_TRACKERS[name](folder) for name in dict.fromkeys(log)]

    def tell() -> None:
        for tracker in trackers:
            tracker.write(lines(folder))

    with contextlib.ExitStack() as stack:
        for tracker in trackers:
            stack.callback(tracker.close)
        yield Logged(listener, tell)
        tell()


def rounds_in(folder: Path) -> list[dict[str, Any]]:
    """Lines of a periodic fine-tune in its folder (``lines_of_rounds``)."""
    return lines_of_rounds(read_history(folder / HISTORY))


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
