"""Phonons and elastic constants of three crystals before and after fine-tunes with and without Hessian products.

JAX_ENABLE_X64=1 PYTHONPATH=. python tests/finetuning/phonon_case.py MODEL TEACHER SEEDS
makes the tables in docs/how-to/phonons.md.
"""

import sys

import numpy as np
from ase.build import bulk

import mlipjax
from mlipjax.models import load
from mlipjax.potential import Model
from mlipjax.probes import NativeEvaluator, elastic_constants, equation_of_state, phonons
from mlipjax.system import System

CRYSTALS = {"Si": bulk("Si", a=5.487), "MgO": bulk("MgO", "rocksalt", a=4.255), "Al": bulk("Al", a=4.0328)}
"""At the lattice constants of nequix-oam-1-pft."""
SUPERCELLS = 10


def frequencies(model):
    """Of supercells of eight primitive cells, THz: crystals, wave vectors and branches."""
    evaluate = NativeEvaluator(model, "float32")
    found = (phonons(evaluate, System.from_ase(atoms), repeat=(2, 2, 2), mesh=4) for atoms in CRYSTALS.values())
    return [one.mesh_THz for one in found]


def constants(model):
    """(6, 6) elastic constants of the primitive cells at the model's own volume, GPa; NaN if it has none near."""
    evaluate, found = NativeEvaluator(model, "float64"), []
    for atoms in CRYSTALS.values():
        try:
            scale = equation_of_state(evaluate, System.from_ase(atoms), largest_strain=0.15).scale
        except ValueError:  # to this model it is no crystal
            found.append(np.full((6, 6), np.nan))
            continue
        at_rest = atoms.copy()
        at_rest.set_cell(atoms.cell * scale, scale_atoms=True)
        found.append(elastic_constants(evaluate, System.from_ase(at_rest)).best_GPa)
    return found


def errors_of(measure, model, reference):
    """Mean absolute errors of each crystal."""
    return np.array([np.abs(a - b).mean() for a, b in zip(measure(model), reference, strict=True)])


def supercells(seed=0):
    """Ten of each crystal, strained at random by 1 % and displaced by 0.03 Å."""
    frames, rng = [], np.random.default_rng(seed)
    for number in range(SUPERCELLS):
        for name, atoms in CRYSTALS.items():
            strain = rng.normal(0.0, 0.01, (3, 3))
            frames.append(atoms.repeat(2))
            frames[-1].set_cell(frames[-1].cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
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
        THz of each crystal by "before", "forces" and "products"; GPa likewise; the results of both fine-tunes.
    """
    better = Model(*load(teacher))
    labelled = mlipjax.predict(better, supercells(seed))
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
    models = {"before": start, **{name: one.model for name, one in tuned.items()}}
    thz, gpa = (
        {name: errors_of(measure, model, reference) for name, model in models.items()}
        for measure, reference in ((frequencies, frequencies(better)), (constants, constants(better)))
    )
    return thz, gpa, tuned


def main(model, teacher, seeds):
    for seed in range(seeds):
        thz, gpa, tuned = learn(Model(*load(model)), teacher, seed)
        for unit, errors in (("THz", thz), ("GPa", gpa)):
            told = {name: [round(float(v), 3) for v in (values.mean(), *values)] for name, values in errors.items()}
            print(seed, unit, told, flush=True)
        for name, one in tuned.items():
            kept = {when: one.report["retained"][when]["force_mae_meV_per_A"] for when in ("before", "after")}
            print(seed, name, one.report["steps"], "steps; other structures, force MAE in meV/Å:", kept, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
