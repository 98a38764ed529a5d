"""Parameters of a mace-torch model under this project's names."""

from __future__ import annotations

import itertools

import numpy as np

from mlipjax.models.importers._mace_embedding import element_table
from mlipjax.models.importers._torch_model import TorchModel
from mlipjax.models.mace import MACEConfig
from mlipjax.nn.irreps import Irrep, Irreps, tensor_product_paths
from mlipjax.nn.linear import gated_irreps
from mlipjax.nn.mace_layer import DENSITY_HIDDEN
from mlipjax.nn.symmetric_contraction import coupling_paths, reduce_paths

_DIVISOR = (("offset", "alpha"), ("slope", "beta"))
"""Numbers that the messages of non-linear interactions are divided by: ours, theirs."""


def collect_weights(model: TorchModel, config: MACEConfig) -> dict[str, np.ndarray]:
    """Return all parameters by path, in the precision of the file.

    Raises:
        ValueError: if one is missing or of another size.
    """
    channels = config.layer_irreps(0)[0].mul
    found = {"embedding/0e": element_table(model, (len(config.species), channels))}
    inputs = config.layer_irreps(0)[:1]
    for layer in range(config.n_layers):
        outputs = config.layer_irreps(layer)
        leaves = _interaction(model, config, layer, inputs) | _product(model, config, layer, outputs)
        leaves |= _skip(model, config, layer, inputs, outputs)
        found |= {f"layer_{layer}/{name}": leaf for name, leaf in leaves.items()}
        inputs = outputs
    return found | _readouts(model, config, channels)


def _interaction(model: TorchModel, config: MACEConfig, layer: int, inputs: Irreps) -> dict[str, np.ndarray]:
    block, channels = f"interactions.{layer}", inputs[0].mul
    edge, targets = config.edge_features(layer), _targets(config, channels)
    paths = tensor_product_paths(edge, config.lmax, targets)
    fan_in = [sum(path.mul for path in paths if path.target == i) for i in range(len(targets))]
    mixed, linear = (gated_irreps(targets), "linear_1") if config.nonlinear else (targets, "linear")
    down = model.weights(f"{block}.{linear}.weight", [(n, out.mul) for n, out in zip(fan_in, mixed, strict=True)])
    found = _linear(model, f"{block}.linear_up", "linear_up", inputs, edge) | _labelled("linear_down", targets, down)
    if config.nonlinear:
        found |= _linear(model, f"{block}.linear_res", "linear_own", edge, mixed)
        found |= _linear(model, f"{block}.linear_2", "linear_mix", targets, targets)
        return found | _pairs(model, config, block, channels, sum(fan_in))
    sizes = [config.radial_basis_size, *config.radial_hidden, sum(fan_in)]
    for i in range(len(sizes) - 1):
        found[f"radial/kernel_{i}"] = model.weight(f"{block}.conv_tp_weights.layer{i}.weight", (sizes[i], sizes[i + 1]))
    if config.interactions[layer].startswith("density"):
        found["density"] = model.weight(f"{block}.density_fn.layer0.weight", (config.radial_basis_size, 1))
    return found


def _pairs(model: TorchModel, config: MACEConfig, block: str, channels: int, n_weights: int) -> dict[str, np.ndarray]:
    """Networks of the radial basis and both elements, and what the messages are divided by."""
    found = {f"density_{name}": model.weight(f"{block}.{theirs}", ()) for name, theirs in _DIVISOR}
    for name, theirs in (("sender", "source"), ("receiver", "target")):
        shape = len(config.species), channels
        found[f"elements_{name}/0e"] = model.weight(f"{block}.{theirs}_embedding.weight", shape)
    n_inputs = config.radial_basis_size + 2 * channels
    networks = {"radial": ("conv_tp_weights", (*config.radial_hidden, n_weights))}
    networks["density"] = "density_fn", (DENSITY_HIDDEN, 1)
    for name, (theirs, sizes) in networks.items():
        # a linear map, a norm and an activation for every hidden layer
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise((n_inputs, *sizes))):
            place = f"{block}.{theirs}.net.{3 * i}"
            found[f"{name}/kernel_{i}"] = model.weight(f"{place}.weight", (fan_out, fan_in)).T
            found[f"{name}/bias_{i}"] = model.weight(f"{place}.bias", (fan_out,))
        for i, size in enumerate(sizes[:-1]):
            for ours, kind in (("scale", "weight"), ("shift", "bias")):
                found[f"{name}/{ours}_{i}"] = model.weight(f"{block}.{theirs}.net.{3 * i + 1}.{kind}", (size,))
    return found


