"""One run of a claim: its folder, and what it leaves there and says at its end."""

from __future__ import annotations

import dataclasses
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.lab import record
from experiments.lab.display import Table, make_console
from mlipjax import report, runtime
from mlipjax.files import make_folder, plain, write_atomic
from mlipjax.locks import LOCK, Lock

_APART = ("out", "workers")
"""Options that change no result."""

_LOCKS: list[Lock] = []
"""Of this process, until it ends."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Findings of a finished run: a function of its results alone.

    Attributes:
        verdict: one paragraph that a hurried reader can act on.
        answer: to the claim: "supported", "contradicted", "not decided"; "measured" where nothing is to be decided.
        numbers: by name; some of them are expected (``expected.json``).
        brief: tables for the terminal, kept with the numbers.
        title: of the report; without one there is no report.
        content: figures and tables of the report in order; a figure's key is the name of its PNG. The first figure is
            the one that is kept with the result.
        alarm: whether the verdict is a warning.
    """

    verdict: str
    answer: str
    numbers: Mapping[str, record.Number]
    brief: Sequence[Table] = ()
    title: str = ""
    content: Mapping[str, report.Illustration | report.Table] = dataclasses.field(default_factory=dict)
    alarm: bool = False


class Run:
    """A run from its first moment: it says what is done, and ends with ``finish``.

    Args:
        config: its options, of the ``config`` module of its claim.
        claim: whether other processes are kept out of its folder, and other settings refused there.

    Raises:
        ValueError: if the folder holds a run with other settings.
        InUseError: if another process works in it.
    """

    def __init__(self, config: Any, *, claim: bool = True) -> None:
        self.console, self.folder = make_console(), Path(config.out)
        self.began: float | None = time.monotonic()
        self.day = datetime.date.today()
        self.name = type(config).__module__.split(".")[1]
        self.command = " ".join([f"python -m experiments.{self.name}", *sys.argv[1:]])
        self.settings = settings_of(config)
        presets = presets_of(type(config)).items()
        self.preset = next((name for name, preset in presets if settings_of(resolved(preset)) == self.settings), None)
        if claim:
            claim_folder(self.folder, self.settings)

    def stored(self) -> dict[str, Any] | None:
        """Return the results of a run that is done."""
        file = self.folder / "results.json"
        if not file.exists():
            return None
        self.console.print(f"{self.folder} is done: see report.html there, or choose another --out")
        self.began, self.day = None, datetime.date.fromtimestamp(file.stat().st_mtime)
        return json.loads(file.read_text(encoding="utf-8"))

    def results(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was found, with what it depends on."""
        return {"settings": self.settings, **found, "versions": runtime.versions()}

    def finish(self, results: Mapping[str, Any], outcome: Outcome) -> None:
        """Write report, figures and results, keep the numbers, and print what was found and what was expected."""
        if outcome.title:
            content = [
                dataclasses.replace(part, name=name) if isinstance(part, report.Illustration) else part
                for name, part in outcome.content.items()
            ]
            report.write_report(
                self.folder / "report.html",
                title=outcome.title,
                verdict=outcome.verdict,
                content=content,
                versions=results["versions"],
                command=self.command,
                alarm=outcome.alarm,
            )
        if not (self.folder / record.FILE).exists():
            write_atomic(self.folder / record.FILE, record.dumps(self._record(results, outcome)))
        # last: its presence says that the run is done
        write_atomic(self.folder / "results.json", json.dumps(plain(results), indent=1, allow_nan=False))
        self._print(outcome)

    def _record(self, results: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
        """Record of a run that finishes for the first time; minutes are those of the process that ends it."""
        settings, versions = results["settings"], results["versions"]
        figures = (f"{key}.png" for key, part in outcome.content.items() if isinstance(part, report.Illustration))
        minutes = None if self.began is None else round((time.monotonic() - self.began) / 60.0, 1)
        return plain({
            "claim": self.name,
            "preset": self.preset,
            "answer": outcome.answer,
            "command": self.command,
            "commit": versions.get("git commit"),
            "date": self.day.isoformat(),
            "minutes": minutes,
            "dtype": settings.get("dtype", "float32"),
            "device": versions["devices"],
            "numbers": {name: number._asdict() for name, number in outcome.numbers.items()},
            "verdict": outcome.verdict,
            "figure": next(figures, None),
            "tables": [record.markdown(table.headings, table.rows, table.title) for table in outcome.brief],
        })  # fmt: skip

    def _print(self, outcome: Outcome) -> None:
        self.console.print(*outcome.brief, sep="")
        wanted = [] if self.preset is None else record.expected(self.name, self.preset)
        found = {row.name: outcome.numbers[row.name] for row in wanted if row.name in outcome.numbers}
        if wanted:
            title = f"what preset {self.preset} should find"
            self.console.print(Table(record.COLUMNS, record.compared(found, wanted), title, words=True))
        else:
            what = "these options, which are no preset's" if self.preset is None else f"preset {self.preset}"
            self.console.print(f"nothing is expected of {what}")
        self.console.print(f"{outcome.answer}: {outcome.verdict}")
        if outcome.title:
            self.console.print(f"report: {self.folder / 'report.html'}")


def presets_of(kind: type) -> Mapping[str, Any]:
    """Named configs of a claim: ``PRESETS`` of the module that defines the type of its configs."""
    return sys.modules[kind.__module__].PRESETS


def resolved(config: Any) -> Any:
    """A config with everything filled that depends on other options, where there is such a thing."""
    return config.resolved() if hasattr(config, "resolved") else config


def settings_of(config: Any) -> dict[str, str]:
    """Every option as text, but for those that do not change results."""
    return {key: str(value) for key, value in dataclasses.asdict(config).items() if key not in _APART}


def claim_folder(folder: Path, settings: dict[str, str]) -> None:
    """Make the folder of a run, keep other processes out of it, and note its settings there.

    A folder in which an earlier run left nothing but its settings is free.

    Raises:
        ValueError: if the folder holds a run with other settings.
        InUseError: if another process works in it.
    """
    make_folder(folder)
    _LOCKS.append(Lock(folder))
    file = folder / "settings.json"
    present = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not present or all(path == file or path.name == LOCK or path.suffix == ".tmp" for path in folder.iterdir()):
        write_atomic(file, json.dumps(settings, indent=1))
    elif changed := [key for key in settings if present.get(key) != settings[key]]:
        key = changed[0]
        raise ValueError(
            f"{folder} holds a run with {key}={present.get(key)}, this one has {key}={settings[key]}; "
            "choose another --out or delete the folder"
        )
