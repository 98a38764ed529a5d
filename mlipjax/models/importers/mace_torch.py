"""Reader of mace-torch ``.model`` files. Neither torch nor mace is needed, and nothing the file names is run.

Such a file is a pickled module (``torch.save(model)``): hyper-parameters are attributes of its blocks, weights their
parameters. What the blocks compute is not in the file; classes and settings that this reader does not know refuse it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.elements import covalent_radii
from mlipjax.models import limits, storage
from mlipjax.models.importers._mace_weights import collect_weights, has_ordered_couplings
from mlipjax.models.importers._record import Record
from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.importers._unpickle import read_torch
from mlipjax.models.mace import MACEConfig, mace
from mlipjax.potential import Potential
from mlipjax.reading import shown
from mlipjax.typing import Params

_INTERACTIONS = {
    "RealAgnosticInteractionBlock": "agnostic",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density_residual",
}
_MODELS = ("MACE", "ScaleShiftMACE")
_TRANSFORMS = {"AgnesiTransform": ("agnesi", ("a", "q", "p")), "SoftTransform": ("soft", ("alpha",))}
_OFF = (
    "use_so3",
    "use_agnostic_product",
    "use_last_readout_only",
    "use_edge_irreps_first",
    "edge_irreps",
    "joint_embedding",
    "embedding_readout",
)
"""Settings that only newer kinds of models have, in none of which they are off."""


def load_mace_torch(path: str | Path) -> tuple[Potential, Params]:
    """Read a MACE potential.

    Args:
        path: ``.model`` file of mace-torch: an energy model with features of natural parity, correlation up to 3.

    Returns:
        The potential and its parameters in the precision of the file.

    Raises:
        ValueError: if the file is no model of this kind, is damaged, or names anything that model files do not need.
    """
    path = Path(path)
    root = read_torch(path)
    if not isinstance(root, Record):
        raise ValueError(f"{path} holds a {type(root).__name__}, not a whole model; give a .model file.")
    if root.name not in _MODELS or not root.module.startswith("mace."):
        raise ValueError(f"{path} holds a {root.module}.{root.name}; expected mace's {' or '.join(_MODELS)}.")
    model = TorchModel(path, root, "MACE")
    with model.explained():
        config, e0s = _config(model)
        if not has_ordered_couplings(model, config):
            config = dataclasses.replace(config, product_basis="independent")
        leaves = collect_weights(model, config)
    potential = mace(config, e0s)
    return potential, storage.fill_params(storage.shapes_of(potential, str(path)), leaves, str(path))


def _config(model: TorchModel) -> tuple[MACEConfig, np.ndarray]:
    """Architecture and isolated-atom energies (H, n_species)."""
    _check_settings(model)
    interactions = tuple(_interaction(model, i) for i in range(len(model.children("interactions"))))
    species = tuple(model.array("atomic_numbers").ravel().tolist())
    heads = tuple(model.root.get("heads") or ["Default"])
    e0s = np.atleast_2d(model.array("atomic_energies_fn.atomic_energies").astype(np.float64))
    if e0s.shape != (len(heads), len(species)):
        raise model.unsupported(f"isolated-atom energies of shape {e0s.shape} for heads {shown(heads)}")
    limits.check_energies(e0s)
    cutoff = model.number("r_max")
    config = MACEConfig(
        species=species,
        cutoff=cutoff,
        lmax=model.get("spherical_harmonics._lmax"),
        interactions=interactions,
        correlation=tuple(_correlation(model, i) for i in range(len(interactions))),
        radial_hidden=tuple(model.get("interactions.0.conv_tp_weights.hs")[1:-1]),
        envelope_p=model.number("radial_embedding.cutoff_fn.p"),
        avg_n_neighbors=_avg_n_neighbors(model, len(interactions)),
        heads=heads,
        **_outputs(model, len(interactions), len(heads)),
        **_activation(model),
        **_radial(model, cutoff),
        **_pairs(model, species),
    )
    return config, e0s


def _check_settings(model: TorchModel) -> None:
    for name in _OFF:
        value = model.root.get(name)
        if value is not None and value is not False:
            raise model.unsupported(f"{name}{'' if isinstance(value, Record) else f' = {shown(value)}'}")
    if model.root.get("radial_embedding.apply_cutoff") is False:
        raise model.unsupported("an envelope that multiplies messages instead of the radial basis")
    for block in model.children("products"):
        if block.get("use_agnostic_product"):
            raise model.unsupported("products that are the same for all elements")


def _interaction(model: TorchModel, layer: int) -> str:
    name = model.get(f"interactions.{layer}").name
    if name not in _INTERACTIONS:
        raise model.unsupported(f"interactions of type {name} (known: {', '.join(_INTERACTIONS)})")
    kind = _INTERACTIONS[name]
    if kind.endswith("residual") and not model.get(f"products.{layer}.use_sc"):
        raise model.unsupported(f"a skip connection in layer {layer} that is not used")
    return kind


def _correlation(model: TorchModel, layer: int) -> int:
    contraction = f"products.{layer}.symmetric_contractions.contractions.0"
    return 1 + len(model.get(f"{contraction}.weights").get("_parameters", ()))


def _avg_n_neighbors(model: TorchModel, n_layers: int) -> float:
    values = {float(model.get(f"interactions.{layer}.avg_num_neighbors")) for layer in range(n_layers)}
    if len(values) > 1:
        raise model.unsupported(f"numbers of neighbours that differ between layers ({shown(sorted(values))})")
    return values.pop()


def _outputs(model: TorchModel, n_layers: int, n_heads: int) -> dict[str, Any]:
    """Hidden irreps, readout, scale and shift."""
    hidden = model.irreps("products.0.linear.irreps_out")
    last = model.irreps(f"products.{n_layers - 1}.linear.irreps_out")
    if [irrep.kind for irrep in last] != [(0, 1)]:
        raise model.unsupported("features other than scalars after the last layer")
    found: dict[str, Any] = {"hidden_irreps": " + ".join(map(str, hidden))}
    n_readouts = len(model.children("readouts"))
    if n_readouts != n_layers:
        raise model.unsupported(f"{n_readouts} readouts of {n_layers} layers")
    if n_layers > 1:
        name = f"readouts.{n_layers - 1}"
        if model.get(name).name != "NonLinearReadoutBlock":
            raise model.unsupported(f"a readout of type {model.get(name).name}")
        found["readout_hidden"] = model.array(f"{name}.linear_2.weight").size // n_heads**2
    if model.has("scale_shift"):
        for name in ("scale", "shift"):
            values = np.atleast_1d(model.array(f"scale_shift.{name}").astype(np.float64))
            found[name] = float(values[0]) if len(values) == 1 else tuple(float(value) for value in values)
    return found


def _activation(model: TorchModel) -> dict[str, Any]:
    blocks = [model.get("interactions.0.conv_tp_weights.layer0.act")]
    for readout in model.children("readouts"):
        acts = readout.get("non_linearity.acts")
        blocks += [] if acts is None else list(acts.get("_modules", {}).values())
    for block in blocks:
        function = block.get("f")
        name = getattr(function, "__name__", None) or getattr(function, "name", function)
        if name not in ("silu", "SiLU"):
            raise model.unsupported(f"the activation {shown(name)}")
    return {"activation_gain": float(blocks[0].get("cst", 0.0))}


def _radial(model: TorchModel, cutoff: float) -> dict[str, Any]:
    kind = model.get("radial_embedding.bessel_fn").name
    if kind != "BesselBasis":
        raise model.unsupported(f"the radial basis {kind}")
    stored = model.array("radial_embedding.bessel_fn.bessel_weights").astype(np.float64)
    multiples = np.pi / cutoff * np.arange(1, len(stored) + 1)
    exact = np.allclose(stored, multiples, rtol=1e-13, atol=0.0)
    return {
        "radial_basis_size": len(stored),
        "bessel_frequencies": () if exact else tuple(float(value) for value in stored),
        "constants": "float64" if exact else "float32",
    }


def _pairs(model: TorchModel, species: tuple[int, ...]) -> dict[str, Any]:
    """Distance transform and nuclear repulsion."""
    found: dict[str, Any] = {}
    prefix = "radial_embedding.distance_transform"
    if model.has(prefix):
        name = model.get(prefix).name
        if name not in _TRANSFORMS:
            raise model.unsupported(f"the distance transform {name}")
        kind, constants = _TRANSFORMS[name]
        _check_radii(model, prefix, species)
        found["distance_transform"] = kind
        found["transform_constants"] = tuple(model.number(f"{prefix}.{constant}") for constant in constants)
    prefix = "pair_repulsion_fn"
    if model.has(prefix):
        _check_radii(model, prefix, species)
        found["zbl"] = True
        found["zbl_envelope_p"] = model.number(f"{prefix}.p")
        found["zbl_constants"] = tuple(model.number(f"{prefix}.{name}") for name in ("a_exp", "a_prefactor"))
    return found


def _check_radii(model: TorchModel, block: str, species: tuple[int, ...]) -> None:
    radii = model.array(f"{block}.covalent_radii")
    if len(radii) <= species[-1] or not np.allclose(radii[list(species)], covalent_radii(species), rtol=1e-6):
        raise model.unsupported(f"covalent radii of its own in {block}")
