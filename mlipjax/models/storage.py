"""The own format of a model: a folder with ``config.json`` and ``params.safetensors``. No pickle anywhere.

The tensors carry the SHA-256 of the configuration they belong to. Both files are written under temporary
names and the tensors are renamed first: after a kill between the two renames the folder holds the new tensors
and, as ``config.json.tmp``, their configuration. The reader takes that one, the next save puts it in place.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file, save

from mlipjax import tree
from mlipjax.files import replace_together
from mlipjax.typing import Params

CONFIG = "config.json"
PARAMS = "params.safetensors"


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
        ValueError: if a parameter is NaN or of a dtype the format lacks, or ``config`` is not JSON.
        OSError: if it cannot be written; a model that was there stays whole.
    """
    folder = Path(folder)
    try:
        text = json.dumps(config, indent=1, allow_nan=False, default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder}: the configuration cannot be written as JSON: {error}.") from None
    # safetensors stores memory as it lies, whatever the strides: arrays must be contiguous
    leaves = {path: np.array(leaf, order="C") for path, leaf in tree.flatten_paths(params).items()}
    for path, leaf in leaves.items():
        if leaf.dtype.kind not in "fiub":
            raise ValueError(f"{folder}: parameter {path!r} is {leaf.dtype}; cast it to float32 or float64 first.")
    if broken := tree.find_nan(params):
        raise ValueError(f"{folder}: parameter {broken[0]!r} is NaN ({len(broken)} in all); nothing was saved.")
    _finish_killed_save(folder)
    content = save(leaves, metadata={"config_sha256": _digest(text.encode())})
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
    config = _config_of(folder)
    if config is None:
        raise ValueError(
            f"{folder}: {CONFIG} is missing, was edited, or belongs to other tensors than {PARAMS}; "
            "change a model by loading it and saving it again."
        )
    return json.loads(config.read_text(encoding="utf-8")), load_file(folder / PARAMS)


def fill_params(template: Params, leaves: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Put arrays into the shape of a parameter tree, each in its own dtype.

    The tree starts as NaN, so that a leaf nobody filled cannot pass for a number.

    Args:
        template: tree of arrays or ``jax.ShapeDtypeStruct``, as ``jax.eval_shape(potential.init, key)``.
        leaves: arrays by path.
        source: what error messages call the origin of ``leaves``.

    Raises:
        ValueError: naming the first parameter that is missing, unexpected, of another shape, or NaN.
    """
    filled = tree.flatten_paths(tree.nan_like(template))
    missing = [path for path in filled if path not in leaves]
    extra = sorted(set(leaves) - set(filled))
    for kind, paths in (("lacks", missing), ("has an unknown", extra)):
        if paths:
            raise ValueError(f"{source} {kind} parameter {paths[0]!r} ({len(paths)} in all): made for another model?")
    for path, empty in filled.items():
        if leaves[path].shape != empty.shape:
            raise ValueError(
                f"{source}: parameter {path!r} has shape {leaves[path].shape}, the model needs {empty.shape}."
            )
        filled[path] = empty.astype(leaves[path].dtype)
        filled[path][...] = leaves[path]
    params = tree.unflatten_paths(filled)
    if broken := tree.find_nan(params):
        raise ValueError(f"{source}: parameter {broken[0]!r} is NaN ({len(broken)} in all): the file is damaged.")
    return params


def _config_of(folder: Path) -> Path | None:
    """Return the configuration file that the tensors of a folder were saved with."""
    try:
        with safetensors.safe_open(folder / PARAMS, framework="np") as file:
            digest = (file.metadata() or {}).get("config_sha256")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{folder / PARAMS}: damaged or not a safetensors file: {error}.") from None
    for candidate in (folder / CONFIG, folder / f"{CONFIG}.tmp"):
        if candidate.is_file() and _digest(candidate.read_bytes()) == digest:
            return candidate
    return None


def _finish_killed_save(folder: Path) -> None:
    """Put the configuration that a killed save left behind in place, before its temporary name is reused."""
    left_behind = folder / f"{CONFIG}.tmp"
    if left_behind.is_file() and is_model_folder(folder) and _config_of(folder) == left_behind:
        os.replace(left_behind, folder / CONFIG)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
