"""Choosing an energy head of a model.

Whoever evaluates, examines or trains one head of a model asks for the model with that head first: isolated-atom
energies, tables and results are those of the first head everywhere, so none of them has to be told.
"""

from __future__ import annotations

from typing import Any

from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.potential import Potential

_PER_HEAD = ("scale", "shift")
"""Configuration fields that may hold one number per head (MACE)."""


def head_index(potential: Potential, name: str | None) -> int:
    """Index of the head called ``name``; the first one by default.

    Raises:
        ValueError: if there is none.
    """
    if name is None:
        return 0
    if name not in potential.heads:
        raise ValueError(f"this model has the heads {', '.join(potential.heads)}; found {name!r}.")
    return potential.heads.index(name)


def with_first_head(potential: Potential, name: str | None) -> Potential:
    """The same model with the head called ``name`` first, the others in their order; parameters fit both.

    Raises:
        ValueError: if there is no such head.
    """
    chosen = head_index(potential, name)
    if chosen == 0:
        return potential
    order = [chosen, *(i for i in range(len(potential.heads)) if i != chosen)]
    description = potential_to_config(potential)
    config = description["config"]
    if description["architecture"] == "mace":
        config |= {field: _reordered(config[field], order) for field in _PER_HEAD}
    config["heads"] = [potential.heads[i] for i in order]
    return potential_from_config(description).replace(precision=potential.precision, dispersion=potential.dispersion)


def _reordered(values: Any, order: list[int]) -> Any:
    """One number per head in another order; heads beyond those given take the first number, as in the network."""
    if not isinstance(values, (list, tuple)):
        return values
    return [values[i] if i < len(values) else values[0] for i in order]
