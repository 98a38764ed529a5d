"""Reader of Nequix ``.nqx`` files: a line of JSON, then one ``.npy`` array per parameter. Nothing is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mlipjax.models import limits, storage
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn.irreps import Irrep, tensor_product_paths
from mlipjax.nn.linear import gated_irreps
from mlipjax.potential import Potential
from mlipjax.reading import brief, check_file, parse_json, read_array, shown
from mlipjax.typing import Params

_MAX_HEADER = 1 << 20
"""Longest header in bytes; published ones have some thousand."""
_MAX_ARRAYS = 10_000

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
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a Nequix file, is truncated or longer than it should be, or does not hold exactly
            the parameters that its own header asks for.
    """
    path = Path(path)
    size = check_file(path)
    with path.open("rb") as file:
        config = _config(_read_header(file, path), path)
        arrays = _read_arrays(file, size, path)
    names = _parameter_names(config)
    # other published files also store static numbers as zero-dimensional arrays
    arrays = [array for array in arrays if array.ndim > 0]
    if len(arrays) < len(names):
        raise ValueError(f"{path} ends before parameter {names[len(arrays)]}: the file is truncated")
    if len(arrays) > len(names):
        raise ValueError(f"{path} holds {len(arrays)} arrays where its header asks for {len(names)}: another version?")
    leaves = dict(zip(names, arrays, strict=True))
    e0s = leaves.pop("e0s")
    if e0s.shape != (len(config.species),) or e0s.dtype.kind != "f":
        raise ValueError(f"{path}: e0s must be {len(config.species)} finite energies: the file is damaged")
    try:
        limits.check_energies(e0s := e0s.astype(np.float64))
    except ValueError as error:
        raise ValueError(f"{path}: {error}: the file is damaged") from None
    potential = nequip(config, e0s)
    return potential, storage.fill_params(storage.shapes_of(potential, str(path)), leaves, str(path))


def _read_header(file: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        header = parse_json(file.readline(_MAX_HEADER), "its first line")
    except ValueError as error:
        reason = str(error).removeprefix("its first line: not JSON: ").rstrip(".")
        raise ValueError(f"{path} is not a Nequix file: its first line is not JSON ({reason})") from None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a Nequix file: its first line is JSON of a {type(header).__name__}")
    if missing := [key for key in _REQUIRED if key not in header]:
        raise ValueError(f"{path} is not a Nequix file: its header lacks {', '.join(missing)}")
    return header


def _read_arrays(file: BinaryIO, size: int, path: Path) -> list[np.ndarray]:
    """Read what follows the header, to the last byte; one published file ends with a newline."""
    arrays = []
    while (left := size - file.tell()) > 1:
        if len(arrays) == _MAX_ARRAYS:
            raise ValueError(f"{path} holds more than {_MAX_ARRAYS} arrays: no Nequix file")
        arrays.append(read_array(file, left, f"{path}: array {len(arrays)}"))
    if left == 1 and file.read(1) != b"\n":
        raise ValueError(f"{path} is damaged: a byte follows its last array")
    return arrays


def _config(header: dict[str, Any], path: Path) -> NequIPConfig:
    if header["layer_norm"] not in (True, False) or header["index_weights"] not in (True, False):
        raise ValueError(
            f"{path} has a header that describes no potential: layer_norm, index_weights are true or false"
        )
    try:
        return NequIPConfig(
            species=tuple(map(_whole, header["atomic_numbers"])),
            cutoff=float(header["cutoff"]),
            hidden_irreps=str(header["hidden_irreps"]),
            lmax=_whole(header["lmax"]),
            n_layers=_whole(header["n_layers"]),
            radial_basis_size=_whole(header["radial_basis_size"]),
            radial_hidden=_hidden(_whole(header["radial_mlp_size"]), _whole(header["radial_mlp_layers"])),
            radial_gain=float(header["mlp_init_scale"]),
            envelope_p=float(header["radial_polynomial_p"]),
            layer_norm=bool(header["layer_norm"]),
            per_species_skip=bool(header["index_weights"]),
            avg_n_neighbors=float(header["avg_n_neighbors"]),
            scale=float(header["scale"]),
            shift=float(header["shift"]),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} has a header that describes no potential: {brief(error)}") from None


def _whole(value: Any) -> int:
    """A whole number, however JSON spells it; 6.7 or a word is none."""
    if isinstance(value, str) or int(value) != value:
        raise ValueError(f"expected a whole number, found {shown(value)}")
    return int(value)


def _hidden(size: int, layers: int) -> tuple[int, ...]:
    """Sizes of hidden layers; how many there are is known to be small before the tuple is made."""
    if not 0 <= layers <= limits.BOUNDS["radial_hidden"].most:
        raise ValueError(f"radial_mlp_layers must be {limits.BOUNDS['radial_hidden'].most} or fewer, found {layers}")
    return (size,) * layers


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
