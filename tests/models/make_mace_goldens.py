"""Make the golden files of MACE: small random models as mace-torch saves them, and what mace-torch computes with them.

    python -m venv ENV; ENV/bin/pip install torch==2.13.0 mace-torch==0.3.16
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 ENV/bin/python tests/models/make_mace_goldens.py

Every case has the architecture of a published model with 4 channels and small radial networks; "omol0" comes from
mace-torch 0.3.14, with its name as argument. Files are compressed again (torch stores plainly), which makes them a
tenth as large. Nothing here is imported by the tests.

With ``--full FOLDER`` the models have the published sizes too (128 channels, 89 elements, 6 Å), some 100 MB in all, and
400 MB of "full_omol0". They are for a folder outside of the repository; ``MLIPJAX_MACE_GOLDENS=FOLDER pytest -m slow``
compares with them.
"""

import json
import sys
import zipfile
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from e3nn import o3
from mace.calculators import MACECalculator
from mace.modules import NonLinearBiasReadoutBlock, interaction_classes
from mace.modules.models import ScaleShiftMACE

FOLDER = Path(__file__).parent / "goldens"
SPECIES = (1, 6, 8, 14, 29)
RESIDUAL = "RealAgnosticResidualInteractionBlock"
DENSITY = ("RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock")
MP0 = {"hidden": "4x0e", "blocks": (RESIDUAL, RESIDUAL), "num_bessel": 10}
NONLINEAR = {
    "blocks": ("RealAgnosticResidualNonLinearInteractionBlock",) * 2,
    "num_bessel": 8,
    "apply_cutoff": False,
    "radial_MLP": [8, 8, 8],
}
CLASSES = {"type": "categorical", "per": "graph", "in_dim": 1, "emb_dim": 4}
CASES = {
    "mp0_small": MP0,
    # stored in single precision, as published files are
    "mp0_medium": {**MP0, "hidden": "4x0e + 4x1o", "dtype": torch.float32},
    "mp0_large": {**MP0, "hidden": "2x0e + 2x1o + 2x2e"},
    "mp0b": {**MP0, "distance_transform": "Agnesi", "pair_repulsion": True},
    "mpa0": {
        **MP0,
        "hidden": "4x0e + 4x1o",
        "blocks": DENSITY,
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
    },
    "two_heads": {
        "hidden": "4x0e + 4x1o",
        "blocks": ("RealAgnosticInteractionBlock", RESIDUAL),
        "num_bessel": 8,
        "distance_transform": "Soft",
        "heads": ["pbe", "r2scan"],
        "max_ell": 2,
        "correlation": 2,
    },
    "one_layer": {"hidden": "4x0e", "blocks": (RESIDUAL, RESIDUAL), "num_bessel": 8, "num_interactions": 1},
    # as published (mace_omol/mace-omol.sh of ACEsuit/mace-foundations); made by mace-torch 0.3.14, as that file was
    "omol0": {
        **NONLINEAR,
        "hidden": "4x0e + 4x1o + 4x2e",
        "edge_irreps": o3.Irreps("2x0e + 2x1o + 2x2e"),
        "num_interactions": 3,
        "correlation": 2,
        "heads": ["omol"],
        "embedding_specs": {
            "total_spin": {**CLASSES, "num_classes": 11, "offset": 0},
            "total_charge": {**CLASSES, "num_classes": 21, "offset": 10},
        },
    },
    # heads of the published model; two layers, as its paper says
    "mh1": {
        **NONLINEAR,
        "hidden": "4x0e + 4x1o",
        "edge_irreps": o3.Irreps("2x0e + 2x1o"),
        "heads": ["omat_pbe", "omol", "matpes_r2scan"],
    },
    # whatever else mace-torch offers for such models
    "nonlinear_options": {
        **NONLINEAR,
        "hidden": "4x0e + 4x1o",
        "edge_irreps": o3.Irreps("3x0e + 2x1o"),
        "use_edge_irreps_first": True,
        "use_agnostic_product": True,
        "use_last_readout_only": True,
        "use_embedding_readout": True,
        "readout_cls": NonLinearBiasReadoutBlock,
        "heads": ["a", "b"],
        "embedding_specs": {"total_charge": {**CLASSES, "num_classes": 3, "offset": 1}},
        "num_interactions": 3,
        "max_ell": 2,
        "correlation": 2,
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
    },
    # and for the older ones
    "edge_irreps": {
        **MP0,
        "hidden": "3x0e + 3x1o",
        "edge_irreps": o3.Irreps("2x0e + 2x1o"),
        "use_agnostic_product": True,
        "max_ell": 2,
        "correlation": 2,
    },
}


