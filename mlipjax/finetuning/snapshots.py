"""Models along a fine-tune: kept while it runs (``FinetuneSettings.snapshots``), found in its folder afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from mlipjax.files import sync
from mlipjax.finetuning.folder import REPORT, RUN, SNAPSHOTS
from mlipjax.models import save
from mlipjax.potential import Potential
from mlipjax.reading import read_json
from mlipjax.train import Snapshots
from mlipjax.typing import Params


class RunModel(NamedTuple):
    """A model of a run, the steps after which it was so, and whether it is the one that was kept in the end."""

    step: int
    path: Path
    final: bool


def plan_snapshots(
    folder: Path | None,
    count: int,
    total_steps: int,
    potential: Potential,
    finish: Callable[[Params], Params] = lambda params: params,
) -> Snapshots:
    """Keep models of a run in ``folder/snapshots/step-XXXXXX``: before its first step and ``count`` times evenly after.

    They hold the averaged parameters, which the run validates and of which it saves the best: the last one is that of
    the last step, not of the best. A run that patience ends early has those up to its end. Each can be loaded as a
    model; it gets its name when it is complete, and then stays as it is.

    Args:
        folder: of the run.
        count: number of snapshots; 0 for none.
        total_steps: optimiser steps of the run.
        potential: what the models are saved as.
        finish: turns parameters that are trained into those of ``potential`` (merges adapters).

    Raises:
        ValueError: for more snapshots than steps, or without a folder to keep them in.
    """
    if not count:
        return Snapshots()
    if folder is None:
        raise ValueError(f"snapshots={count} are kept in the folder of a run; give out.")
    if count > total_steps:
        raise ValueError(f"snapshots={count} of a run of {total_steps} steps: at most one per step can be kept.")

    def write(step: int, params: Params) -> None:
        path = folder / SNAPSHOTS / f"step-{step:06d}"
        if path.exists():
            return
        unfinished = path.with_name(path.name + ".tmp")
        save(unfinished, potential, jax.device_get(finish(params)))
        os.replace(unfinished, path)
        sync(path.parent)

    return Snapshots(frozenset(round(index * total_steps / count) for index in range(count + 1)), write)


def run_models(folder: str | os.PathLike[str]) -> list[RunModel]:
    """Return the models of a finished run: before its first step, its snapshots in order, and what was kept.

    Raises:
        ValueError: if the folder holds no fine-tune, or one that is not finished or has no snapshots.
    """
    folder = Path(folder)
    if not (folder / RUN).is_file():
        raise ValueError(f"{folder} holds no fine-tune (it has no {RUN}).")
    if not (folder / SNAPSHOTS).is_dir():
        raise ValueError(f"{folder} has no snapshots; fine-tune into a new folder with snapshots=10 to get them.")
    if not (folder / REPORT).is_file():
        raise ValueError(f"the run in {folder} is not finished; the same mlipjax finetune command goes on with it.")
    steps = {path.name.removeprefix("step-"): path for path in (folder / SNAPSHOTS).glob("step-*[0-9]")}
    found = ((int(step), path) for step, path in steps.items() if step.isdecimal())
    report = read_json(folder / REPORT)
    try:
        # force-field runs count epochs, property runs steps
        best = report.get("best_step")
        if best is None:
            best = report["best_epoch"] * report["steps"] // report["epochs_run"]
    except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(
            f"{folder / REPORT}: not the report of a fine-tune ({type(error).__name__}: {error})."
        ) from None
    return [*(RunModel(step, path, False) for step, path in sorted(found)), RunModel(best, folder, True)]
