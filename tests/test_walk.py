"""The way of a training frame through the package, as a profiler sees it: it may become shorter, not longer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

import mlipjax
from mlipjax.data import Dataset, Example
from mlipjax.graph import BatchPlan, GraphBatch, NeighborTable
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, loop
from mlipjax.train.batches import Tables
from mlipjax.train.state import Batch

PACKAGE = f"{Path(mlipjax.__file__).parent}{os.sep}"
FORMS = (Atoms, System, Labels, Dataset, Example, NeighborTable, GraphBatch, BatchPlan, Batch, LabelledBatches, Tables)
"""Forms that structures and their labels take on the way."""

WRAPPERS = (f"{PACKAGE}precision.py",)
"""Files whose functions only call others, as decorators do."""


class Place(NamedTuple):
    """A function that was entered from another file with structures in hand, or gave some back."""

    file: str
    name: str


class Walk:
    """Places in the order in which they were first entered, and those that gave structures back."""

    def __init__(self) -> None:
        self.places: dict[Place, bool] = {}

    def note(self, frame: Any, event: str, value: Any) -> None:
        """Profile function of ``sys.setprofile``."""
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(PACKAGE) or "<lambda>" in code.co_name:
            return
        if code.co_name in ("<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>") or self._caller(frame) is None:
            return
        place = Place(code.co_filename.removeprefix(PACKAGE), code.co_qualname)
        if event == "return":
            if holds(value):
                self.places[place] = True
        elif any(
            holds(frame.f_locals.get(name)) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        ):
            self.places.setdefault(place, False)

    @staticmethod
    def _caller(frame: Any) -> str | None:
        """File of the package that entered this one; ``None`` if it is the same, or none."""
        caller = frame.f_back
        while caller is not None:
            file = caller.f_code.co_filename
            if file.startswith(PACKAGE) and file not in WRAPPERS:
                return None if file == frame.f_code.co_filename else file
            caller = caller.f_back
        return None

    def count(self, chosen: Callable[[Place], bool] = lambda place: True) -> tuple[int, int, int]:
        """Places, files, and climbs: returns to a file that was left before."""
        files = [place.file for place in self.places if chosen(place)]
        runs = sum(file != before for file, before in zip(files, ["", *files], strict=False))
        return len(files), len(set(files)), runs - len(set(files))


def holds(value: Any, depth: int = 2) -> bool:
    """Return whether a value is one of ``FORMS``, or holds some."""
    if isinstance(value, FORMS):
        return True
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return depth > 0 and any(holds(part, depth - 1) for part in parts[:4])


@contextmanager
def profiled(walk: Walk) -> Iterator[None]:
    before = sys.getprofile()
    sys.setprofile(walk.note)
    try:
        yield
    finally:
        sys.setprofile(before)


class Stepped(Exception):
    pass


MOST = {"all": (77, 38, 26), "without the doctor": (54, 28, 17), "handing on": (19, 12, 4)}
"""Places, files and climbs, as `docs/architecture.md` tells them: lower them with every step that falls away."""


@pytest.mark.slow
def test_a_frame_passes_few_places_from_its_file_to_an_update(tmp_path, monkeypatch):
    cells = [bulk("MgO", "rocksalt", a=4.2 + 0.02 * index, cubic=True) for index in range(6)]
    for index, cell in enumerate(cells):
        cell.rattle(0.05, seed=index)
    write(tmp_path / "train.extxyz", mlipjax.predict("universal", cells))
    step, walk = loop.mixture_step, Walk()

    def one_step(*arguments):
        step(*arguments)
        raise Stepped

    monkeypatch.setattr(loop, "mixture_step", one_step)
    with profiled(walk), pytest.raises(Stepped):
        mlipjax.finetune("universal", str(tmp_path / "train.extxyz"), epochs=1, batch_size=2, anchor="none")
    print("\n".join(f"{place.file} {place.name}" for place in walk.places))
    reads_only = [place for place in walk.places if place.file.startswith("doctor/")]
    counts = {
        "all": walk.count(),
        "without the doctor": walk.count(lambda place: place not in reads_only),
        "handing on": walk.count(lambda place: walk.places[place] and place not in reads_only),
    }
    print(counts)
    for name, most in MOST.items():
        assert all(np.array(counts[name]) <= most), f"{name}: {counts[name]}, at most {most}"
