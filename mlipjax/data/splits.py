"""Splits that keep a trajectory together, and isolated atoms set apart.

Frames of one trajectory resemble each other, so a frame in the test set whose neighbour in time is in the
training set tests nothing. Whatever shares a group goes to one part as a whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlipjax.data.dataset import Dataset
from mlipjax.data.hashing import structure_hash
from mlipjax.elements import listed
from mlipjax.lattice import minimum_image, shortest_period
from mlipjax.notices import notice
from mlipjax.system import System

GROUP_KEYS = (
    "trajectory",
    "trajectory_id",
    "traj_id",
    "mptrj_traj_id",
    "run",
    "round",
    "path",
    "group",
    "mp_id",
    "material_id",
    "alexandria_id",
    "internal_id",
)
"""Information that names a group, in the order in which ``find_group_key`` looks for it: whole trajectories
before runs, runs before materials. Kinds of configuration (``config_type``) are no groups: held out as a whole, a kind
says nothing about the others; unless each of them is one trajectory (``is_trajectories``)."""

_KIND = "config_type"
# Frames this many places apart have forgotten each other, if neighbours have not; and by how much they differ more.
_APART, _FORGOTTEN = 4, 1.5
# An atom is alone if the next one is further away than any model looks.
_REACH = 8.0
_AGREE = 1e-3


@dataclasses.dataclass(frozen=True)
class Split:
    """Three disjoint parts of a data set; a part may be empty.

    Attributes:
        train, valid, test: the parts, structures in their original order.
        group_key: information the split kept together, or ``None`` if it went frame by frame.
        groups: names of the groups in each part, by part; empty for a split by frames.
    """

    train: Dataset
    valid: Dataset
    test: Dataset
    group_key: str | None
    groups: dict[str, tuple[str, ...]]

    def describe(self) -> str:
        """Return one line: sizes, and what the split kept together."""
        sizes = f"{len(self.train)} train / {len(self.valid)} valid / {len(self.test)} test structures"
        if self.group_key is None:
            return f"{sizes}, split by frame (the data carry no groups)"
        names = " / ".join(str(len(self.groups[part])) for part in ("train", "valid", "test"))
        return f"{sizes}, split by {self.group_key!r} ({names} groups)"


def find_group_key(dataset: Dataset) -> str | None:
    """Return the first of ``GROUP_KEYS`` that every structure carries and that takes at least two values.

    If there is none, the first that some carry; the others are then groups of their own. ``None`` means that the data
    carry no group (or only one).
    """
    counts = Counter(key for info in dataset.infos for key in (*GROUP_KEYS, _KIND) if key in info)
    carried = {key: counts[key] for key in GROUP_KEYS if key in counts}
    if counts[_KIND] == len(dataset) and is_trajectories(dataset, _KIND):
        carried[_KIND] = len(dataset)
    for key, count in carried.items():
        if count == len(dataset) and len({str(info[key]) for info in dataset.infos}) > 1:
            return key
    return next((key for key, count in carried.items() if count < len(dataset)), None)


def runs_of(dataset: Dataset) -> list[Any]:
    """Run of every frame: what its group information says, one run for all without any."""
    key = find_group_key(dataset)
    return [0 if key is None else info.get(key) for info in dataset.infos]


def is_trajectories(dataset: Dataset, key: str) -> bool:
    """Return whether each value of some information is a trajectory: frames of the same atoms, neighbours alike.

    Frames of a value have to follow each other in the file, and to differ less from the next one than from later ones.
    """
    runs: dict[str, list[int]] = {}
    for index, info in enumerate(dataset.infos):
        runs.setdefault(str(info[key]), []).append(index)
    if len(runs) < 2 or any(run[-1] - run[0] + 1 != len(run) or len(run) <= _APART for run in runs.values()):
        return False
    return all(_drifts([dataset.systems[index] for index in run]) for run in runs.values())


def _drifts(systems: Sequence[System]) -> bool:
    atoms = {np.asarray(system.atomic_numbers).tobytes() for system in systems}
    if len(atoms) > 1:
        return False
    near = [_moved(a, b) for a, b in itertools.pairwise(systems)]
    far = [_moved(a, b) for a, b in zip(systems, systems[_APART:], strict=False)]
    return float(np.median(far)) > _FORGOTTEN * float(np.median(near)) > 0.0


def _moved(a: System, b: System) -> float:
    """Root-mean-square displacement in Å, to the nearest images in the cell of ``a``."""
    delta = minimum_image(np.asarray(b.positions, np.float64) - np.asarray(a.positions, np.float64), a.cell, a.pbc)
    return float(np.sqrt(np.mean(np.sum(delta**2, axis=1))))


def split_dataset(
    dataset: Dataset,
    *,
    valid: float | int = 0.1,
    test: float | int = 0.0,
    group_key: str | None = None,
    seed: int = 0,
) -> Split:
    """Split a data set into train, validation and test parts, whole groups at a time.

    Args:
        dataset: what to split.
        valid: validation part: a fraction of the structures (float, 0 <= x < 1) or their number (int). Groups
            are drawn until the size is as close to it as they allow.
        test: test part, likewise; drawn first.
        group_key: information that names a structure's group; ``None`` takes ``find_group_key``. Only data
            without groups are split by frame, with a warning; where only some structures carry the key, the others
            go one by one, and that is said.
        seed: the draw depends on it and on the names of the groups, not on the order of the file.

    Raises:
        ValueError: if amounts are out of range, a structure lacks a ``group_key`` that was named, or there are fewer
            groups than parts.
    """
    key = find_group_key(dataset) if group_key is None else group_key
    if key is None:
        warnings.warn(
            "the data carry no groups, or one only: splitting by frame, so held-out errors may be too small "
            f"(known group keys: {', '.join(GROUP_KEYS)}).",
            stacklevel=2,
        )
        names, members = [], np.arange(len(dataset))
    else:
        names, members = _group_of_each(dataset, key, partial=group_key is None)
    targets = {"test": _target(test, len(dataset), "test"), "valid": _target(valid, len(dataset), "valid")}
    parts = _assign(np.bincount(members), targets, seed, key)
    chosen = {part: dataset.subset(np.flatnonzero(np.isin(members, drawn))) for part, drawn in parts.items()}
    groups = {} if key is None else {part: tuple(names[g] for g in np.sort(drawn)) for part, drawn in parts.items()}
    return Split(**chosen, group_key=key, groups=groups)


def _group_of_each(dataset: Dataset, key: str, *, partial: bool) -> tuple[list[str], np.ndarray]:
    """Names of the groups, ascending, and (n,) the number of each structure's group among them."""
    found: dict[str, int] = {}
    members = np.empty(len(dataset), int)
    without = 0
    for index, info in enumerate(dataset.infos):
        if key in info:
            name = str(info[key])
        elif partial:
            # not its place: the draw must not depend on the order of the file
            name, without = f"structure {structure_hash(dataset.systems[index])[:16]}", without + 1
        else:
            known = Counter(name for other in dataset.infos for name in other)
            raise ValueError(f"structure {index} has no {key!r}; information present: {dict(known)}.")
        members[index] = found.setdefault(name, len(found))
    if without:
        notice(
            f"{without} of {len(dataset)} structures carry no {key!r}: they are split one by one, the others by "
            f"{key!r}. Neighbours of one trajectory among them may end up in different parts.",
            depth=2,
        )
    names = sorted(found)
    places = np.empty(len(names), int)
    places[[found[name] for name in names]] = np.arange(len(names))
    return names, places[members]


