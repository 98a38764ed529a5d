"""``report.html`` and the figures of a run, made from what its folder holds."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlipjax.data import read_atoms
from mlipjax.data.write import write_atoms
from mlipjax.files import write_atomic
from mlipjax.finetuning.records import HISTORY, read_history
from mlipjax.locks import InUseError, folder_alone
from mlipjax.notices import notice
from mlipjax.train import read_metrics

HTML, PARITY, LARGEST = "report.html", "parity.npz", "largest_errors.extxyz"
FRAMES = "frames.extxyz"
"""Labelled frames of a periodic run."""
FORCE_ERROR = "force_error"
"""Array of the structures in ``LARGEST``, eV/Å."""
_MOST = 20

Points = Mapping[str, Mapping[str, np.ndarray]]
"""By quantity: ``reference``, ``before`` and ``after``, (n,)."""


def save_points(folder: Path, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> None:
    """Keep reference and predictions (``train.parity_points``) before and after a fine-tune in its folder."""
    arrays = {}
    for name, (reference, predicted) in after.items():
        arrays[f"{name}.reference"], arrays[f"{name}.after"] = reference, predicted
        if name in before:
            arrays[f"{name}.before"] = before[name][1]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(folder / PARITY, buffer.getvalue())


def read_points(folder: Path) -> Points:
    """Read what ``save_points`` kept; nothing if there is no such file (runs of earlier versions)."""
    if not (folder / PARITY).is_file():
        return {}
    points: dict[str, dict[str, np.ndarray]] = {}
    with np.load(folder / PARITY, allow_pickle=False) as arrays:
        for kind in ("reference", "before", "after"):
            for key in arrays.files:
                name, found = key.split(".")
                if found == kind:
                    points.setdefault(name, {})[kind] = arrays[key]
    return points


def save_largest(folder: Path, apart: Sequence[tuple[Atoms, np.ndarray]]) -> None:
    """Keep the structures with the largest errors (n,) of forces in eV/Å, the largest first, in a run's folder."""
    if not apart:
        return
    frames = []
    for atoms, errors in sorted(apart, key=lambda one: -float(np.mean(one[1] ** 2)))[:_MOST]:
        atoms.set_array(FORCE_ERROR, errors)
        frames.append(atoms)
    write_atoms(folder / LARGEST, frames)


def read_largest(folder: Path) -> list[tuple[Atoms, np.ndarray]]:
    """Read what ``save_largest`` kept; nothing if there is no such file (runs of earlier versions)."""
    frames = read_atoms(folder / LARGEST) if (folder / LARGEST).is_file() else []
    return [(atoms, atoms.arrays[FORCE_ERROR]) for atoms in frames]


def complete_run_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write what is missing of the report of a run that is found done; where that cannot be, say so."""
    if (folder / HTML).is_file():
        return
    try:
        with folder_alone(folder):
            write_run_report(folder, report)
    except (OSError, InUseError) as error:
        notice(f"the run is done, but its {HTML} is missing and cannot be written: {error}")


def write_run_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Draw the figures of a run that is done and write its ``report.html``, unless it is there already."""
    if (folder / HTML).is_file():
        return
    # as they stand in the file: tuples are lists there
    report = json.loads(json.dumps(report))
    if "rounds" in report and "verdict" not in report:
        notice(f"{folder}: a run of an earlier version; its {HTML} cannot be drawn again, results are in results.json.")
        return
    if "rounds" in report:
        from mlipjax.report.periodic import write_periodic_report

        write_periodic_report(folder, report, read_history(folder / HISTORY), read_frames(folder))
    elif "best_epoch" in report:
        from mlipjax.report.training import write_finetune_report

        records, points = read_metrics(folder), read_points(folder)
        write_finetune_report(folder, report, records, points, read_largest(folder))
    else:
        from mlipjax.report.training import write_property_report

        write_property_report(folder, report, read_metrics(folder), read_points(folder))


def read_frames(folder: Path) -> list[Atoms]:
    """Read the labelled frames of a periodic run, which are there at its end."""
    return read_atoms(folder / FRAMES) if (folder / FRAMES).is_file() else []
