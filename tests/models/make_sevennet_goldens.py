"""Make the golden files of SevenNet: what ``sevenn`` computes with its published models and with small random ones.

    python -m venv ENV; ENV/bin/pip install torch==2.13.0 sevenn==0.13.0
    ENV/bin/python tests/models/make_sevennet_goldens.py [NAME ...]

The published files are inside the package and stay there; of them only energies, forces and stresses are kept. The
small models are checkpoints as ``sevenn`` saves them, packed again. Nothing here is imported by the tests.
"""

import copy
import sys
import zipfile
from pathlib import Path

import ase.build
import numpy as np
import sevenn
import sevenn._keys as KEY
import torch
from ase import Atoms
from ase.io import read, write
from e3nn import o3
from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
from sevenn.atom_graph_data import AtomGraphData
from sevenn.model_build import build_E3_equivariant_model
from sevenn.train.dataload import unlabeled_atoms_to_graph
from sevenn.util import load_checkpoint

FOLDER = Path(__file__).parent / "goldens"
STRUCTURES = FOLDER / "sevennet_structures.extxyz"
PUBLISHED = {
    "sevennet-0": ("7net-0", None),
    "sevennet-0-22may2024": ("7net-0_22may2024", None),
    "sevennet-l3i5": ("7net-l3i5", None),
    "sevennet-mf-0/PBE": ("7net-mf-0", "PBE"),
    "sevennet-mf-0/R2SCAN": ("7net-mf-0", "R2SCAN"),
}

XPLOR = {"cutoff_function_name": "XPLOR", "cutoff_on": 3.5}
POLYNOMIAL = {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6}
EVEN = {
    "irreps_manual": ["4x0e", "4x0e+3x1e+2x2e", "4x0e+3x1e+2x2e", "4x0e"],
    "lmax": 2,
    "is_parity": False,
    "cutoff_function": XPLOR,
}
SMALL = {
    "sevennet_even": EVEN,
    # the same weights in the order, and with the sign of couplings, of an old version
    "sevennet_old": {**EVEN, "version": "0.9.1", "_normalize_sph": False},
    "sevennet_parities": {
        "irreps_manual": ["4x0e", "4x0e+3x1o", "4x0e+3x1o+2x1e", "4x0e"],
        "lmax": 1,
        "is_parity": True,
        "cutoff_function": POLYNOMIAL,
    },
    "sevennet_modal": {
        **EVEN,
        "use_modality": True,
        "_modal_map": {"pbe": 0, "scan": 1, "hse": 2},
        "_number_of_modalities": 3,
        "use_modal_self_inter_intro": True,
        "use_modal_self_inter_outro": True,
        "use_modal_output_block": True,
        "use_modal_wise_shift": True,
        "use_modal_wise_scale": False,
    },
}
OWN = {"self_connection_type": "nequip", "irreps_manual": False, "cutoff_function": POLYNOMIAL}
SMALL |= {
    # what a training run of one's own has where its input says nothing: 4x0e+4x1o, 4x0e+4x1o+4x1e, 4x0e
    "sevennet_own": OWN,
    "sevennet_own_even": {**OWN, "is_parity": False, "lmax": 2, "lmax_edge": 2, "lmax_node": 1},
}
SPECIES = (14, 1, 8, 6, 29)


def structures():
    """Crystals, an alloy, a slab, molecules, a liquid, an isolated atom, and atoms as close as in a collision."""
    rng = np.random.default_rng(0)
    primitive, pair = ase.build.bulk("Cu", a=3.3), ase.build.bulk("Si", a=5.2)
    pair.rattle(0.1, seed=1)
    cell = np.array([[3.6, 0.4, 0.0], [1.3, 3.9, -0.3], [-0.5, 0.8, 4.2]])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.1], [0.1, 0.5, 0.55], [0.5, 0.05, 0.5], [0.3, 0.8, 0.8]])
    skewed = Atoms([8, 6, 1, 14, 1], positions=sites @ cell + rng.uniform(-0.1, 0.1, (5, 3)), cell=cell, pbc=True)
    slab = ase.build.fcc111("Cu", (2, 2, 3), vacuum=6.0)
    ase.build.add_adsorbate(slab, ase.build.molecule("CH3OH"), 2.0, "ontop")
    slab.rattle(0.05, seed=2)
    methanol = ase.build.molecule("CH3OH")
    methanol.rattle(0.05, seed=3)
    cluster = Atoms("Cu2O2CH", positions=rng.normal(0.0, 1.6, (6, 3)))
    atom = Atoms("O", pbc=False)
    close = Atoms("OC", [[0.0, 0.0, 0.0], [0.3, 0.5, 0.4]])
    wire = Atoms("SiOH", [[0.0, 0.1, 0.0], [1.5, 0.3, 0.2], [2.3, -0.4, 0.5]], cell=[3.4, 12.0, 12.0], pbc=[1, 0, 0])
    quartz = ase.build.bulk("SiO", "rocksalt", a=4.4) * (2, 1, 1)
    quartz.rattle(0.15, seed=4)
    return [primitive, pair, skewed, slab, methanol, cluster, atom, close, wire, quartz, liquid(rng)]


