"""Reader of Nequix ``.nqx`` files: a line of JSON, then one ``.npy`` array per parameter. Nothing is executed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from mlipjax.models import storage
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn.irreps import Irrep, tensor_product_paths
from mlipjax.nn.linear import gated_irreps
from mlipjax.potential import Potential
from mlipjax.typing import Params

_REQUIRED = [
    "atomic_numbers",
    "cutoff",
    "hidden_irreps",
    "lmax",
    "n_layers",
    "radial_basis_size",
    "radial_mlp_size",
    "radial_mlp_layers",
    "radial_polynomial_p",
    "mlp_init_scale",
    "index_weights",
    "layer_norm",
    "shift",
    "scale",
    "avg_n_neighbors",
]


def load_nqx(path: str | Path) -> tuple[Potential, Params]:
    """Read a Nequix potential.

    Args:
        path: ``.nqx`` file.

    Returns:
        The potential and its parameters in the precision of the file (float32).

    Raises:
        ValueError: if the file is not a Nequix file, is truncated, or does not hold exactly the parameters that its
            own header asks for.
    """
    path = Path(path)
    with path.open("rb") as file:
        header = _read_header(file, path)
        arrays = _read_arrays(file, path)
    config = _config(header, path)
    names = _parameter_names(config)
    # other published files also store static numbers as zero-dimensional arrays
    arrays = [array for array in arrays if array.ndim > 0]
    if len(arrays) < len(names):
        raise ValueError(f"{path} ends before parameter {names[len(arrays)]}: the file is truncated")
    if len(arrays) > len(names):
        raise ValueError(f"{path} holds {len(arrays)} arrays where its header asks for {len(names)}: another version?")
    leaves = dict(zip(names, arrays, strict=True))
    e0s = leaves.pop("e0s").astype(np.float64)
    if e0s.shape != (len(config.species),) or not np.isfinite(e0s).all():
        raise ValueError(f"{path}: e0s must be {len(config.species)} finite energies: the file is damaged")
    potential = nequip(config, e0s)
    return potential, _fill(potential, leaves, path)


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(file.readline(1 << 20).decode())
        missing = [key for key in _REQUIRED if key not in header]
    except (UnicodeDecodeError, json.JSONDecodeError, TypeError):
        raise ValueError(f"{path} is not a Nequix file: its first line is not JSON") from None
    if missing:
        raise ValueError(f"{path} is not a Nequix file: its header lacks {', '.join(missing)}")
    return header


def _read_arrays(file: BinaryIO, path: Path) -> list[np.ndarray]:
    arrays = []
    # one published file ends with a newline
    while file.peek(1)[:1] not in (b"", b"\n"):  # pyright: ignore[reportAttributeAccessIssue]
        try:
            arrays.append(np.lib.format.read_array(file, allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} is truncated or damaged at array {len(arrays)}: {error}") from None
    return arrays


def _config(header: dict[str, Any], path: Path) -> NequIPConfig:
    try:
        return NequIPConfig(
            species=tuple(map(int, header["atomic_numbers"])),
            cutoff=float(header["cutoff"]),
            hidden_irreps=str(header["hidden_irreps"]),
            lmax=int(header["lmax"]),
            n_layers=int(header["n_layers"]),
            radial_basis_size=int(header["radial_basis_size"]),
            radial_hidden=(int(header["radial_mlp_size"]),) * int(header["radial_mlp_layers"]),
            radial_gain=float(header["mlp_init_scale"]),
            envelope_p=float(header["radial_polynomial_p"]),
            layer_norm=bool(header["layer_norm"]),
            per_species_skip=bool(header["index_weights"]),
            avg_n_neighbors=float(header["avg_n_neighbors"]),
            scale=float(header["scale"]),
            shift=float(header["shift"]),
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has a header that describes no potential: {error}") from None


def _parameter_names(config: NequIPConfig) -> list[str]:
    """Paths of our parameters in the order in which Nequix stores its own."""
    names = ["e0s"]
    inputs = (Irrep(len(config.species), 0, 1),)
    for layer in range(config.n_layers):
        outputs = config.layer_irreps(layer)
        pre_gate = gated_irreps(outputs)
        shared = {irrep.kind for irrep in inputs}
        reached = {outputs[path.target].kind for path in tensor_product_paths(inputs, config.lmax, outputs)}
        names += [f"layer_{layer}/radial/kernel_{i}" for i in range(len(config.radial_hidden) + 1)]
        names += [f"layer_{layer}/linear_up/{irrep.label}" for irrep in inputs]
        names += [f"layer_{layer}/linear_down/{irrep.label}" for irrep in pre_gate if irrep.kind in reached]
        names += [f"layer_{layer}/skip/{irrep.label}" for irrep in pre_gate if irrep.kind in shared]
        names += [f"layer_{layer}/norm/scale_{irrep.label}" for irrep in pre_gate if config.layer_norm]
        inputs = outputs
    return [*names, f"readout_{config.heads[0]}/kernel"]


def _fill(potential: Potential, leaves: dict[str, np.ndarray], path: Path) -> Params:
    template = jax.eval_shape(potential.init, jax.random.key(0))
    return storage.fill_params(template, leaves, str(path))
