"""The own format of a model: a folder with ``config.json`` and ``params.safetensors``. No pickle anywhere.

The tensors carry the SHA-256 of the configuration they belong to, the configuration that of the tensors (folders of
earlier versions do not). Both files are written under temporary
names and the tensors are renamed first: after a kill between the two renames the folder holds the new tensors
and, as ``config.json.tmp``, their configuration. The reader takes that one, the next save puts it in place.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from mlipjax import tree
from mlipjax.files import digest, file_digest, replace_together
from mlipjax.models import limits
from mlipjax.potential import Potential
from mlipjax.reading import brief, check_file, read_json
from mlipjax.typing import Params

CONFIG = "config.json"
PARAMS = "params.safetensors"
_CONFIG_DIGEST, _PARAMS_DIGEST = "config_sha256", "params_sha256"
_MAX_HEADER = 1 << 22
"""Longest description of the tensors in bytes; a model has some hundred of them."""
_DTYPES = ("F16", "F32", "F64")


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` is a folder that ``write_model`` made."""
    return (Path(path) / PARAMS).is_file()


def write_model(folder: str | os.PathLike[str], config: Mapping[str, Any], params: Params) -> None:
    """Save a model; other files in the folder stay, and at no moment is the model half old, half new.

    Args:
        folder: made if absent.
        config: JSON types, numpy scalars and arrays; floats keep all digits, tuples come back as lists.
        params: arrays, written bit for bit in their own dtype.

    Raises:
        ValueError: if a parameter is NaN or infinite or of a dtype the format lacks, or ``config`` is not JSON.
        OSError: if it cannot be written; a model that was there stays whole.
    """
    folder = Path(folder)
    # safetensors stores memory as it lies, whatever the strides: arrays must be contiguous
    leaves = {path: np.array(leaf, order="C") for path, leaf in tree.flatten_paths(params).items()}
    for path, leaf in leaves.items():
        if leaf.dtype.kind != "f":
            raise ValueError(f"{folder}: parameter {path!r} is {leaf.dtype}; cast it to float32 or float64 first.")
    if broken := limits.find_broken(leaves):
        raise ValueError(f"{folder}: parameter {broken[0]!r} {broken[1]}; nothing was saved.")
    try:
        described = {**config, _PARAMS_DIGEST: _digest_leaves(leaves)}
        text = json.dumps(described, indent=1, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: the configuration cannot be written as JSON: {brief(error)}.") from None
    _finish_killed_save(folder)
    content = save(leaves, metadata={_CONFIG_DIGEST: digest(text)})
    replace_together({folder / PARAMS: content, folder / CONFIG: text.encode()})


def read_model(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what ``write_model`` wrote: the configuration, and the parameters by path.

    Raises:
        ValueError: if the folder holds no model, a file is damaged, or the configuration is not the one the
            tensors were saved with.
    """
    folder = Path(folder)
    if not is_model_folder(folder):
        raise ValueError(f"{folder}: not a saved model: it needs {CONFIG} and {PARAMS}.")
    _check_header(folder / PARAMS)
    config = _config_of(folder)
    if config is None:
        raise ValueError(
            f"{folder}: {CONFIG} is missing, was edited, or belongs to other tensors than {PARAMS}; "
            "change a model by loading it and saving it again."
        )
    description = read_json(config)
    if not isinstance(description, dict):
        raise ValueError(f"{config}: found a {type(description).__name__}, where a configuration is expected.")
    leaves = _read_leaves(folder / PARAMS)
    if description.pop(_PARAMS_DIGEST, None) not in (None, _digest_leaves(leaves)):
        raise ValueError(
            f"{folder / PARAMS}: damaged: its parameters are not those that were saved (another SHA-256 than {CONFIG} "
            "says); take another copy of the model."
        )
    return description, leaves


def shapes_of(potential: Potential, source: str) -> Params:
    """Return what ``fill_params`` fills: the shapes of a potential's parameters, none of them in memory.

    Raises:
        ValueError: if there are more than a model may have.
    """
    template = jax.eval_shape(potential.init, jax.random.key(0))
    try:
        limits.check_size(template)
    except ValueError as error:
        raise ValueError(f"{source}: {brief(error)}.") from None
    return template


def fill_params(template: Params, leaves: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Put arrays into the shape of a parameter tree, each in its own dtype.

    Nothing is allocated before all names and shapes have been compared.

    Args:
        template: tree of arrays or ``jax.ShapeDtypeStruct``, as ``jax.eval_shape(potential.init, key)``.
        leaves: arrays by path.
        source: what error messages call the origin of ``leaves``.

    Raises:
        ValueError: naming the first parameter that is missing, unexpected, of another shape, not floating-point, NaN,
            infinite or absurdly large.
    """
    shapes = {path: np.shape(leaf) for path, leaf in tree.flatten_paths(template).items()}
    missing = [path for path in shapes if path not in leaves]
    extra = sorted(set(leaves) - set(shapes))
    for kind, paths in (("lacks", missing), ("has an unknown", extra)):
        if paths:
            raise ValueError(f"{source} {kind} parameter {paths[0]!r} ({len(paths)} in all): made for another model?")
    for path, shape in shapes.items():
        if leaves[path].shape != shape:
            raise ValueError(f"{source}: parameter {path!r} has shape {leaves[path].shape}, the model needs {shape}.")
    if broken := limits.find_broken({path: leaves[path] for path in shapes}):
        raise ValueError(f"{source}: parameter {broken[0]!r} {broken[1]}: the file is damaged.")
    return tree.unflatten_paths({path: np.array(leaves[path]) for path in shapes})


def _check_header(path: Path) -> None:
    """Refuse tensors that are no regular file of a bounded size, or whose description claims to be a long one."""
    size = check_file(path)
    with path.open("rb") as file:
        start = file.read(8)
    claimed = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if claimed + 8 > min(size, _MAX_HEADER):
        raise ValueError(
            f"{path}: damaged or not a safetensors file: a description of {claimed} bytes in a file of {size} "
            f"(at most {_MAX_HEADER} are read)."
        )


def _read_leaves(path: Path) -> dict[str, np.ndarray]:
    """Read tensors of floating-point numbers, no more of them than a model has."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise ValueError(
                        f"{path}: parameter {name!r} is {dtype}; expected floating-point numbers "
                        f"({', '.join(_DTYPES)})."
                    )
        return load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: damaged or not a safetensors file: {brief(error)}.") from None


def _config_of(folder: Path) -> Path | None:
    """Return the configuration file that the tensors of a folder were saved with."""
    try:
        with safetensors.safe_open(folder / PARAMS, framework="np") as file:
            expected = (file.metadata() or {}).get(_CONFIG_DIGEST)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / PARAMS}: damaged or not a safetensors file: {brief(error)}.") from None
    for candidate in (folder / CONFIG, folder / f"{CONFIG}.tmp"):
        if candidate.is_file() and file_digest(candidate) == expected:
            return candidate
    return None


def _finish_killed_save(folder: Path) -> None:
    """Put the configuration that a killed save left behind in place, before its temporary name is reused."""
    left_behind = folder / f"{CONFIG}.tmp"
    if left_behind.is_file() and is_model_folder(folder) and _config_of(folder) == left_behind:
        os.replace(left_behind, folder / CONFIG)


def _digest_leaves(leaves: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of parameters, their names, types and shapes."""
    sound = ((path, np.ascontiguousarray(leaves[path])) for path in sorted(leaves))
    named = ((f"{path} {leaf.dtype} {leaf.shape}\n", leaf) for path, leaf in sound)
    return digest(*itertools.chain.from_iterable(named))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
