"""Oracles named on the command line."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from mlipjax.oracles.analytic import LennardJones, StillingerWeber
from mlipjax.oracles.ase_calculator import AseOracle
from mlipjax.oracles.protocol import Oracle
from mlipjax.oracles.teacher import Teacher
from mlipjax.oracles.xtb import Xtb

SPEC_HELP = "xtb | teacher:MODEL | ase:MODULE:FACTORY | lj[:sigma=..,epsilon=..,cutoff=..,onset=..] | sw"
"""Accepted forms, for help texts."""

_LARGEST, _LARGEST_OTHER = {"cutoff": 100.0, "onset": 100.0, "sigma": 100.0}, 1e5
"""Largest values of settings: lengths in Å, and everything else."""

_Kind = TypeVar("_Kind", Xtb, LennardJones, StillingerWeber)


def make_oracle(spec: str) -> Oracle:
    """Make the oracle that ``spec`` names.

    - ``xtb``: GFN1-xTB; ``xtb:method=GFN2-xTB,electronic_temperature=300`` changes its settings.
    - ``teacher:MODEL``: a frozen potential, by name or path as ``mlipjax.load`` takes it.
    - ``ase:MODULE:FACTORY``: the calculator that a function without arguments returns.
    - ``lj:sigma=3.4,epsilon=0.0103,cutoff=8.5,onset=6.0`` (Å, eV), ``sw``: analytic potentials.

    Raises:
        ValueError: the specification is not understood, or what it names does not exist.
    """
    kind, _, rest = spec.partition(":")
    if kind == "xtb":
        return _with_settings(Xtb, rest, spec)
    if kind == "lj":
        return _with_settings(LennardJones, rest, spec)
    if kind == "sw":
        return _with_settings(StillingerWeber, rest, spec)
    if kind == "teacher":
        if not rest:
            raise ValueError("which teacher? expected teacher:MODEL, a name or path of a potential")
        from mlipjax.models import load

        return Teacher(*load(rest))
    if kind == "ase":
        return AseOracle(rest)
    raise ValueError(f"unknown oracle {spec!r}; expected {SPEC_HELP}")


def _with_settings(kind: type[_Kind], text: str, spec: str) -> _Kind:
    """Build a dataclass from ``name=value`` pairs; each value has the type of the field's default."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    settings = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if not equals or name not in fields:
            raise ValueError(f"cannot read {pair!r} in {spec!r}; settings are {', '.join(fields)}, as name=value")
        convert = type(fields[name].default)
        try:
            settings[name] = convert(value)
        except ValueError:
            raise ValueError(f"{name} in {spec!r} must be {convert.__name__}, found {value!r}") from None
        largest = _LARGEST.get(name, _LARGEST_OTHER)
        if convert in (int, float) and not 0 < settings[name] <= largest:
            raise ValueError(f"{name} in {spec!r} must be more than 0 and at most {largest:g}, found {value}")
    return kind(**settings)