def _skip(model: TorchModel, config: MACEConfig, layer: int, inputs: Irreps, outputs: Irreps) -> dict[str, np.ndarray]:
    block, channels, n_species = f"interactions.{layer}.skip_tp", inputs[0].mul, len(config.species)
    if config.nonlinear:
        return _linear(model, block, "skip", inputs, outputs)
    residual = config.interactions[layer].endswith("residual")
    irreps = tuple(i for i in inputs if i in outputs) if residual else _targets(config, channels)
    shapes = [(channels, n_species, channels)] * len(irreps)
    kernels = model.weights(f"{block}.weight", shapes)
    return _labelled("skip", irreps, [kernel.transpose(1, 0, 2) for kernel in kernels])


def _product(model: TorchModel, config: MACEConfig, layer: int, outputs: Irreps) -> dict[str, np.ndarray]:
    block, channels, degree = f"products.{layer}", outputs[0].mul, config.correlation[layer]
    out = model.weights(f"{block}.linear.weight", [(channels, channels)] * len(outputs))
    found = _labelled("linear_out", outputs, out)
    for irrep in outputs:
        contraction = f"{block}.symmetric_contractions.contractions.{irrep.l}"
        for nu in range(1, degree + 1):
            paths = stored_couplings(model, layer, irrep.l, nu)
            # the highest degree is apart, the others are in descending order
            name = "weights_max" if nu == degree else f"weights.{degree - 1 - nu}"
            rows = len(config.species) if config.product_per_species else 1
            weights = model.weight(f"{contraction}.{name}", (rows, paths.shape[-1], channels))
            if config.product_basis == "independent":
                weights = np.einsum("pk,zkc->zpc", reduce_paths(paths, config.lmax, irrep.l), weights)
            found[f"product/{irrep.label}_{nu}"] = weights
    return found


def stored_couplings(model: TorchModel, layer: int, l_out: int, degree: int) -> np.ndarray:
    """Couplings of the product basis as ``coupling_paths`` has them, float64."""
    paths = model.array(f"products.{layer}.symmetric_contractions.contractions.{l_out}.U_matrix_{degree}")
    paths = paths.astype(np.float64)
    # the axis of a scalar output was dropped
    return paths[None] if l_out == 0 else paths


def has_ordered_couplings(model: TorchModel, config: MACEConfig) -> bool:
    """Return whether the products enumerate couplings as ``coupling_paths`` does (cuequivariance's basis does not)."""
    for layer in range(config.n_layers):
        for irrep in config.layer_irreps(layer):
            for nu in range(1, config.correlation[layer] + 1):
                stored, ours = stored_couplings(model, layer, irrep.l, nu), coupling_paths(config.lmax, nu, irrep.l)
                if stored.shape != ours.shape or not np.allclose(stored, ours, atol=1e-5):
                    return False
    return True


def _readouts(model: TorchModel, config: MACEConfig, channels: int) -> dict[str, np.ndarray]:
    n_heads, network = len(config.heads), config.n_layers > 1
    n_linear = 0 if config.last_readout_only else config.n_layers - network
    found = {}
    for layer in range(n_linear):
        linear = model.weight(f"readouts.{layer}.linear.weight", (channels, n_heads))
        for i, head in enumerate(config.heads):
            found[f"readout_{head}/layer_{layer}"] = linear[:, i : i + 1]
    if not network:
        return found
    last, hidden = f"readouts.{n_linear}", config.readout_hidden
    first = model.weight(f"{last}.linear_1.weight", (channels, n_heads, hidden))
    second = model.weight(f"{last}.linear_2.weight", (n_heads, hidden, n_heads))
    # upstream's normalisation counts the hidden units of all heads
    share = np.asarray(n_heads**-0.5, second.dtype)
    for i, head in enumerate(config.heads):
        found[f"readout_{head}/hidden"] = first[:, i]
        found[f"readout_{head}/output"] = second[i, :, i : i + 1] * share
    if config.readout_biases:
        middle = model.weight(f"{last}.linear_mid.weight", (n_heads, hidden, n_heads, hidden))
        biases = model.weight(f"{last}.linear_mid.bias", (n_heads, hidden))
        constants = model.weight(f"{last}.linear_2.bias", (n_heads, 1))
        for i, head in enumerate(config.heads):
            found[f"readout_{head}/middle"] = middle[i, :, i] * share
            found[f"readout_{head}/middle_bias"] = biases[i]
            found[f"readout_{head}/output_bias"] = constants[i]
    return found


def _targets(config: MACEConfig, channels: int) -> Irreps:
    return tuple(Irrep(channels, l, (-1) ** l) for l in range(config.lmax + 1))


def _linear(model: TorchModel, block: str, name: str, inputs: Irreps, outputs: Irreps) -> dict[str, np.ndarray]:
    """Kernels of the irreps that inputs and outputs share, by label."""
    channels = {irrep.kind: irrep.mul for irrep in outputs}
    shared = tuple(irrep for irrep in inputs if irrep.kind in channels)
    shapes = [(irrep.mul, channels[irrep.kind]) for irrep in shared]
    return _labelled(name, shared, model.weights(f"{block}.weight", shapes))


def _labelled(name: str, irreps: Irreps, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}/{irrep.label}": array for irrep, array in zip(irreps, arrays, strict=True)}
