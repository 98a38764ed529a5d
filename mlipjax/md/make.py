"""Ensembles by name, with defaults and their reasons."""

from __future__ import annotations

from typing import Literal

from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS, DAMPING_FS, FRICTION_PER_PS
from mlipjax.md.ensembles import CSVR, NVE, Ensemble, Langevin
from mlipjax.md.nose_hoover import IsotropicNPT, NoseHoover

EnsembleName = Literal["nve", "nvt", "npt"]
ThermostatName = Literal["langevin", "nose-hoover", "csvr"]


def make_ensemble(
    ensemble: EnsembleName,
    thermostat: ThermostatName | None = None,
    *,
    timestep_fs: float,
    temperature_K: float,
    pressure_bar: float = ATMOSPHERE_BAR,
    friction_per_ps: float = FRICTION_PER_PS,
    damping_fs: float = DAMPING_FS,
    barostat_damping_fs: float = BAROSTAT_DAMPING_FS,
) -> Ensemble:
    """Return an ensemble by name.

    Args:
        ensemble: ``"nve"``, ``"nvt"`` or ``"npt"``.
        thermostat: for NVT ``"langevin"`` (default), ``"nose-hoover"`` or ``"csvr"``; NPT has Nose-Hoover only.
        timestep_fs: fs; ``observables.default_timestep`` has a value for each set of elements.
        temperature_K: K; for NVE that of the initial velocities.
        pressure_bar: bar, for NPT.
        friction_per_ps: 1/ps, for Langevin.
        damping_fs: fs, for Nose-Hoover and CSVR.
        barostat_damping_fs: fs, for NPT.

    Raises:
        ValueError: for an unknown name, a thermostat the ensemble does not have, or a number that is not positive.
    """
    _check_positive(
        timestep_fs=timestep_fs,
        temperature_K=temperature_K,
        friction_per_ps=friction_per_ps,
        damping_fs=damping_fs,
        barostat_damping_fs=barostat_damping_fs,
    )
    match ensemble, thermostat:
        case "nve", None:
            return NVE(timestep_fs, temperature_K)
        case "nvt", None | "langevin":
            return Langevin(timestep_fs, temperature_K, friction_per_ps)
        case "nvt", "csvr":
            return CSVR(timestep_fs, temperature_K, damping_fs)
        case "nvt", "nose-hoover":
            return NoseHoover(timestep_fs, temperature_K, damping_fs)
        case "npt", None | "nose-hoover":
            return IsotropicNPT(timestep_fs, temperature_K, pressure_bar, damping_fs, barostat_damping_fs)
    raise ValueError(
        f"no ensemble {ensemble!r} with thermostat {thermostat!r}; choose nve (no thermostat), "
        "nvt (langevin, nose-hoover or csvr) or npt (nose-hoover)."
    )


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be positive and finite.")
