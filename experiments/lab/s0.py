"""The published DFT frames of S0: arms, held-out groups, what a training set does not contain, and bond events."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.data import Dataset, read_dataset
from mlipjax.models import registry
from mlipjax.system import System

SYSTEMS = {
    "liclcocl2": {"naive": "run", "periodic": "round"},
    "chclca": {"naive": "run", "periodic": "round", "single_trajectory": None},
}
"""Arms of each published system, and the information that groups their frames."""

_CONTACT_CUTOFF = 3.5
"""Å; contacts longer than this are no bonds and no close contacts."""

_H_CL, _X_H, _CO_SHELL = 1.6, 1.3, 2.7


@dataclasses.dataclass(frozen=True)
class Arm:
    """Data that were collected in one way.

    Attributes:
        name: such as ``"periodic"``.
        train: frames in the order in which they became available.
        test: the held-out group: the last run, the last round, or the last part of one trajectory.
        held_out: what is held out, in words.
    """

    name: str
    train: Dataset
    test: Dataset
    held_out: str


def load_arms(system: str) -> list[Arm]:
    """Read all arms of a system and hold out one whole group of each.

    Raises:
        FileNotFoundError: if the published frames are not at hand; says where they belong.
    """
    folder = registry.data_folder() / system
    if not folder.is_dir():
        raise FileNotFoundError(
            f"the published frames of {system!r} are not in {folder}; put the files of "
            "YangLab-GT/umlip_bias_finetuning there as extended xyz, or point MLIPJAX_DATA to them."
        )
    return [_load_arm(folder / f"{name}.extxyz", name, key) for name, key in SYSTEMS[system].items()]


def _load_arm(file: Path, name: str, key: str | None) -> Arm:
    data = read_dataset(file)
    if key is None:
        # one trajectory: its last fifth, whose frames are 50 ps apart from the rest
        cut = len(data) - len(data) // 5
        return Arm(name, data.subset(range(cut)), data.subset(range(cut, len(data))), f"last {len(data) - cut} frames")
    groups = [int(info[key]) for info in data.infos]
    last = max(groups)
    train = [i for i, group in enumerate(groups) if group != last]
    if key == "run":
        # parallel runs collect side by side: the first frame of each, then the second, ...
        rank = {i: sum(groups[j] == groups[i] for j in range(i)) for i in train}
        train.sort(key=lambda i: (rank[i], groups[i]))
    else:
        train.sort(key=lambda i: groups[i])
    test = [i for i, group in enumerate(groups) if group == last]
    return Arm(name, data.subset(train), data.subset(test), f"{key} {last}")


def validation_frames(n: int) -> list[int]:
    """A tenth of n frames, at least one, spread evenly."""
    count = max(1, n // 10)
    return [round((k + 0.5) * n / count - 0.5) for k in range(count)]


def shortest_contacts(system: System) -> dict[tuple[int, int], float]:
    """Shortest distance in Å of every pair of elements that come within 3.5 Å of each other."""
    first, second, distance = _pairs(system)
    numbers = np.asarray(system.atomic_numbers)
    result: dict[tuple[int, int], float] = {}
    for a, b, d in zip(numbers[first], numbers[second], distance, strict=True):
        pair = (int(min(a, b)), int(max(a, b)))
        result[pair] = min(float(d), result.get(pair, np.inf))
    return result


def extrapolates(train: Dataset, test: Dataset) -> np.ndarray:
    """Test frames that hold a contact shorter than any of that pair of elements in the training set: (n,) bool."""
    known: dict[tuple[int, int], float] = {}
    for system in train.systems:
        for pair, distance in shortest_contacts(system).items():
            known[pair] = min(distance, known.get(pair, np.inf))
    return np.array(
        [any(d < known.get(pair, np.inf) for pair, d in shortest_contacts(s).items()) for s in test.systems]
    )


def bond_events(systems: Sequence[System]) -> dict[str, list[float]]:
    """Chemistry of each frame: H-Cl contacts below 1.6 Å, C-H and O-H bonds (below 1.3 Å), neighbours of Co.

    A change of the number of C-H or O-H bonds is a proton that moved; the coordination of Co counts O, N and Cl within
    2.7 Å.
    """
    result: dict[str, list[float]] = {"H-Cl": [], "C-H": [], "O-H": [], "Co coordination": []}
    for system in systems:
        first, second, distance = _pairs(system)
        numbers = np.asarray(system.atomic_numbers)
        a, b = numbers[first], numbers[second]
        # every pair is listed in both directions
        result["H-Cl"].append(float(np.sum((a == 1) & (b == 17) & (distance < _H_CL))))
        result["C-H"].append(float(np.sum((a == 1) & (b == 6) & (distance < _X_H))))
        result["O-H"].append(float(np.sum((a == 1) & (b == 8) & (distance < _X_H))))
        near = (a == 27) & np.isin(b, (7, 8, 17)) & (distance < _CO_SHELL)
        result["Co coordination"].append(float(np.sum(near)) / max(int(np.sum(numbers == 27)), 1))
    return result


def _pairs(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from matscipy.neighbours import neighbour_list

    atoms: Any = system.to_ase()
    first, second, distance = neighbour_list("ijd", atoms, _CONTACT_CUTOFF)
    return first, second, distance
