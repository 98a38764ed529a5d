"""Train a MACE by mace-torch's own command line, fine-tune it by the same, and keep that with what it computes.

    python -m venv ENV; ENV/bin/pip install torch==2.13.0 mace-torch==0.3.16
    OMP_NUM_THREADS=1 TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 ENV/bin/python tests/models/make_mace_trained.py

A model with non-linear interactions learns two heads from scratch, 20 frames of copper and aluminium each: energies,
forces and stress of effective-medium theory and of a Lennard-Jones potential. Then it is fine-tuned on 20 frames of
another potential, with the first ones in a head of their own. Both are averages of their weights (EMA). Nothing here
is imported by the tests; it takes a minute or two.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import write
from make_mace_goldens import FOLDER, compress, evaluate

N_FRAMES = 20
COMMON = {
    "valid_fraction": 0.2,
    "batch_size": 4,
    "ema": None,
    "ema_decay": 0.9,
    "energy_key": "REF_energy",
    "forces_key": "REF_forces",
    "stress_key": "REF_stress",
    "loss": "universal",
    "default_dtype": "float64",
    "device": "cpu",
    "save_cpu": None,
    "plot": False,
}
MODEL = {
    "model": "ScaleShiftMACE",
    "interaction_first": "RealAgnosticResidualNonLinearInteractionBlock",
    "interaction": "RealAgnosticResidualNonLinearInteractionBlock",
    "apply_cutoff": False,
    "hidden_irreps": "4x0e + 4x1o",
    "edge_irreps": "2x0e + 2x1o",
    "max_ell": 2,
    "correlation": 2,
    "radial_MLP": "[8, 8]",
    "MLP_irreps": "4x0e",
    "r_max": 4.0,
    "lr": 0.01,
    "max_num_epochs": 4,
}


def frames(calculator, seed):
    """Isolated atoms and rattled, strained cells of both metals with labels."""
    rng = np.random.default_rng(seed)
    found = [Atoms(symbol, cell=[12.0] * 3, pbc=True) for symbol in ("Al", "Cu")]
    for i in range(N_FRAMES):
        atoms = bulk("Cu", cubic=True, a=3.8)
        atoms.symbols[rng.permutation(4)[: i % 5]] = "Al"
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(0.0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.1, (4, 3))
        found.append(atoms)
    for atoms in found:
        atoms.calc = calculator
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        if len(atoms) == 1:
            atoms.info["config_type"] = "IsolatedAtom"
        else:
            atoms.arrays["REF_forces"] = atoms.get_forces()
            atoms.info["REF_stress"] = atoms.get_stress()
        atoms.calc = None
    return found


def train(folder, name, **settings):
    """Run ``mace_run_train`` and return its model."""
    options = [f"--{key}" if value is None else f"--{key}={value}" for key, value in {**COMMON, **settings}.items()]
    program = Path(sys.executable).with_name("mace_run_train")
    subprocess.run([program, f"--name={name}", "--seed=1", *options], cwd=folder, check=True)
    return folder / f"{name}.model"


def keep(path):
    """Copy a model beside the other golden files, with what its heads predict of four frames."""
    model = torch.load(path, map_location="cpu", weights_only=False)
    expected = {head: evaluate(model, {"head": head}, FOLDER, f"{path.stem}.extxyz") for head in model.heads}
    (FOLDER / f"{path.stem}.json").write_text(json.dumps(expected))
    shutil.copy(path, FOLDER)
    compress(FOLDER / path.name)
    print(f"{path.stem}: {(FOLDER / path.name).stat().st_size} bytes, heads {model.heads}")


def main(folder):
    """Write the golden files."""
    sets = {"emt": frames(EMT(), 0), "lj": frames(LennardJones(sigma=2.3, epsilon=0.2, rc=4.0), 1)}
    sets["soft"] = frames(LennardJones(sigma=2.4, epsilon=0.1, rc=4.0), 2)
    for name, structures in sets.items():
        write(folder / f"{name}.xyz", structures)
    some = [atoms for name in ("emt", "lj") for atoms in sets[name][3:5]]
    write(FOLDER / "finetuned.extxyz", some, columns=["symbols", "positions"])
    heads = {head: {"train_file": f"{head}.xyz", "E0s": "IsolatedAtom"} for head in ("emt", "lj")}
    trained = train(folder, "trained", heads=repr(heads), **MODEL)
    finetuned = train(
        folder,
        "finetuned",
        foundation_model=trained,
        foundation_head="emt",
        multiheads_finetuning=True,
        pt_train_file="emt.xyz",
        train_file="soft.xyz",
        E0s="IsolatedAtom",
        max_num_epochs=2,
        lr=0.001,
    )
    keep(finetuned)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
