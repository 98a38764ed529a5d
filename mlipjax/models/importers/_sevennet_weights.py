"""Parameters of a SevenNet checkpoint under this project's names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.nequip import NequIPConfig
from mlipjax.nn.irreps import Irrep, Irreps, tensor_product_paths
from mlipjax.nn.linear import gated_irreps
from mlipjax.nn.spherical import clebsch_gordan

Kind = tuple[int, int]
"""Degree and parity of an irrep."""


class Layout(NamedTuple):
    """Order in which a checkpoint stores its numbers.

    Attributes:
        species: place of every element of the configuration in the file's list.
        heads: likewise of every head.
        sorted_paths: whether products are ordered by what they make, as since version 0.11, or by what they are of.
        labelled_readout: whether the one-hot vector of the set of labels is an input of the readout.
    """

    species: Sequence[int]
    heads: Sequence[int]
    sorted_paths: bool
    labelled_readout: bool


def collect_weights(model: TorchModel, config: NequIPConfig, layout: Layout) -> dict[str, np.ndarray]:
    """Return all parameters by path, in the precision of the file.

    Raises:
        ValueError: if one is missing or of another size.
    """
    shape = len(config.species), config.embedding
    found = {
        "embedding/0e": model.weight("onehot_to_feature_x.linear.weight", shape)[layout.species],
        "embedding_radial/frequencies": model.array("edge_embedding.basis_function.coeffs"),
    }
    for layer in range(config.n_layers):
        leaves, rows = _layer(model, config, layer, layout)
        found |= {f"layer_{layer}/{name}": leaf for name, leaf in leaves.items()}
        for head, place in zip(config.heads, layout.heads, strict=True):
            found |= {f"readout_{head}/layer_{layer}_{name}": row[place] for name, row in rows.items()}
    hidden, output, _ = readout(model, config, layout.labelled_readout)
    return found | {
        f"readout_{head}/{name}": kernel
        for head in config.heads
        for name, kernel in (("hidden", hidden), ("output", output))
    }


def readout(model: TorchModel, config: NequIPConfig, labelled: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels (C, hidden) and (hidden, 1) of the readout, and rows (labels, hidden) that its input may have beside."""
    channels = config.layer_irreps(config.n_layers - 1)[0].mul
    shapes = [(channels, config.readout_channels), (config.n_labels if labelled else 0, config.readout_channels)]
    hidden, rows = model.weights("reduce_input_to_hidden.linear.weight", shapes)
    return hidden, model.weight("reduce_hidden_to_energy.linear.weight", (config.readout_channels, 1)), rows


