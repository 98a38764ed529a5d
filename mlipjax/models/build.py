"""Potentials to and from plain dictionaries, so that a folder with JSON and tensors holds a whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mlipjax.models import limits
from mlipjax.models.mace import MACEConfig, mace
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.potential import Potential
from mlipjax.reading import brief, shown

_PROPERTIES = 64
"""Most property heads of a model."""

_ARCHITECTURES: dict[str, tuple[type[Any], Callable[..., Potential]]] = {
    "nequip": (NequIPConfig, nequip),
    "mace": (MACEConfig, mace),
}


def potential_to_config(potential: Potential) -> dict[str, Any]:
    """Describe a potential (not its parameters) in JSON types; E0s keep all digits."""
    for name, (config_type, _) in _ARCHITECTURES.items():
        if isinstance(potential.config, config_type):
            description = {
                "format": 1,
                "architecture": name,
                "config": dataclasses.asdict(potential.config),
                "e0s": {head: potential.e0s[i].tolist() for i, head in enumerate(potential.heads)},
            }
            # absent without any: such a folder is the one that earlier versions wrote and read
            heads = [dataclasses.asdict(head) for head in potential.properties]
            return {**description, "properties": heads} if heads else description
    raise ValueError(f"no architecture is registered for a configuration of type {type(potential.config).__name__}")


def potential_from_config(description: dict[str, Any]) -> Potential:
    """Build the potential that ``potential_to_config`` described.

    Raises:
        ValueError: if the architecture or a configuration field is unknown or missing.
    """
    name = description.get("architecture")
    if description.get("format") != 1 or not isinstance(name, str) or name not in _ARCHITECTURES:
        raise ValueError(
            f"expected format 1 and an architecture among {', '.join(_ARCHITECTURES)}; found format "
            f"{shown(description.get('format'))}, architecture {shown(name)}: written by another version?"
        )
    config_type, build = _ARCHITECTURES[name]
    values = description.get("config", {})
    config = _make(config_type, values, f"unknown configuration fields {{}} for architecture {name}")
    e0s = description.get("e0s", {})
    missing = [head for head in config.heads if not isinstance(e0s, dict) or head not in e0s]
    if missing:
        raise ValueError(f"e0s are missing for head {missing[0]!r}")
    potential = build(config, _energies([e0s[head] for head in config.heads], len(config.species)))
    properties = description.get("properties", [])
    if not isinstance(properties, list) or len(properties) > _PROPERTIES:
        raise ValueError(f"expected a list of at most {_PROPERTIES} property heads, found {shown(properties)}")
    unknown = "unknown fields {} of a property head: written by another version?"
    heads = tuple(_make(PropertyHead, head, unknown) for head in properties)
    for head in heads:
        limits.check_property(head)
    return potential.replace(properties=heads)


def _make(kind: type[Any], values: Any, unknown: str) -> Any:
    """Build a configuration from JSON; lists become tuples.

    Raises:
        ValueError: if there is an unknown field (``unknown`` has a place for it), one is missing, or a value is none.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected fields of {kind.__name__} by name, found {shown(values)}")
    fields = {field.name for field in dataclasses.fields(kind)}
    if others := sorted(set(values) - fields):
        raise ValueError(unknown.format(", ".join(others[:5])[:200]))
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, AttributeError) as error:  # a word where a number belongs, or a field that is missing
        raise ValueError(f"{kind.__name__} cannot be made of these values: {brief(error)}") from None


def _energies(rows: list[Any], n_species: int) -> np.ndarray:
    """Isolated-atom energies (H, n_species) of a description."""
    for row in rows:
        if not isinstance(row, list) or len(row) != n_species or not all(type(value) in (int, float) for value in row):
            raise ValueError(f"e0s must be {n_species} energies for each head, found {shown(row)}")
    try:
        energies = np.array(rows, np.float64)
    except OverflowError:
        raise ValueError("e0s must be finite energies, found one of hundreds of digits") from None
    limits.check_energies(energies)
    return energies
