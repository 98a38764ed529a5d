"""Averages that a simulation reports."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS, DAMPING_FS, FRICTION_PER_PS
from mlipjax.md.make import make_ensemble
from mlipjax.notices import Notice
from mlipjax.verbs.simulate import _say_unused, _watching
from mlipjax.verbs.simulation import summary


def run_of(slope, n_steps=1000):
    names = ("temperature_mean", "temperature_std", "potential_energy_mean", "pressure_mean", "min_distance")
    averages = dict.fromkeys(names, np.ones(2)) | {"energy_slope": np.array([slope, 2 * slope])}
    return SimpleNamespace(
        statistics=SimpleNamespace(averages=lambda: averages, n_steps=n_steps),
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
    # within a few vibrations the total energy only swings
    assert summary(run_of(1e-6, 999), 10, 0.5)["energy_drift_meV_per_atom_per_ps"] is None


def test_settings_that_an_ensemble_does_not_have_are_said():
    made = make_ensemble("nvt", "csvr", timestep_fs=1.0, temperature_K=300.0)
    usual = (ATMOSPHERE_BAR, FRICTION_PER_PS, DAMPING_FS, BAROSTAT_DAMPING_FS)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _say_unused(made, "nvt", *usual)
        assert said == []
        _say_unused(made, "nvt", 5.0, 3.0, 7.0, 900.0)
    assert [str(w.message).split("=")[0] for w in said] == ["pressure", "friction", "barostat_damping"]
    with pytest.warns(Notice, match="alarm_index=q is not used: no monitor"):
        assert _watching(None, "stop", "q", 3, 50, None).monitor is None
    with pytest.warns(Notice, match="monitor_every=5 is not used: no monitor and no error bars"):
        _watching(None, "stop", "combined", 3, 5, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _watching(None, "ignore", "combined", 2, 5, "llpr").stop_after == 0
