"""Splits that keep a trajectory together.

Frames of one trajectory resemble each other, so a frame in the test set whose neighbour in time is in the
training set tests nothing. Whatever shares a group goes to one part as a whole.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter

import numpy as np

from mlipjax.data.dataset import Dataset

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
    "config_type",
)
"""Information that names a group, in the order in which ``find_group_key`` looks for it: whole trajectories
before runs, runs before materials, materials before kinds of configuration."""


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

    ``None`` means that the data carry no group (or only one).

    Raises:
        ValueError: if only some of the structures carry a group, so that a split by frame would leak.
    """
    counts = Counter(key for info in dataset.infos for key in GROUP_KEYS if key in info)
    carried = {key: counts[key] for key in GROUP_KEYS if key in counts}
    for key, count in carried.items():
        if count == len(dataset) and len(_group_of_each(dataset, key)[0]) > 1:
            return key
    partial = [key for key, count in carried.items() if count < len(dataset)]
    if partial:
        key = partial[0]
        raise ValueError(
            f"only {carried[key]} of {len(dataset)} structures carry {key!r}, so they cannot be split by it; "
            f"split the sources one by one, add {key!r} to the others, or say by which information to split."
        )
    return None


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
            without groups are split by frame, with a warning.
        seed: the draw depends on it and on the names of the groups, not on the order of the file.

    Raises:
        ValueError: if amounts are out of range, a structure lacks ``group_key``, or there are fewer groups
            than parts.
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
        names, members = _group_of_each(dataset, key)
    targets = {"test": _target(test, len(dataset), "test"), "valid": _target(valid, len(dataset), "valid")}
    parts = _assign(np.bincount(members), targets, seed, key)
    chosen = {part: dataset.subset(np.flatnonzero(np.isin(members, drawn))) for part, drawn in parts.items()}
    groups = {} if key is None else {part: tuple(names[g] for g in np.sort(drawn)) for part, drawn in parts.items()}
    return Split(**chosen, group_key=key, groups=groups)


def _group_of_each(dataset: Dataset, key: str) -> tuple[list[str], np.ndarray]:
    """Names of the groups, ascending, and (n,) the number of each structure's group among them."""
    found: dict[str, int] = {}
    members = np.empty(len(dataset), int)
    for index, info in enumerate(dataset.infos):
        if key not in info:
            known = Counter(name for other in dataset.infos for name in other)
            raise ValueError(f"structure {index} has no {key!r}; information present: {dict(known)}.")
        members[index] = found.setdefault(str(info[key]), len(found))
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
