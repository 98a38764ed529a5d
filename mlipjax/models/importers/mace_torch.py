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
from mlipjax.models.importers._mace_embedding import embedded_energies, has_embedding
from mlipjax.models.importers._mace_weights import collect_weights, has_ordered_couplings
from mlipjax.models.importers._record import Record
from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.importers._unpickle import read_torch
from mlipjax.models.mace import MACEConfig, mace
from mlipjax.nn.irreps import Irreps
from mlipjax.notices import notice
from mlipjax.potential import Potential
from mlipjax.reading import shown
from mlipjax.typing import Params

_INTERACTIONS = {
    "RealAgnosticInteractionBlock": "agnostic",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density_residual",
    "RealAgnosticResidualNonLinearInteractionBlock": "nonlinear",
}
_MODELS = ("MACE", "ScaleShiftMACE")
_TRANSFORMS = {"AgnesiTransform": ("agnesi", ("a", "q", "p")), "SoftTransform": ("soft", ("alpha",))}
_READOUTS = {"NonLinearReadoutBlock": False, "NonLinearBiasReadoutBlock": True}
"""Tell whether they have biases."""


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
    params = storage.fill_params(storage.shapes_of(potential, str(path)), leaves, str(path))
    if has_embedding(model):
        notice(f"{path} asks for total charge and spin: every structure is taken for a neutral singlet.")
    return potential, params


def _config(model: TorchModel) -> tuple[MACEConfig, np.ndarray]:
    """Architecture and isolated-atom energies (H, n_species)."""
    interactions = tuple(_interaction(model, i) for i in range(len(model.children("interactions"))))
    species = tuple(model.array("atomic_numbers").ravel().tolist())
    heads = tuple(model.root.get("heads") or ["Default"])
    e0s = np.atleast_2d(model.array("atomic_energies_fn.atomic_energies").astype(np.float64))
    if e0s.shape != (len(heads), len(species)):
        raise model.unsupported(f"isolated-atom energies of shape {e0s.shape} for heads {shown(heads)}")
    e0s = e0s + embedded_energies(model, e0s.shape)
    limits.check_energies(e0s)
    cutoff = model.number("r_max")
    config = MACEConfig(
        species=species,
        cutoff=cutoff,
        lmax=model.get("spherical_harmonics._lmax"),
        interactions=interactions,
        correlation=tuple(_correlation(model, i) for i in range(len(interactions))),
        envelope_p=model.number("radial_embedding.cutoff_fn.p"),
        avg_n_neighbors=_avg_n_neighbors(model, len(interactions)),
        heads=heads,
        **_features(model, len(interactions)),
        **_outputs(model, len(interactions), len(heads)),
        **_activation(model),
        **_radial(model, cutoff),
        **_pairs(model, species),
    )
    for layer in range(config.n_layers):
        if _edge_irreps(model, layer) not in (None, edge := config.edge_features(layer)):
            raise model.unsupported(f"edge irreps in layer {layer} that are not {' + '.join(map(str, edge))}")
    return config, e0s


def _interaction(model: TorchModel, layer: int) -> str:
    name = model.get(f"interactions.{layer}").name
    if name not in _INTERACTIONS:
        raise model.unsupported(f"interactions of type {name} (known: {', '.join(_INTERACTIONS)})")
    kind = _INTERACTIONS[name]
    if kind.endswith(("residual", "nonlinear")) and not model.get(f"products.{layer}.use_sc"):
        raise model.unsupported(f"a skip connection in layer {layer} that is not used")
    enveloped = model.root.get("radial_embedding.apply_cutoff") is False
    if enveloped and kind != "nonlinear":
        raise model.unsupported(f"an envelope that multiplies messages of type {name} instead of the radial basis")
    if kind == "nonlinear" and not enveloped:
        raise model.unsupported(f"messages of type {name} without an envelope (apply_cutoff), which jump at the cutoff")
    return kind


def _correlation(model: TorchModel, layer: int) -> int:
    contraction = f"products.{layer}.symmetric_contractions.contractions.0"
    return 1 + len(model.get(f"{contraction}.weights").get("_parameters", ()))


def _avg_n_neighbors(model: TorchModel, n_layers: int) -> float:
    values = {float(model.get(f"interactions.{layer}.avg_num_neighbors")) for layer in range(n_layers)}
    if len(values) > 1:
        raise model.unsupported(f"numbers of neighbours that differ between layers ({shown(sorted(values))})")
    return values.pop()


def _features(model: TorchModel, n_layers: int) -> dict[str, Any]:
    """Irreps of the features and of what neighbours send, and whether elements share the products' weights."""
    if model.root.get("use_so3"):
        raise model.unsupported("use_so3 = True")
    hidden = model.irreps("products.0.linear.irreps_out")
    found: dict[str, Any] = {"hidden_irreps": " + ".join(map(str, hidden))}
    first, last = _edge_irreps(model, 0) or hidden[:1], _edge_irreps(model, n_layers - 1)
    if last is not None and (first, last) != (hidden[:1], hidden if n_layers > 1 else hidden[:1]):
        found |= {"edge_irreps": " + ".join(map(str, last)), "edge_irreps_first": first != hidden[:1]}
    shared = {bool(block.get("use_agnostic_product")) for block in model.children("products")}
    if len(shared) > 1:
        raise model.unsupported("products that are the same for all elements in some layers only")
    return found | {"product_per_species": not shared.pop()}


