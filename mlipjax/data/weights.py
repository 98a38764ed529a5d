"""Weights that a file gives its structures, under the names of this program and of files made for MACE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlipjax.notices import notice
from mlipjax.reading import shown

LABELS = ("energy", "forces", "stress")
_ALL = "config_weight"
WEIGHT_KEYS = frozenset(
    {_ALL, "config_virials_weight", *(f"{n}_weight" for n in LABELS), *(f"config_{n}_weight" for n in LABELS)}
)
"""Information that scales labels; labels that were read carry it in their weights."""


def frame_weights(info: Mapping[str, Any], where: str, *, from_virial: bool) -> dict[str, float]:
    """Return the factor of a structure's energy, forces and stress: the product of all that concerns it.

    Args:
        info: of the structure.
        where: file and structure, for the message.
        from_virial: whether the stress was read as a virial, whose weight may have a name of its own.

    Raises:
        ValueError: if a weight is not a finite number, or negative.
    """
    common = _weight(info, (_ALL,), where)
    weights = {name: common * _weight(info, (f"{name}_weight", f"config_{name}_weight"), where) for name in LABELS}
    if from_virial:
        weights["stress"] *= _weight(info, ("config_virials_weight",), where)
    said = sorted(key for key in WEIGHT_KEYS & set(info) if key.startswith("config_"))
    if said:
        notice(f"weights of structures are honoured: {', '.join(said)}.")
    return weights


def without_weights(info: Mapping[str, Any]) -> dict[str, Any]:
    """Information without the weights that the labels carry."""
    return {name: value for name, value in info.items() if name not in WEIGHT_KEYS}


def _weight(info: Mapping[str, Any], keys: Iterable[str], where: str) -> float:
    product = 1.0
    for key in keys:
        value = info.get(key, 1.0)
        try:
            weight = float(value)
        except (TypeError, ValueError):
            weight = float("nan")
        if not (np.isfinite(weight) and weight >= 0.0):
            raise ValueError(f"{where}: {key} is {shown(value)}; weights are finite and not negative.")
        product *= weight
    return product
