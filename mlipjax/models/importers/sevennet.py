"""Reader of SevenNet checkpoints (``.pth``). Neither torch nor sevenn is needed, and nothing the file names is run.

A checkpoint is a dictionary: settings by name under ``config``, tensors by name under ``model_state_dict``. Settings
that this reader does not know refuse it. What SevenNet adds to every atom's energy becomes its isolated-atom energy;
the sets of labels of a multi-fidelity model ("modalities") become its energy heads.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.models import limits, storage
from mlipjax.models.importers._sevennet_weights import Layout, collect_weights, readout
from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.importers._unpickle import read_torch
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn import irreps as ir
from mlipjax.potential import Potential
from mlipjax.reading import shown
from mlipjax.typing import Params

_SILU_GAIN = 1.6791767923989418
"""Factor after SiLU in e3nn's torch code, from a million random numbers of its own."""

_KNOWN: dict[str, tuple[Any, ...]] = {
    "interaction_type": ("nequip", None),
    "self_connection_type": ("linear", "nequip"),
    "act_radial": ("silu",),
    "use_bias_in_linear": (False, None),
    "readout_as_fcn": (False, None),
    "optimize_by_reduce": (True, None),
    "use_modal_node_embedding": (False, None),
    "use_modal_wise_scale": (False, None),
}
"""Values of settings that this reader knows; ``None`` stands for an absent one."""
_OLD_NAMES = (
    (" ", "_"), ("EdgeEmbedding", "edge_embedding"), ("denumerator", "denominator"), ("reducing_nn_", "reduce_"),
)  # fmt: skip
"""Names of tensors before version 0.9.2, and what they are now."""


def load_sevennet(path: str | Path) -> tuple[Potential, Params]:
    """Read a SevenNet potential.

    Args:
        path: ``.pth`` checkpoint of sevenn; all layers have self-connections of one kind.

    Returns:
        The potential, with a head for each modality, and its parameters in the precision of the file (float32).

    Raises:
        ValueError: if the file is no such checkpoint, is damaged, or names anything that model files do not need.
    """
    path = Path(path)
    root = read_torch(path)
    parts: dict[str, Any] = root if isinstance(root, dict) else {}
    settings, state = parts.get("config"), parts.get("model_state_dict")
    if not isinstance(settings, dict) or not isinstance(state, dict):
        raise ValueError(f"{path} is no checkpoint of SevenNet: it holds no config and model_state_dict.")
    model = TorchModel(path, {_name_now(str(name)): value for name, value in state.items()}, "SevenNet")
    with model.explained():
        _check_settings(model, settings)
        config = _config(model, settings)
        layout = _layout(model, settings, config)
        config, e0s = _scaled(model, settings, config, layout)
        leaves = collect_weights(model, config, layout)
    potential = nequip(config, e0s)
    return potential, storage.fill_params(storage.shapes_of(potential, str(path)), leaves, str(path))