def _edge_irreps(model: TorchModel, layer: int) -> Irreps | None:
    """Features that neighbours send; older files do not say, and send all."""
    name = f"interactions.{layer}.edge_irreps"
    return model.irreps(name) if model.has(name) else None


def _outputs(model: TorchModel, n_layers: int, n_heads: int) -> dict[str, Any]:
    """Readout, scale and shift."""
    last = model.irreps(f"products.{n_layers - 1}.linear.irreps_out")
    if [irrep.kind for irrep in last] != [(0, 1)]:
        raise model.unsupported("features other than scalars after the last layer")
    found: dict[str, Any] = {"last_readout_only": bool(model.root.get("use_last_readout_only"))}
    n_readouts = len(model.children("readouts"))
    if n_readouts != (1 if found["last_readout_only"] and n_layers > 1 else n_layers):
        raise model.unsupported(f"{n_readouts} readouts of {n_layers} layers")
    if n_layers > 1:
        name = f"readouts.{n_readouts - 1}"
        if model.get(name).name not in _READOUTS:
            raise model.unsupported(f"a readout of type {model.get(name).name} (known: {', '.join(_READOUTS)})")
        found["readout_hidden"] = model.array(f"{name}.linear_2.weight").size // n_heads**2
        found["readout_biases"] = _READOUTS[model.get(name).name]
    if model.has("scale_shift"):
        for name in ("scale", "shift"):
            values = np.atleast_1d(model.array(f"scale_shift.{name}").astype(np.float64))
            found[name] = float(values[0]) if len(values) == 1 else tuple(float(value) for value in values)
    return found


def _activation(model: TorchModel) -> dict[str, Any]:
    """Gains of SiLU, and of the sigmoid of gates."""
    silu, sigmoid = [], []
    for block in model.children("interactions"):
        network, gate = block.get("conv_tp_weights.layer0.act"), block.get("equivariant_nonlin")
        if network is not None:
            silu.append(_activation_of(network, "f", "cst"))
        if gate is not None:
            ours = gate.get("_act_gate") is not None
            places = ("", "") if ours else ("act_scalars.acts.0.", "act_gates.acts.0.")
            names = (("_act_scalar", "_scalar_cst"), ("_act_gate", "_gate_cst")) if ours else (("f", "cst"),) * 2
            for functions, place, pair in zip((silu, sigmoid), places, names, strict=True):
                functions.append(_activation_of(gate, *(f"{place}{name}" for name in pair)))
    for readout in model.children("readouts"):
        acts = readout.get("non_linearity.acts")
        silu += [] if acts is None else [_activation_of(act, "f", "cst") for act in acts.get("_modules", {}).values()]
    found = {}
    for field, name, functions in (("activation_gain", "silu", silu), ("gate_gain", "sigmoid", sigmoid)):
        if unknown := {function for function, _ in functions} - {name}:
            raise model.unsupported(f"the activation {shown(sorted(unknown)[0])}")
        if len({gain for _, gain in functions}) > 1:
            raise model.unsupported(f"several factors after {name}")
        found |= {field: functions[0][1]} if functions else {}
    return found


def _activation_of(block: Record, function: str, gain: str) -> tuple[str, float]:
    """Name of an activation function, in lower case, and the factor after it."""
    found = block.get(function)
    name = getattr(found, "__name__", None) or getattr(found, "name", found)
    return str(name).lower(), float(block.get(gain, 0.0))


def _radial(model: TorchModel, cutoff: float) -> dict[str, Any]:
    kind = model.get("radial_embedding.bessel_fn").name
    if kind != "BesselBasis":
        raise model.unsupported(f"the radial basis {kind}")
    stored = model.array("radial_embedding.bessel_fn.bessel_weights").astype(np.float64)
    multiples = np.pi / cutoff * np.arange(1, len(stored) + 1)
    exact = np.allclose(stored, multiples, rtol=1e-13, atol=0.0)
    return {
        "radial_hidden": _radial_hidden(model),
        "radial_basis_size": len(stored),
        "bessel_frequencies": () if exact else tuple(float(value) for value in stored),
        "constants": "float64" if exact else "float32",
    }


def _radial_hidden(model: TorchModel) -> tuple[int, ...]:
    """Hidden units of the radial networks."""
    network = model.get("interactions.0.conv_tp_weights")
    layers = network.get("net")
    if layers is None:
        return tuple(network.get("hs")[1:-1])
    biases = [network.get(f"net.{i}.bias") for i in range(0, len(layers.state.get("_modules", ())) - 1, 3)]
    return tuple(len(bias) for bias in biases)


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