def _target(amount: float | int, n: int, part: str) -> int:
    """Number of structures asked for; a fraction above zero asks for at least one."""
    if isinstance(amount, int) and 0 <= amount < n:
        return int(amount)
    if isinstance(amount, float) and 0.0 <= amount < 1.0:
        return 0 if amount == 0.0 else max(1, round(amount * n))
    raise ValueError(f"{part}={amount!r}: give a fraction in [0, 1) or a number below {n}, the data's size.")


def _assign(sizes: np.ndarray, targets: dict[str, int], seed: int, key: str | None) -> dict[str, np.ndarray]:
    """Draw whole groups of these sizes for test, then validation; the rest, at least one group, is for training."""
    wanted = [part for part, target in targets.items() if target]
    if len(sizes) < len(wanted) + 1:
        kind = "structures" if key is None else f"values of {key!r}"
        raise ValueError(f"{len(sizes)} {kind} cannot fill train and {' and '.join(wanted)}; ask for less.")
    left = np.random.default_rng(seed).permutation(len(sizes))
    parts = {"test": left[:0], "valid": left[:0]}
    for position, part in enumerate(wanted):
        reserve = len(wanted) - position  # one group for each part still to come, training included
        parts[part] = _draw(left, sizes, targets[part], reserve)
        left = left[~np.isin(left, parts[part])]
    return {**parts, "train": left}


def _draw(groups: np.ndarray, sizes: np.ndarray, target: int, reserve: int) -> np.ndarray:
    """Take groups in order while each brings the total closer to ``target``; leave at least ``reserve``."""
    drawn, total = np.zeros(len(groups), bool), 0
    left = len(groups)
    for place, size in enumerate(sizes[groups]):
        if abs(total + size - target) < abs(total - target) and left > reserve:
            drawn[place] = True
            total, left = total + size, left - 1
    return groups[drawn] if drawn.any() else groups[[np.argmin(sizes[groups])]]


class IsolatedAtoms(NamedTuple):
    """Isolated atoms of a data set, and what is left of it.

    Attributes:
        rest: all other structures.
        indices: of the isolated atoms in the data set.
        energies: element -> eV, of those that have an energy.
    """

    rest: Dataset
    indices: tuple[int, ...]
    energies: dict[int, float]


def is_isolated(system: System, info: Mapping[str, Any]) -> bool:
    """Return whether this is one atom in empty space; one that is said to be may have a smaller cell than others."""
    if len(system.atomic_numbers) != 1:
        return False
    said = re.sub(r"[^a-z]", "", str(info.get("config_type", "")).lower())
    return said in ("isolatedatom", "isolatedatoms") or shortest_period(system.cell, system.pbc) >= _REACH


def set_apart(dataset: Dataset) -> IsolatedAtoms:
    """Divide a data set into isolated atoms and all others.

    Many training sets carry one per element (``config_type=IsolatedAtom``). They say where energies are counted from,
    and nothing about a material: as training structures they would only teach that a lone atom feels no force; in
    validation they would decide which epoch is best.

    Raises:
        ValueError: if two isolated atoms of one element have different energies.
    """
    indices, energies = [], {}
    rows = zip(dataset.systems, dataset.labels, dataset.infos, strict=True)
    for index, (system, label, info) in enumerate(rows):
        if not is_isolated(system, info):
            continue
        indices.append(index)
        if label.energy_weight > 0.0:
            z, energy = int(np.asarray(system.atomic_numbers)[0]), float(label.energy)
            if abs(energies.setdefault(z, energy) - energy) > _AGREE:
                raise ValueError(
                    f"two isolated atoms of {listed([z])} have the energies {energies[z]:.6g} and "
                    f"{energy:.6g} eV (structure {index}); keep the one whose electronic state is the ground state."
                )
    if not indices:
        return IsolatedAtoms(dataset, (), {})
    rest = dataset.subset(np.setdiff1d(np.arange(len(dataset)), indices))
    return IsolatedAtoms(rest, tuple(indices), energies)