def _name_now(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = name.replace(old, new)
    return name


def _check_settings(model: TorchModel, settings: Mapping[str, Any]) -> None:
    for name, kind in (("_type_map", dict), ("_modal_map", dict), ("weight_nn_hidden_neurons", list)):
        if not isinstance(settings.get(name, kind()), kind):
            raise model.unsupported(f"{name} = {shown(settings[name])}")
    found = {name: settings.get(name) for name in _KNOWN} | {"self_connection_type": _self_connection(settings)}
    for name in ("act_scalar", "act_gate"):
        found[f"{name} of even scalars"] = settings[name]["e"]
    for name, value in found.items():
        if value not in _KNOWN.get(name, ("silu",)):
            raise model.unsupported(f"{name} = {shown(value)}")
    if settings.get("use_modality") and not (
        settings["use_modal_self_inter_intro"] and settings["use_modal_self_inter_outro"]
    ):
        raise model.unsupported("modalities that are no inputs of the layers")


def _config(model: TorchModel, settings: Mapping[str, Any]) -> NequIPConfig:
    """Architecture, without the scale of the energies."""
    n_layers, lmax, edges = settings["num_convolution_layer"], settings["lmax"], settings.get("lmax_edge", -1)
    limits.check_layers(n_layers)
    denominators = {model.number(f"{layer}_convolution.denominator") for layer in range(n_layers)}
    if len(denominators) > 1:
        raise model.unsupported("denominators that differ between layers")
    irreps = _irreps(model, settings)
    config = NequIPConfig(
        species=tuple(sorted(settings["_type_map"])),
        cutoff=settings["cutoff"],
        # in the order of the layer that has most
        hidden_irreps=" + ".join(map(str, {x: None for layer in sorted(irreps[1:], key=len)[::-1] for x in layer})),
        lmax=edges if edges > 0 else lmax,
        n_layers=n_layers,
        radial_basis_size=model.array("edge_embedding.basis_function.coeffs").size,
        radial_hidden=tuple(settings["weight_nn_hidden_neurons"]),
        trainable_frequencies=True,
        **_envelope(model, settings["cutoff_function"]),
        parity=settings["is_parity"],
        # versions that do not say whether they normalise vectors did not
        solid_harmonics=not settings.get("_normalize_sph", _version(settings) >= (0, 10)),
        activation_gain=_SILU_GAIN,
        embedding=irreps[0][0].mul,
        layer_norm=False,
        per_species_skip=_self_connection(settings) == "nequip",
        # our messages are divided by the root of this number
        avg_n_neighbors=denominators.pop() ** 2,
        readout_channels=irreps[-1][0].mul // 2,
        n_labels=len(settings["_modal_map"]) if settings.get("use_modality") else 0,
        heads=_heads(settings),
    )
    for layer, found in enumerate(irreps[1:]):
        if found != config.layer_irreps(layer) or any(irrep.kind == (0, -1) for irrep in found):
            raise model.unsupported(f"irreps {' + '.join(map(str, found))} after layer {layer}")
    return config


def _irreps(model: TorchModel, settings: Mapping[str, Any]) -> list[ir.Irreps]:
    """Irreps of the embedding and after every layer."""
    given = settings["irreps_manual"]
    if given is False:
        return _reached_irreps(settings)
    if not isinstance(given, list) or len(given) != settings["num_convolution_layer"] + 1:
        raise model.unsupported(f"irreps_manual = {shown(given)}")
    if not all(isinstance(text, str) and len(text) < 1000 for text in given):
        raise model.unsupported(f"irreps {shown(given)}")
    return [ir.parse(text) for text in given]


def _reached_irreps(settings: Mapping[str, Any]) -> list[ir.Irreps]:
    """Irreps where a file names none: all that products with the harmonics reach, with one number of channels."""
    lmax, channels, signs = settings["lmax"], settings["channel"], (1, -1 if settings["is_parity"] else 1)
    edges, highest = (settings.get(name, -1) for name in ("lmax_edge", "lmax_node"))
    edges, highest = (own if own > 0 else lmax for own in (edges, highest))
    if max(lmax, edges, highest) > limits.MAX_DEGREE:
        raise ValueError(f"harmonics of degree {max(lmax, edges, highest)}")
    kinds = [(0, 1)]
    layers: list[ir.Irreps] = [(ir.Irrep(channels, 0, 1),)]
    for left in reversed(range(settings["num_convolution_layer"])):
        reached = {
            (l, p * signs[l_edge % 2])
            for l_in, p in kinds
            for l_edge in range(edges + 1)
            for l in range(abs(l_in - l_edge), l_in + l_edge + 1)
        }
        kinds = sorted((l, p) for l, p in reached if (l <= highest if left else (l, p) == (0, 1)))
        layers.append(tuple(ir.Irrep(channels, *kind) for kind in kinds))
    return layers


def _self_connection(settings: Mapping[str, Any]) -> Any:
    """Kind of the skip connections; a list that names one kind for every layer is that kind."""
    kinds = settings["self_connection_type"]
    return kinds[0] if isinstance(kinds, list) and len({shown(kind) for kind in kinds}) == 1 else kinds


def _envelope(model: TorchModel, settings: Mapping[str, Any]) -> dict[str, Any]:
    name = settings["cutoff_function_name"]
    if name == "XPLOR":
        return {"envelope_onset": settings["cutoff_on"]}
    if name == "poly_cut":
        return {"envelope_p": settings.get("poly_cut_p_value", 6)}
    raise model.unsupported(f"the cutoff function {shown(name)}")


def _heads(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the energy heads: the modalities, the file's default first."""
    if not settings.get("use_modality"):
        return ("energy",)
    return tuple(sorted(settings["_modal_map"], key=lambda name: name != settings.get("default_modal")))


def _version(settings: Mapping[str, Any]) -> tuple[int, int]:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", settings["version"])
    if found is None:
        raise ValueError(f"version {shown(settings['version'])}")
    return int(found[1]), int(found[2])


def _layout(model: TorchModel, settings: Mapping[str, Any], config: NequIPConfig) -> Layout:
    rows, places = settings["_type_map"], settings["_modal_map"] if config.n_labels else {"energy": 0}
    layout = Layout(
        species=[rows[z] for z in config.species],
        heads=[places[head] for head in config.heads],
        sorted_paths=_version(settings) >= (0, 11),
        labelled_readout=bool(config.n_labels and settings["use_modal_output_block"]),
    )
    for order in (layout.species, layout.heads):
        if sorted(order) != list(range(len(order))):
            raise model.unsupported(f"a list in the order {shown(order)}")
    return layout


def _scaled(
    model: TorchModel, settings: Mapping[str, Any], config: NequIPConfig, layout: Layout
) -> tuple[NequIPConfig, np.ndarray]:
    """The configuration with its scale, and isolated-atom energies (H, n_species): all that an atom's energy is in
    addition to the network, which float32 would not hold.
    """
    shape = len(config.heads), len(config.species)
    scale, shift = (model.array(f"rescale_atomic_energy.{name}").astype(np.float64) for name in ("scale", "shift"))
    scale = np.broadcast_to(scale, shape[1:])[layout.species]
    e0s = np.broadcast_to(shift, shape)[layout.heads][:, layout.species]
    if layout.labelled_readout:
        channels, labels = config.layer_irreps(config.n_layers - 1)[0].mul, config.n_labels
        _, output, rows = (part.astype(np.float64) for part in readout(model, config, labelled=True))
        constants = rows @ output[:, 0] * ((channels + labels) * config.readout_channels) ** -0.5
        e0s = e0s + constants[layout.heads, None] * scale
        scale = scale * math.sqrt(channels / (channels + labels))
    limits.check_energies(e0s)
    values = tuple(scale.tolist())
    return dataclasses.replace(config, scale=values[0] if len(set(values)) == 1 else values), e0s
