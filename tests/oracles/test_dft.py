"""Density functional theory as oracle: GPAW through the same door as any ASE calculator.

Not run by default: ``pytest -m dft tests/oracles/test_dft.py``, a few minutes. Installation on Debian or Ubuntu::

    apt-get install g++ libxc-dev libopenblas-dev libfftw3-dev
    printf "mpi = False\\nfftw = True\\nlibraries = ['xc', 'openblas', 'fftw3']\\n" > siteconfig.py
    CC=g++ GPAW_CONFIG=$PWD/siteconfig.py pip install gpaw gpaw-data

(``pip install mlipjax[dft]`` once the libraries and ``GPAW_CONFIG`` are there.)
"""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from mlipjax.oracles import AseOracle, Labeller, LabelStore
from mlipjax.system import Labels, System

pytestmark = [
    pytest.mark.dft,
    pytest.mark.skipif(
        importlib.util.find_spec("gpaw") is None, reason="GPAW is not installed; see the module docstring"
    ),
]
HERE = Path(__file__).resolve().parent


def hydrogen(distance):
    positions = np.array([[3.0, 3.0, 3.0], [3.0, 3.0, 3.0 + distance]])
    return System(positions, np.array([1, 1]), np.diag([6.0, 6.0, 6.5]), (True, True, True))


def test_gpaw_labels_hydrogen_into_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}{os.pathsep}{HERE}")
    systems = [hydrogen(distance) for distance in (0.73, 0.75, 0.77)]
    oracle = AseOracle("dft_calculators:gpaw_pbe")
    with Labeller(oracle, tmp_path / "labels.db", n_workers=1, timeout=600.0) as labeller:
        results = labeller.label(systems)
        assert labeller.counts.computed == 3
    assert all(isinstance(result, Labels) and result.stress_weight == 1 for result in results)
    short, middle, long = (float(result.energy) for result in results)
    # PBE: bond length 0.750 Å
    assert middle < min(short, long)
    slope = (long - short) / 0.04
    pull = 0.5 * (results[1].forces[0, 2] - results[1].forces[1, 2])
    np.testing.assert_allclose(pull, slope, atol=0.05)
    with Labeller(oracle, LabelStore(tmp_path / "labels.db")) as labeller:
        labeller.label(systems)
        assert (labeller.counts.computed, labeller.counts.reused) == (0, 3)
