"""Phonons of three crystals, learned from Hessian products of a better model; what is retained stands beside."""

import numpy as np
import pytest
from finetuning.phonon_case import learn

from mlipjax.models import load
from mlipjax.potential import Model


@pytest.mark.slow
def test_products_of_ten_supercells_of_each_crystal_teach_phonons(shared_data):
    teacher = shared_data / "weights" / "nequix-oam-1-pft.nqx"
    if not teacher.exists():
        pytest.skip(f"no {teacher.name} in the reference data")
    errors, elastic, tuned = learn(Model(*load("universal")), teacher)
    before, forces, products = (errors[name].mean() for name in ("before", "forces", "products"))
    assert products < 0.6 * before
    assert products < forces
    # Al is no crystal of the model before (GFN1-xTB); constants are learned from stresses, and not well in so few steps
    assert np.isnan(elastic["before"][2])
    assert np.all(elastic["products"] < 30.0)
    report = tuned["products"].report
    assert tuned["forces"].report["steps"] == report["steps"]
    assert report["after"]["hvp_relative_error"] < 0.5 * report["before"]["hvp_relative_error"]
    # other structures of these elements are not predicted as by the model before: what it costs is said
    assert report["retained"]["before"]["force_mae_meV_per_A"] < report["retained"]["after"]["force_mae_meV_per_A"]
