"""Oracles named on the command line."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from mlipjax.oracles.analytic import LennardJones, StillingerWeber
from mlipjax.oracles.ase_calculator import AseOracle
from mlipjax.oracles.cp2k import Cp2k
from mlipjax.oracles.protocol import Oracle
from mlipjax.oracles.teacher import Teacher
from mlipjax.oracles.xtb import Xtb

SPEC_HELP = (
    "xtb | cp2k[:functional=..,basis=..,cutoff=..] | teacher:MODEL | ase:MODULE:FACTORY |"
    " lj[:sigma=..,epsilon=..,cutoff=..,onset=..] | sw"
)
"""Accepted forms, for help texts."""

_LARGEST, _LARGEST_OTHER = {"onset": 100.0, "sigma": 100.0}, 1e5
"""Largest values of settings: lengths in Å, and everything else."""

_LARGEST_CUTOFF: dict[type, float] = {Cp2k: 1e4}
"""Of cutoffs: 100 Å, unless they are no lengths."""

_Kind = TypeVar("_Kind", Xtb, Cp2k, LennardJones, StillingerWeber)


def make_oracle(spec: str) -> Oracle:
    """Make the oracle that ``spec`` names.

    - ``xtb``: GFN1-xTB; ``xtb:method=GFN2-xTB,electronic_temperature=300`` changes its settings.
    - ``cp2k``: PBE by CP2K; ``cp2k:functional=BLYP,cutoff=800`` changes its settings (``Cp2k``).
    - ``teacher:MODEL``: a frozen potential, by name or path as ``mlipjax.load`` takes it.
    - ``ase:MODULE:FACTORY``: the calculator that a function without arguments returns.
    - ``lj:sigma=3.4,epsilon=0.0103,cutoff=8.5,onset=6.0`` (Å, eV), ``sw``: analytic potentials.

    Raises:
        ValueError: the specification is not understood, or what it names does not exist.
    """
    kind, _, rest = spec.partition(":")
    if kind == "xtb":
        return _with_settings(Xtb, rest, spec)
    if kind == "cp2k":
        oracle = _with_settings(Cp2k, rest, spec)
        oracle.check_installed()
        return oracle
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
        largest = _LARGEST_CUTOFF.get(kind, 100.0) if name == "cutoff" else _LARGEST.get(name, _LARGEST_OTHER)
        smallest = -largest if name == "charge" else 0
        if convert in (int, float) and not smallest < settings[name] <= largest:
            limits = f"more than {smallest:g} and at most {largest:g}"
            raise ValueError(f"{name} in {spec!r} must be {limits}, found {value}")
    return kind(**settings)
