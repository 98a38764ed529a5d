"""The folder of a fine-tune: which run it belongs to, and whether that run is done."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax import tree
from mlipjax.data import hash_input
from mlipjax.defaults import BY_MUON
from mlipjax.files import digest, write_atomic
from mlipjax.locks import LOCK, folder_alone
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings, PeriodicSettings
from mlipjax.train.loop import BAD_FRAMES
from mlipjax.train.recorder import CHECKPOINTS, METRICS

RUN, REPORT, SNAPSHOTS, SPEC = "run.json", "report.json", "snapshots", "run.toml"


def describe_settings(settings: FinetuneSettings | PeriodicSettings) -> dict[str, Any]:
    """Return the settings in JSON types, with the default optimiser and fingerprints of the files that they name."""
    given: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    # the default has been another one
    given["optimizer"] = settings.optimizer or ("muon" if settings.strategy in BY_MUON else "adam")
    for name in ("e0s", "replay", "anchor"):
        path = getattr(settings, name, None)
        if path is not None and (found := hash_input(path)) is not None:
            given[f"{name}_sha256"] = found
    return given


def hash_model(model: Model) -> str:
    """Fingerprint of a potential and its parameters."""
    potential, params = model
    leaves = (part for path, leaf in tree.flatten_paths(params).items() for part in (path, np.asarray(leaf)))
    return digest(repr(potential.config), np.asarray(potential.e0s), *leaves)


def find_run(folder: Path, description: dict[str, Any], report: str = REPORT) -> dict[str, Any] | None:
    """Check that a folder is free for a run, or holds this one; return its ``report`` if it is done already.

    Nothing is written: a run that is refused before its first step leaves its folder to the corrected one. Nor does a
    run that ended before its first checkpoint keep another out.

    Raises:
        ValueError: if the folder holds another run, or a model that this run would overwrite.
    """
    if (folder / RUN).is_file():
        found = _read(folder / RUN)
        if found is not None and _given(found) == _given(description):
            return _read(folder / report)
        if not _is_begun(folder):
            return None
        how = "without a readable run.json" if found is None else _difference(found, description)
        raise ValueError(f"{folder} holds another run: {how}. Choose another folder.")
    if _is_begun(folder):
        raise ValueError(f"{folder} is not empty and holds no fine-tune; choose another folder.")
    return None


@contextmanager
def run_folder(
    folder: Path | None,
    description: dict[str, Any],
    report: str = REPORT,
    is_done: Callable[[dict[str, Any]], bool] = lambda report: True,
) -> Iterator[dict[str, Any] | None]:
    """Hold the folder of a run alone, and yield the report if the run is done already.

    A run that is done is only read, without a lock: it may lie where nothing can be written.

    Args:
        folder: of the run.
        description: what must be equal for it to be the same run.
        report: name of its results.
        is_done: whether a run with these results has nothing left to do.

    Raises:
        ValueError: see ``find_run``.
        InUseError: if another process works in the folder.
        OSError: if it cannot be made or written.
    """
    finished = None if folder is None else find_run(folder, description, report)
    if finished is not None and is_done(finished):
        yield finished
        return
    with folder_alone(folder):
        finished = None if folder is None else find_run(folder, description, report)
        yield finished if finished is not None and is_done(finished) else None


def claim_run(folder: Path, description: dict[str, Any]) -> None:
    """Write down whose folder this is from its first step on, and clear away what another run left that took none."""
    found = _read(folder / RUN)
    if found is None or _given(found) != _given(description):
        for name in _UNBEGUN:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    write_atomic(folder / RUN, json.dumps(description, indent=1))


_UNBEGUN = (CHECKPOINTS, SNAPSHOTS, METRICS, BAD_FRAMES)
"""Names that a run may leave besides ``RUN`` without having taken a step."""

_STEP = re.compile(r"(?:step-)?(\d+)(\.(?:tmp|orbax-checkpoint-tmp).*)?")
"""Name of a snapshot or checkpoint, complete or not."""


def _is_begun(folder: Path) -> bool:
    """Return whether a folder holds more than what a run leaves behind that ended before its first step was saved."""
    if not folder.is_dir():
        return False
    for path in folder.iterdir():
        if path.name == METRICS:
            begun = path.stat().st_size > 0
        elif path.name in (CHECKPOINTS, SNAPSHOTS) and path.is_dir():
            names = [_STEP.fullmatch(part.name) for part in path.iterdir()]
            begun = any(name is None or (int(name[1]) > 0 and name[2] is None) for name in names)
        else:
            begun = path.name not in (RUN, LOCK, BAD_FRAMES, SPEC) and path.suffix != ".tmp"
        if begun:
            return True
    return False


def _read(path: Path) -> dict[str, Any] | None:
    """JSON of a file; ``None`` if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


_LATER: dict[str, Any] = {
    "age_weight": 1.0, "asynchronous": False, "snapshots": 0, "precision": "highest", "select": "interval",
    "sample_factor": 5, "optimizer": "adam", "max_slots": 65_536,
}  # fmt: skip
"""Settings that folders of earlier versions do not name, and what they did."""


_BUDGET = ("rounds", "until_force_rmse", "until_alarm_rate")
"""Settings that say how far a run goes: it may go further."""


def _given(description: dict[str, Any]) -> dict[str, Any]:
    """The settings chosen: an option that is not given may be one that did not exist when the folder was made."""
    given = {name: value for name, value in description.get("settings", {}).items() if value is not None}
    given = {name: value for name, value in given.items() if name not in _BUDGET}
    settings = {**_LATER, **given}
    return {**{name: value for name, value in description.items() if value is not None}, "settings": settings}


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first things that differ, in words."""
    differing = [name for name in expected if name != "settings" and found.get(name) != expected[name]]
    names = [name.removesuffix("_sha256") for name in differing]
    parts = [f"another {name} set" if name in ("train", "valid") else f"another {name}" for name in names]
    old, new = {**_LATER, **found.get("settings", {})}, expected["settings"]
    changed = [name for name in new if old.get(name) != new.get(name) and name not in _BUDGET]
    parts += [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in changed]
    return "; ".join(parts)