def _layer(
    model: TorchModel, config: NequIPConfig, layer: int, layout: Layout
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Parameters of a layer by name, and the rows (labels, C) of its linear maps."""
    inputs, outputs = config.input_irreps(layer), config.layer_irreps(layer)
    before_gate = gated_irreps(outputs)
    products = _products(config, layer, layout.sorted_paths)
    collected: dict[Kind, int] = {}
    for source, _, target in products:
        collected[target] = collected.get(target, 0) + inputs[source].mul
    messages = tuple(Irrep(collected[kind], *kind) for kind in sorted(collected))
    up, up_rows = _linear(model, f"{layer}_self_interaction_1", inputs, inputs, config.n_labels)
    down, down_rows = _linear(model, f"{layer}_self_interaction_2", messages, before_gate, config.n_labels)
    skip = _skip(model, f"{layer}_self_connection_intro", inputs, before_gate, layout.species, config.per_species_skip)
    maps = {"linear_up": up, "linear_down": down, "skip": skip}
    found = {f"{name}/{label}": kernel for name, kernels in maps.items() for label, kernel in kernels.items()}
    found |= _radial(model, config, layer, products)
    return found, {"up": up_rows, "down": down_rows} if config.n_labels else {}


def _linear(
    model: TorchModel, name: str, inputs: Irreps, outputs: Irreps, n_labels: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Kernels of the irreps that inputs and outputs share, by label, and the rows of the one-hot vector."""
    channels = {irrep.kind: irrep.mul for irrep in outputs}
    shared = [irrep for irrep in inputs if irrep.kind in channels]
    shapes = [(irrep.mul, channels[irrep.kind]) for irrep in shared]
    *kernels, rows = model.weights(f"{name}.linear.weight", [*shapes, (n_labels, channels[0, 1])])
    return {irrep.label: kernel for irrep, kernel in zip(shared, kernels, strict=True)}, rows


def _skip(
    model: TorchModel, name: str, inputs: Irreps, outputs: Irreps, species: Sequence[int], per_species: bool
) -> dict[str, np.ndarray]:
    """Kernels of a self-connection by label: shared by all elements, or one of a tensor product for each of them."""
    if not per_species:
        return _linear(model, name, inputs, outputs, 0)[0]
    channels = {irrep.kind: irrep.mul for irrep in outputs}
    shared = [irrep for irrep in inputs if irrep.kind in channels]
    shapes = [(irrep.mul, len(species), channels[irrep.kind]) for irrep in shared]
    kernels = model.weights(f"{name}.fc_tensor_product.weight", shapes)
    return {irrep.label: kernel.swapaxes(0, 1)[list(species)] for irrep, kernel in zip(shared, kernels, strict=True)}


def _products(config: NequIPConfig, layer: int, sorted_paths: bool) -> list[tuple[int, int, Kind]]:
    """Products (input irrep, degree of the harmonic, what they make) of a layer in the order of the file.

    They may make more than the layer's outputs; the linear map after them drops the rest.
    """
    inputs, outputs = config.input_irreps(layer), config.layer_irreps(layer)
    last = layer == config.n_layers - 1
    found = []
    for source, irrep in enumerate(inputs):
        for l_edge in range(config.lmax + 1):
            p = irrep.p * ((-1) ** l_edge if config.parity else 1)
            highest = min(irrep.l + l_edge, max(out.l for out in outputs))
            found += [(source, l_edge, (l, p)) for l in range(abs(irrep.l - l_edge), highest + 1) if p > 0 or not last]
    return sorted(found, key=lambda product: product[2]) if sorted_paths else found


def _radial(
    model: TorchModel, config: NequIPConfig, layer: int, products: Sequence[tuple[int, int, Kind]]
) -> dict[str, np.ndarray]:
    """Kernels of the radial network; columns of the last one in the order, and with the signs, of our paths."""
    inputs, outputs, block = config.input_irreps(layer), config.layer_irreps(layer), f"{layer}_convolution"
    widths = [inputs[source].mul for source, _, _ in products]
    sizes = [config.radial_basis_size, *config.radial_hidden, sum(widths)]
    kernels = [
        model.weight(f"{block}.weight_nn.layer{i}.weight", (sizes[i], sizes[i + 1])) for i in range(len(sizes) - 1)
    ]
    columns: Mapping[tuple[int, int, Kind], np.ndarray] = dict(
        zip(products, np.split(kernels[-1], np.cumsum(widths)[:-1], axis=1), strict=True)
    )
    ordered = []
    for path in tensor_product_paths(inputs, config.lmax, outputs, config.parity):
        target = outputs[path.target]
        sign = _sign(model, block, (inputs[path.source].l, path.l_edge, target.l))
        ordered.append(columns[path.source, path.l_edge, target.kind] * sign)
    kernels[-1] = np.concatenate(ordered, axis=1)
    return {f"radial/kernel_{i}": kernel for i, kernel in enumerate(kernels)}


def _sign(model: TorchModel, block: str, degrees: tuple[int, int, int]) -> np.float32:
    """Sign of the file's coupling coefficients relative to ours: versions of e3nn differ in some."""
    name = f"{block}.convolution._compiled_main_left_right._w3j_{'_'.join(map(str, degrees))}"
    if 0 in degrees or not model.has(name):
        return np.float32(1.0)
    stored, ours = model.weight(name, tuple(2 * l + 1 for l in degrees)), clebsch_gordan(*degrees)
    sign = math.copysign(1.0, float(np.sum(stored * ours)))
    if not np.allclose(stored, sign * ours, atol=1e-5):
        raise model.unsupported(f"coupling coefficients of its own in {name}")
    return np.float32(sign)
