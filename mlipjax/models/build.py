"""Potentials to and from plain dictionaries, so that a folder with JSON and tensors holds a whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mlipjax.models.mace import MACEConfig, mace
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.potential import Potential

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
    if description.get("format") != 1 or name not in _ARCHITECTURES:
        raise ValueError(
            f"expected format 1 and an architecture among {', '.join(_ARCHITECTURES)}; found format "
            f"{description.get('format')!r}, architecture {name!r}: written by another version?"
        )
    config_type, build = _ARCHITECTURES[name]
    fields = {field.name for field in dataclasses.fields(config_type)}
    values = description.get("config", {})
    unknown = sorted(set(values) - fields)
    if unknown:
        raise ValueError(f"unknown configuration fields {', '.join(unknown)} for architecture {name}")
    arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    config = config_type(**arguments)
    e0s = description.get("e0s", {})
    missing = [head for head in config.heads if head not in e0s]
    if missing:
        raise ValueError(f"e0s are missing for head {missing[0]!r}")
    potential = build(config, np.array([e0s[head] for head in config.heads], np.float64))
    return potential.replace(properties=tuple(map(_property_head, description.get("properties", []))))


def _property_head(values: dict[str, Any]) -> PropertyHead:
    fields = {field.name for field in dataclasses.fields(PropertyHead)}
    if unknown := sorted(set(values) - fields):
        raise ValueError(f"unknown fields {', '.join(unknown)} of a property head: written by another version?")
    arguments: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return PropertyHead(**arguments)