def liquid(rng):
    """64 molecules of water, turned at random on a jittered grid."""
    water = ase.build.molecule("H2O")
    box = Atoms(cell=3.1 * 4 * np.eye(3), pbc=True)
    for site in np.argwhere(np.ones((4, 4, 4))):
        one = water.copy()
        one.rotate(rng.uniform(0.0, 360.0), rng.normal(size=3), center="com")
        one.translate(3.1 * (site + 0.5) + rng.uniform(-0.2, 0.2, 3))
        box += one
    return box


def save_small(seed, path, settings):
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n = len(SPECIES)
    shape = (3, n) if settings.get("use_modality") else (n,)
    config = {
        **copy.deepcopy(DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG),
        "version": sevenn.__version__,
        "cutoff": 4.0,
        "channel": 4,
        "num_convolution_layer": 3,
        "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 6},
        "weight_nn_hidden_neurons": [8, 8],
        "self_connection_type": "linear",
        "conv_denominator": 3.1,
        "shift": rng.normal(-4.0, 2.0, shape).tolist(),
        "scale": [1.73] * n,
        "_number_of_species": n,
        "chemical_species": ["Si", "H", "O", "C", "Cu"],
        "_type_map": {z: i for i, z in enumerate(SPECIES)},
        **settings,
    }
    model = build_E3_equivariant_model(copy.deepcopy(config))
    state = model.state_dict()
    state["edge_embedding.basis_function.coeffs"] *= 1.0 + 0.1 * torch.rand(6)
    if config["version"] == "0.9.1":
        for name, value in state.items():
            if name.endswith(("w3j_1_1_1", "w3j_2_1_2")):
                value *= -1.0
    torch.save({"model_state_dict": state, "optimizer_state_dict": {}, "config": config, "epoch": 1}, path)
    compress(path)


def compress(path):
    """Replace an archive by a compressed copy."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def in_double(source):
    """The model in double precision, its coupling coefficients too, which files hold in single precision."""
    model = load_checkpoint(str(source)).build_model().double()
    for name, buffer in model.named_buffers():
        if "_w3j_" in name:
            exact = o3.wigner_3j(*map(int, name.split("_w3j_")[1].split("_")), dtype=torch.float64)
            buffer.copy_(exact * torch.sign(torch.sum(exact * buffer)))
    for module in model:
        if type(module).__name__ == "OnehotEmbedding":
            module.register_forward_hook(one_hot_in_double)
    model.set_is_batch_data(False)
    return model.eval()


def one_hot_in_double(module, arguments, data):
    """``sevenn`` makes one-hot vectors in single precision."""
    for key in (KEY.NODE_FEATURE, KEY.NODE_ATTR, KEY.MODAL_ATTR):
        if key in data and data[key].dtype == torch.float32:
            data[key] = data[key].double()
    return data


def evaluate(source, modality):
    """Energies, forces and stresses of all structures."""
    model = in_double(source)
    found = {}
    # as the tests read them: the file has 8 decimals
    for i, atoms in enumerate(read(STRUCTURES, ":")):
        graph = unlabeled_atoms_to_graph(atoms, model.cutoff)
        vectors = torch.from_numpy(graph[KEY.EDGE_VEC])
        data = AtomGraphData.from_numpy_dict(graph)
        data[KEY.EDGE_VEC] = vectors
        data[KEY.CELL_VOLUME] = torch.as_tensor(atoms.cell.volume, dtype=torch.float64)
        if modality:
            data[KEY.DATA_MODALITY] = modality
        output = model(data)
        found[f"energy_{i}"] = output[KEY.PRED_TOTAL_ENERGY].detach().numpy()
        found[f"forces_{i}"] = output[KEY.PRED_FORCE].detach().numpy()[: len(atoms)]
        if atoms.cell.rank == 3:
            xx, yy, zz, xy, yz, zx = (-output[KEY.PRED_STRESS]).detach().numpy()
            found[f"stress_{i}"] = np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
    largest = max(np.abs(value).max() for name, value in found.items() if name.startswith("forces"))
    print(f"{source} {modality or ''}: largest force {largest:.3g} eV/Å", flush=True)
    return found


def main(names):
    """Write all files, or those named."""
    write(STRUCTURES, structures())
    for name, (source, modality) in PUBLISHED.items():
        if not names or name in names:
            np.savez_compressed(FOLDER / f"{name.replace('/', '_')}.npz", **evaluate(source, modality))
    for seed, (name, settings) in enumerate(SMALL.items()):
        if not names or name in names:
            path = FOLDER / f"{name}.pth"
            save_small(0 if name == "sevennet_old" else seed, path, settings)
            for modality in settings.get("_modal_map", {None: 0}):
                label = name if modality is None else f"{name}_{modality}"
                np.savez_compressed(FOLDER / f"{label}.npz", **evaluate(path, modality))


if __name__ == "__main__":
    main(sys.argv[1:])
