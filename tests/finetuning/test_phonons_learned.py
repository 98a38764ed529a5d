"""Phonons of three crystals, learned from Hessian products of a better model; what is retained stands beside."""

import numpy as np
import pytest
from ase.build import bulk

import mlipjax
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.probes import NativeEvaluator, phonons
from mlipjax.system import System

CRYSTALS = {"Si": bulk("Si", a=5.487), "MgO": bulk("MgO", "rocksalt", a=4.255), "Al": bulk("Al", a=4.0328)}
"""At the lattice constants of the teacher."""
SUPERCELLS = 10


def frequencies(model):
    """Of supercells of eight primitive cells, THz: crystals, wave vectors and branches."""
    evaluate = NativeEvaluator(model, "float32")
    found = (phonons(evaluate, System.from_ase(atoms), repeat=(2, 2, 2), mesh=4) for atoms in CRYSTALS.values())
    return [one.mesh_THz for one in found]


def phonon_error(model, reference):
    """Mean over crystals of mean absolute errors, THz."""
    return np.mean([np.abs(a - b).mean() for a, b in zip(frequencies(model), reference, strict=True)])


def supercells():
    frames = []
    for number in range(SUPERCELLS):
        for name, atoms in CRYSTALS.items():
            frames.append(atoms.repeat(2))
            frames[-1].rattle(0.03, seed=number)
            frames[-1].info["material_id"] = name
    return frames


@pytest.mark.slow
def test_products_of_ten_supercells_of_each_crystal_teach_phonons(shared_data):
    teacher = shared_data / "weights" / "nequix-oam-1-pft.nqx"
    if not teacher.exists():
        pytest.skip(f"no {teacher.name} in the reference data")
    better, start = Model(*load(teacher)), Model(*load("universal"))
    labelled, reference = mlipjax.predict(better, supercells()), frequencies(better)
    options = {
        "epochs": 20,
        "batch_size": 4,
        "valid_fraction": 0.0,
        "e0s": "estimate",
        "replay_size": 16,
        "ignore": ("units", "sign", "step-0"),  # the model before is of another level of theory
    }
    before = phonon_error(start, reference)
    found = {
        name: mlipjax.finetune(start, labelled, hvp=hvp, **options)
        for name, hvp in (("forces", ()), ("products", f"teacher:{teacher}"))
    }
    after = {name: phonon_error(result.model, reference) for name, result in found.items()}
    assert found["forces"].report["steps"] == found["products"].report["steps"]
    assert after["products"] < 0.6 * before
    assert after["products"] < after["forces"]
    report = found["products"].report
    assert report["after"]["hvp_relative_error"] < 0.5 * report["before"]["hvp_relative_error"]
    # other structures of these elements: what it costs
    assert report["retained"]["after"]["force_mae_meV_per_A"] > 0.0
