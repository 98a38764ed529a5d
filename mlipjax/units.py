"""Units: eV, Å and amu everywhere; time inside jax-md is Å·sqrt(amu/eV).

The constants are ASE's (CODATA 2014), so that energies and temperatures agree with ASE to the last digit.
"""

from ase import units as _ase

BOLTZMANN: float = _ase.kB
"""Boltzmann constant in eV/K."""

FEMTOSECOND: float = _ase.fs
"""One femtosecond in internal time units, Å·sqrt(amu/eV) (about 0.0982)."""

GPA: float = _ase.GPa
"""One gigapascal in eV/Å^3."""

BAR: float = _ase.bar
"""One bar in eV/Å^3."""
