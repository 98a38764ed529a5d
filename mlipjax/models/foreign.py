"""Potentials of other programs, named ``ase:module:factory``: for zero-shot comparison only.

CHGNet, ORB, MatterSim, SevenNet, GRACE or a DFT code join the tables of probes and experiments as the ASE calculator
that a function without arguments returns. Such a calculator gives energies, forces and perhaps a stress; it has no
parameters that this package could reach, so whatever needs them (fine-tuning, compiled dynamics, charts) refuses it.
"""

from __future__ import annotations

from typing import Any

from mlipjax.factory import make_calculator

PREFIX = "ase:"


def is_foreign(name: object) -> bool:
    """Return whether a model's name is that of a foreign calculator."""
    return isinstance(name, str) and name.startswith(PREFIX)


def foreign_calculator(name: str) -> Any:
    """Return the ASE calculator that ``ase:module:factory`` names.

    Raises:
        ValueError: the name has another form, or what it names does not exist or is no calculator.
    """
    if not is_foreign(name):
        raise ValueError(f"expected ase:module:factory, found {name!r}")
    return make_calculator(name.removeprefix(PREFIX))


def refusal(name: str) -> ValueError:
    """The error for whoever asks a foreign calculator for its parameters."""
    return ValueError(
        f"{name!r} is a foreign calculator: it can be evaluated and probed as it is, but it has no parameters to "
        "load, so it cannot be fine-tuned, simulated or charted here. Give a native model (mlipjax models lists them), "
        'or use the calculator as an oracle: oracle="ase:module:factory".'
    )
