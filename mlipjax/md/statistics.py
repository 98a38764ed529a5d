"""Sums over a run from which its averages follow, kept in float64 on the host and in every checkpoint."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from mlipjax.md.chunk import ChunkInfo
from mlipjax.units import BOLTZMANN


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums over all steps of a run, per replica.

    Attributes:
        n_steps: steps summed.
        temperature, temperature2: (R,) sums of T and T^2, K.
        potential_energy: (R,) sum, eV.
        pressure: (R,) sum, eV/Å^3.
        energy, energy_step: (R,) sums of the total energy and of (step number x total energy), for its drift.
        energy_zero: (R,) total energy after the first step, taken off first to keep digits.
        min_distance: (R,) smallest so far, Å.
    """

    n_steps: int
    temperature: np.ndarray
    temperature2: np.ndarray
    potential_energy: np.ndarray
    pressure: np.ndarray
    energy: np.ndarray
    energy_step: np.ndarray
    energy_zero: np.ndarray
    min_distance: np.ndarray

    @classmethod
    def empty(cls, n_replicas: int) -> Statistics:
        """Nothing summed yet."""
        names = [field.name for field in dataclasses.fields(cls)][1:]
        zeros: dict[str, Any] = {name: np.zeros(n_replicas) for name in names}
        return cls(n_steps=0, **zeros | {"min_distance": np.full(n_replicas, np.inf)})

    def add(self, info: ChunkInfo, degrees: int) -> Statistics:
        """Include the steps of a chunk of a simulation with so many thermal degrees of freedom."""
        trace = {name: np.asarray(series, np.float64) for name, series in vars(info.trace).items()}
        kinetic = 0.5 * degrees * BOLTZMANN * trace["temperature"]
        total = trace["potential_energy"] + kinetic
        zero = self.energy_zero if self.n_steps else total[:, 0]
        total = total - zero[:, None]
        step = self.n_steps + 1.0 + np.arange(total.shape[1])
        return Statistics(
            n_steps=self.n_steps + total.shape[1],
            temperature=self.temperature + trace["temperature"].sum(1),
            temperature2=self.temperature2 + (trace["temperature"] ** 2).sum(1),
            potential_energy=self.potential_energy + trace["potential_energy"].sum(1),
            pressure=self.pressure + trace["pressure"].sum(1),
            energy=self.energy + total.sum(1),
            energy_step=self.energy_step + total @ step,
            energy_zero=zero,
            min_distance=np.minimum(self.min_distance, trace["min_distance"].min(1)),
        )

    def averages(self) -> dict[str, np.ndarray]:
        """Averages per replica: mean and standard deviation of T (K), mean potential energy (eV) and pressure (eV/Å^3),
        slope of the total energy (eV per step, least squares) and smallest distance (Å).

        Raises:
            ValueError: before the first step.
        """
        n = self.n_steps
        if n == 0:
            raise ValueError("no averages: no step has been done yet.")
        mean = self.temperature / n
        # over steps 1..n the variance of the step number is (n^2 - 1) / 12
        covariance = self.energy_step / n - 0.5 * (n + 1) * self.energy / n
        return {
            "temperature_mean": mean,
            "temperature_std": np.sqrt(np.maximum(self.temperature2 / n - mean**2, 0.0)),
            "potential_energy_mean": self.potential_energy / n,
            "pressure_mean": self.pressure / n,
            "energy_slope": covariance * 12.0 / max(n**2 - 1, 1),
            "min_distance": self.min_distance,
        }
