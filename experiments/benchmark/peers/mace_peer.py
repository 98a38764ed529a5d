"""Time mace-torch: ``python mace_peer.py {make,calculator,step} WEIGHTS STRUCTURE ROUNDS`` prints one line of JSON.

Runs in an environment with mace-torch and TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 (for the tables of e3nn 0.4.4). ``make``
writes a random model of 128 scalar channels and a cutoff of 5 Å to WEIGHTS, ``calculator`` times its ASE calculator
(energy, forces, stress), ``step`` one training step on all frames of the file: a mean-squared loss of energies,
forces and stress, and Adam.
"""

import json
import sys

import numpy as np
import torch
from e3nn import o3
from mace import data, modules
from mace.calculators import MACECalculator
from mace.tools import AtomicNumberTable, torch_geometric
from timing import main, moving

SPECIES = (1, 6, 8, 14, 29)


def make(weights):
    """Write a random model, the smallest that universal MACE models come in."""
    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(SPECIES),
        hidden_irreps=o3.Irreps("128x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(SPECIES)),
        avg_num_neighbors=30.0,
        atomic_numbers=list(SPECIES),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=0.8,
        atomic_inter_shift=0.1,
    )
    torch.save(model, weights)


def calculator(weights, frames):
    """Energy, forces and stress of the first frame, moved a little every time."""
    atoms = frames[0]
    atoms.calc = MACECalculator(model_paths=weights, device="cpu", default_dtype="float32")
    return moving(atoms, atoms.get_potential_energy)


def step(weights, frames):
    """One optimiser step on all frames."""
    model = torch.load(weights, map_location="cpu", weights_only=False)
    table = AtomicNumberTable([int(z) for z in model.atomic_numbers])
    keys = data.KeySpecification.from_defaults()
    graphs = [
        data.AtomicData.from_config(
            data.config_from_atoms(atoms, key_specification=keys), z_table=table, cutoff=float(model.r_max)
        )
        for atoms in frames
    ]
    batch = next(iter(torch_geometric.dataloader.DataLoader(graphs, batch_size=len(frames))))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def run():
        optimizer.zero_grad(set_to_none=True)
        # the model writes into the dictionary
        out = model(batch.clone().to_dict(), training=True, compute_force=True, compute_stress=True)
        loss = sum((out[name] ** 2).sum() for name in ("energy", "forces", "stress"))
        loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    if sys.argv[1] == "make":
        make(sys.argv[2])
        print(json.dumps({"weights": sys.argv[2]}))
    else:
        main({"calculator": calculator, "step": step})
