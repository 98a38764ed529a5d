"""Phonons of three crystals before and after fine-tunes with and without Hessian products.

PYTHONPATH=. python tests/finetuning/phonon_case.py MODEL TEACHER SEEDS     (table in docs/how-to/phonons.md)
"""

import sys

import numpy as np
from ase.build import bulk

import mlipjax
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.probes import NativeEvaluator, phonons
from mlipjax.system import System

CRYSTALS = {"Si": bulk("Si", a=5.487), "MgO": bulk("MgO", "rocksalt", a=4.255), "Al": bulk("Al", a=4.0328)}
"""At the lattice constants of nequix-oam-1-pft."""
SUPERCELLS = 10


def frequencies(model):
    """Of supercells of eight primitive cells, THz: crystals, wave vectors and branches."""
    evaluate = NativeEvaluator(model, "float32")
    found = (phonons(evaluate, System.from_ase(atoms), repeat=(2, 2, 2), mesh=4) for atoms in CRYSTALS.values())
    return [one.mesh_THz for one in found]


def phonon_errors(model, reference):
    """Mean absolute errors of each crystal, THz."""
    return np.array([np.abs(a - b).mean() for a, b in zip(frequencies(model), reference, strict=True)])


def supercells(seed=0):
    """Ten of each crystal, displaced at random by 0.03 Å."""
    frames = []
    for number in range(SUPERCELLS):
        for name, atoms in CRYSTALS.items():
            frames.append(atoms.repeat(2))
            frames[-1].rattle(0.03, seed=SUPERCELLS * seed + number)
            frames[-1].info["material_id"] = name
    return frames


def learn(start, teacher, seed=0):
    """Errors before, and after 20 epochs on energies and forces, without and with products of the teacher.

    Args:
        start: the model before.
        teacher: file of a better one.
        seed: of displacements and of the fine-tune.

    Returns:
        THz of each crystal by "before", "forces" and "products"; the results of both fine-tunes.
    """
    better = Model(*load(teacher))
    labelled, reference = mlipjax.predict(better, supercells(seed)), frequencies(better)
    options = {
        "epochs": 20,
        "batch_size": 4,
        "valid_fraction": 0.0,
        "e0s": "estimate",
        "replay_size": 16,
        "seed": seed,
        "ignore": ("units", "sign", "step-0"),  # the model before may be of another level of theory
    }
    tuned = {
        name: mlipjax.finetune(start, labelled, hvp=hvp, **options)
        for name, hvp in (("forces", ()), ("products", f"teacher:{teacher}"))
    }
    errors = {name: phonon_errors(one.model, reference) for name, one in tuned.items()}
    return {"before": phonon_errors(start, reference), **errors}, tuned


def main(model, teacher, seeds):
    for seed in range(seeds):
        errors, tuned = learn(Model(*load(model)), teacher, seed)
        print(seed, {name: [round(float(v), 3) for v in (values.mean(), *values)] for name, values in errors.items()})
        for name, one in tuned.items():
            kept = {when: one.report["retained"][when]["force_mae_meV_per_A"] for when in ("before", "after")}
            print(seed, name, one.report["steps"], "steps; other structures, force MAE in meV/Å:", kept, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