FULL_SIZE = {
    "species": tuple(range(1, 90)),
    "r_max": 6.0,
    "radial_MLP": [64, 64, 64],
    "MLP_irreps": o3.Irreps("16x0e"),
    "dtype": torch.float64,
}
# the number of neighbours is not the published 62: forces of random weights would be next to nothing
FULL = {
    f"full_{name}": {**CASES[name], **FULL_SIZE, "hidden": hidden, "avg_num_neighbors": neighbors}
    for name, hidden, neighbors in (
        ("mp0_small", "128x0e", 0.4),
        ("mp0_medium", "128x0e + 128x1o", 0.4),
        ("mp0b", "128x0e + 128x1o", 4.0),
        ("mpa0", "128x0e + 128x1o", 4.0),
        ("two_heads", "128x0e + 128x1o", 0.1),
    )
}
FULL["full_omol0"] = {
    **CASES["omol0"],
    **FULL_SIZE,
    "hidden": "1024x0e + 1024x1o + 1024x2e",
    "edge_irreps": o3.Irreps("128x0e + 128x1o + 128x2e"),
    "embedding_specs": {
        "total_spin": {**CLASSES, "emb_dim": 1024, "num_classes": 101, "offset": 0},
        "total_charge": {**CLASSES, "emb_dim": 1024, "num_classes": 201, "offset": 100},
    },
}


def make_model(seed, hidden, blocks, heads=None, dtype=torch.float64, species=SPECIES, **settings):
    """A random model whose energies and forces are of the order of an eV and eV/Å."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_heads = len(heads or [0])
    e0s = rng.normal(-3.7, 2.0, (n_heads, len(species)))
    scale, shift = rng.uniform(0.5, 1.5, n_heads), rng.normal(0.0, 0.3, n_heads)
    model = ScaleShiftMACE(
        **{
            "r_max": 4.5,
            "num_polynomial_cutoff": 5,
            "max_ell": 3,
            "num_interactions": 2,
            "correlation": 3,
            "radial_MLP": [8, 8],
            "MLP_irreps": o3.Irreps("4x0e"),
            "avg_num_neighbors": 1.9,
            **settings,
        },
        interaction_cls_first=interaction_classes[blocks[0]],
        interaction_cls=interaction_classes[blocks[1]],
        num_elements=len(species),
        hidden_irreps=o3.Irreps(hidden),
        atomic_energies=e0s if heads else e0s[0],
        atomic_numbers=list(species),
        gate=torch.nn.functional.silu,
        heads=heads,
        atomic_inter_scale=scale if heads else scale[0],
        atomic_inter_shift=shift if heads else shift[0],
    )
    for name, parameter in model.named_parameters():
        if "symmetric_contractions" in name:
            # torch's initial weights shrink with the number of couplings, so that powers would hardly count
            parameter.data *= parameter.shape[1] ** 0.5
        elif name.endswith(("alpha", "beta")):
            parameter.data.uniform_(0.5, 1.5)
        elif "source_embedding" in name or "target_embedding" in name:
            parameter.data.normal_()
        elif name.endswith("bias") or (".net." in name and parameter.ndim == 1):
            # zeros and ones at initialisation
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def structures():
    """Primitive, skewed and mixed cells, a molecule, and two atoms as close as in a collision."""
    rng = np.random.default_rng(0)
    primitive = bulk("Cu", a=3.3)
    pair = bulk("Si", a=5.2)
    pair.rattle(0.1, seed=1)
    cell = np.array([[3.6, 0.4, 0.0], [1.3, 3.9, -0.3], [-0.5, 0.8, 4.2]])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.1], [0.1, 0.5, 0.55], [0.5, 0.05, 0.5], [0.3, 0.8, 0.8]])
    skewed = Atoms([8, 6, 1, 14, 1], positions=sites @ cell + rng.uniform(-0.1, 0.1, (5, 3)), cell=cell, pbc=True)
    molecule = Atoms("COH3", positions=rng.normal(0.0, 1.2, (5, 3)))
    close = Atoms("OC", [[0.0, 0.0, 0.0], [0.3, 0.5, 0.4]])
    return [primitive, pair, skewed, molecule, close]


def compress(path):
    """Replace an archive by a compressed copy."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def evaluate(model, head, folder, structures="structures.extxyz"):
    """Energy, forces and stress of all structures of a file in double precision."""
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", **head)
    rows = []
    # as the tests read them: the file has 8 decimals
    for atoms in read(folder / structures, ":"):
        atoms.calc = calculator
        row = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist()}
        if atoms.cell.rank == 3:
            row["stress"] = atoms.get_stress(voigt=False).tolist()
        rows.append(row)
    return rows


def main(folder, cases, names):
    """Write all files, or those of the cases named."""
    folder.mkdir(exist_ok=True)
    write(folder / "structures.extxyz", structures())
    for seed, (name, case) in enumerate(cases.items()):
        if names and name not in names:
            continue
        path = folder / f"{name}.model"
        model = make_model(seed, **case)
        # e3nn adds its compiled code, which no reader needs; one file keeps it
        with nullcontext() if name == "one_layer" else patch("torch.jit.save", lambda module, buffer: None):
            torch.save(model, path)
        heads = case.get("heads")
        expected = {head: evaluate(model, {"head": head} if heads else {}, folder) for head in heads or ["Default"]}
        (folder / f"{name}.json").write_text(json.dumps(expected))
        compress(path)
        largest = max(np.abs(row["forces"]).max() for rows in expected.values() for row in rows)
        print(f"{name}: {path.stat().st_size} bytes, largest force {largest:.3g} eV/Å")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--full"]:
        main(Path(sys.argv[2]), FULL, sys.argv[3:])
    else:
        main(FOLDER, CASES, sys.argv[1:])
