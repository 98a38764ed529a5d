"""Parts that runs of other people's simulation programs share: settings, and the model and structure to start from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms

from mlipjax.calculator import Calculator
from mlipjax.defaults import DAMPING_FS
from mlipjax.md.observables import default_timestep
from mlipjax.notices import notice
from mlipjax.verbs.inputs import ForeignModel, ModelLike, check_known, open_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineRun:
    """Settings that every program has.

    Attributes:
        ensemble: what is kept constant.
        temperature: K, of the thermostat and of the first velocities.
        timestep: fs; ``None`` for 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        steps: time steps.
        every: steps between lines of output, and between frames.
        damping: fs, time constant of the thermostat.
        head: name of the model's energy head; ``None`` for its first.
        dtype: precision of the network.
        seed: of velocities and thermostat.
    """

    ensembles: ClassVar[tuple[str, ...]] = ("nve", "nvt")

    ensemble: str = "nvt"
    temperature: float = 300.0
    timestep: float | None = None
    steps: int = 1000
    every: int = 10
    damping: float = DAMPING_FS
    head: str | None = None
    dtype: str = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ensemble not in self.ensembles:
            raise ValueError(f"ensemble is {self.ensemble!r}; choose one of {', '.join(self.ensembles)}.")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {self.dtype!r}.")
        self._check("at least 1", lambda value: value >= 1, "steps", "every")
        self._check("positive", lambda value: 0.0 < value < math.inf, "temperature", "timestep", "damping")

    def _check(self, expected: str, right: Callable[[float], bool], *names: str) -> None:
        """Refuse settings of these names that are not as expected; one that is left to the program is right."""
        for name in names:
            if (value := getattr(self, name)) is not None and not right(value):
                raise ValueError(f"{name} must be {expected}, found {value}.")

    def timestep_for(self, atoms: Atoms) -> float:
        """The time step in fs: the given one, or what the fastest vibration of these atoms needs."""
        return self.timestep or default_timestep(atoms.numbers, atoms.get_masses())


def prepare(model: str, atoms: Atoms, head: str | None) -> tuple[str, Atoms]:
    """Check that a model can drive a structure; return its name, a path in full, and the structure as programs want it.

    Its first lattice vector then lies along x and the second in the xy plane, the third with positive z.

    Args:
        model: as ``mlipjax.load`` takes it, or ``ase:module:factory``.
        atoms: start structure; of what it carries only elements, positions, cell, periodicity and masses are used.
        head: name of the model's energy head.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: for a structure without a cell or with constraints, or a model
            that cannot be loaded or does not know an element.
    """
    if atoms.cell.rank < 3:
        raise ValueError(
            f"the program needs a cell with three vectors, found {atoms.cell.rank}; put the structure in a box."
        )
    if atoms.constraints:
        raise ValueError("the structure has constraints, which the program would not know; remove them.")
    if atoms.has("momenta"):
        notice("the momenta of the structure are not used; velocities are drawn.")
    opened = open_model(model, head)
    check_known(opened, atoms, atoms.numbers)
    turned = atoms.copy()
    if atoms.cell.handedness < 0:
        turned.set_cell(-atoms.cell.array)  # the same lattice
    turned.set_cell(turned.cell.standard_form()[0], scale_atoms=True)
    if not np.allclose(turned.positions, atoms.positions, atol=1e-6):
        notice("the structure is turned so that its first lattice vector lies along x, the second in the xy plane.")
    return str(Path(model).resolve()) if Path(model).exists() else model, turned


def open_calculator(model: ModelLike, head: str | None, dtype: str) -> Any:
    """The ASE calculator of a model.

    Args:
        model: name, file or folder; a pair of potential and parameters; or ``ase:module:factory``.
        head: name of the energy head; by default the first.
        dtype: precision of the network.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: if it cannot be loaded, or has no such head.
    """
    opened = open_model(model, head)
    if isinstance(opened, ForeignModel):
        return opened.calculator
    return Calculator(opened.potential, opened.params, dtype, opened.potential.heads[opened.head])
