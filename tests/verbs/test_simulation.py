"""What a simulation reports of its averages."""

from types import SimpleNamespace

import numpy as np
import pytest

from mlipjax.verbs.simulation import summary


def run_of(slope):
    names = ("temperature_mean", "temperature_std", "potential_energy_mean", "pressure_mean", "min_distance")
    averages = dict.fromkeys(names, np.ones(2)) | {"energy_slope": np.array([slope, 2 * slope])}
    return SimpleNamespace(
        statistics=SimpleNamespace(averages=lambda: averages),
        state=SimpleNamespace(step=100, n_replicas=2),
        n_frames=10,
        n_repeats=0,
        resumed_from=0,
    )


def test_energy_drifts_only_where_energy_is_conserved():
    report = summary(run_of(1e-6), 10, 0.5)
    # 1e-6 eV a step of 0.5 fs and 10 atoms: 0.2 meV/ps an atom
    assert report["energy_drift_meV_per_atom_per_ps"] == pytest.approx([0.2, 0.4])
    assert summary(run_of(1e-6), 10, 0.5, conserved=False)["energy_drift_meV_per_atom_per_ps"] is None
