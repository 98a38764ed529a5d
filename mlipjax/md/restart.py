"""Checkpoints of a run: plain arrays and a line of JSON, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data.checks import check_system
from mlipjax.files import replace_on_success
from mlipjax.graph import VerletSpec
from mlipjax.md.state import SimState, rebuild_at
from mlipjax.md.statistics import Statistics
from mlipjax.reading import parse_json, read_npz, shown
from mlipjax.typing import Params

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """State of a run: with the same settings it continues bit for bit (CPU, same dtype).

    Attributes:
        state: of the simulation.
        spec: sizes of its tables, as far as they had to grow.
        chunk_steps: steps between searches for neighbours, as far as they had to shrink.
        steps_since_search: steps since the last search.
        n_frames: frames written to the trajectory.
        statistics: sums over the steps done.
    """

    state: SimState
    spec: VerletSpec
    chunk_steps: int
    steps_since_search: int
    n_frames: int
    statistics: Statistics


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Write a checkpoint and the settings it belongs to; a kill leaves the old file or the new one.

    Tables are not stored: they follow from the positions and cells at which they were found.
    """
    state = checkpoint.state
    leaves = _named_leaves(dataclasses.replace(state, table=None))
    arrays: dict[str, Any] = {f"state{name}": leaf for name, leaf in leaves.items()}
    arrays |= {f"statistics.{name}": np.asarray(sums) for name, sums in vars(checkpoint.statistics).items()}
    arrays["table.positions"] = np.asarray(state.table.reference_positions)
    arrays["table.cells"] = np.asarray(state.table.reference_cell)
    header = {
        "format": FORMAT,
        "settings": dict(settings),
        "spec": checkpoint.spec.to_json(),
        "chunk_steps": checkpoint.chunk_steps,
        "steps_since_search": checkpoint.steps_since_search,
        "n_frames": checkpoint.n_frames,
    }
    arrays["header"] = np.array(json.dumps(header))
    with replace_on_success(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def load_checkpoint(path: str | os.PathLike[str], template: SimState, settings: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: file.
        template: a state of the same shapes; its values do not matter (``jax.eval_shape`` of ``init`` will do).
        settings: of the run that wants to continue.

    Raises:
        ValueError: if the file is no checkpoint of this version, or belongs to a run with other settings.
    """
    arrays = _read(Path(path))
    header = parse_json(str(arrays["header"]), f"{path}: header") if "header" in arrays else None
    if not isinstance(header, dict):
        raise ValueError(f"{path}: not a checkpoint of a simulation (it has no header); remove it to start anew.")
    if header.get("format") != FORMAT:
        raise ValueError(f"{path}: checkpoint of format {shown(header.get('format'))}, expected {FORMAT}; start anew.")
    try:
        _compare(header["settings"], json.loads(json.dumps(dict(settings))))
        return _checkpoint(arrays, header, template)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{path}: not a checkpoint of a simulation, or damaged ({type(error).__name__}: {error}); remove it to "
            "start anew."
        ) from error


def _checkpoint(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any], template: SimState) -> Checkpoint:
    try:
        spec = VerletSpec.from_json(header["spec"])
    except ValueError as error:
        raise ValueError(f"the checkpoint is damaged: {error} Start anew.") from error
    counts = {name: header[name] for name in ("chunk_steps", "steps_since_search", "n_frames")}
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        raise ValueError(f"the checkpoint counts {shown(counts)}; start anew.")
    broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and np.isnan(array).any()]
    # averages over no step yet are no numbers
    if broken := [name for name in broken if not name.startswith("statistics.")]:
        raise ValueError(f"the checkpoint holds NaN for {broken[0]}; start anew.")
    moved = {name: array for name, array in arrays.items() if name.startswith("state.dynamics.")}
    if broken := [name for name, array in moved.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]:
        raise ValueError(f"the checkpoint holds infinite numbers for {broken[0]}; start anew.")
    if (step := arrays["state.step"]).size and step.min() < 0:
        raise ValueError(f"the checkpoint has come to step {int(step.min())}; start anew.")
    positions = template.dynamics.position.shape
    for name, shape in (("table.positions", positions), ("table.cells", (positions[0], 3, 3))):
        if arrays[name].shape != shape:
            raise ValueError(f"the checkpoint holds {arrays[name].shape} for {name}, expected {shape}; start anew.")
    pbc = np.asarray(spec.pbc, bool)
    for number, (where, cell) in enumerate(zip(arrays["table.positions"], arrays["table.cells"], strict=True)):
        check_system(np.ones(len(where), int), where, cell, pbc, f"the checkpoint, replica {number}")
    state = _fill(dataclasses.replace(template, table=None), arrays)
    state = rebuild_at(spec, state, jnp.asarray(arrays["table.positions"]), jnp.asarray(arrays["table.cells"]))
    statistics = {name.removeprefix("statistics."): a for name, a in arrays.items() if name.startswith("statistics.")}
    return Checkpoint(
        state=state,
        spec=spec,
        chunk_steps=header["chunk_steps"],
        steps_since_search=header["steps_since_search"],
        n_frames=header["n_frames"],
        statistics=Statistics(**{**statistics, "n_steps": int(statistics["n_steps"])}),
    )


def is_begun(path: str | os.PathLike[str]) -> bool:
    """Return whether a checkpoint is of a run that has taken a step.

    Raises:
        ValueError: if the file is no checkpoint.
    """
    step = _read(Path(path)).get("state.step")
    if step is not None and (step.shape != () or step.dtype.kind != "i"):
        raise ValueError(f"{path}: not a checkpoint of a simulation, or damaged (its step); remove it to start anew.")
    return step is None or int(step) > 0


def fingerprint(tree: Params | Any) -> str:
    """Hash of all arrays of a tree, to recognise the same parameters or structure."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(_raw(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def numbers(config: Any) -> dict[str, float | int]:
    """Fields of a configuration of numbers, such as an ensemble, in JSON types."""
    return {field.name: np.asarray(getattr(config, field.name)).item() for field in dataclasses.fields(config)}


def _named_leaves(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(_raw(leaf)) for path, leaf in leaves}


def _raw(leaf: Any) -> Any:
    """Random keys as the integers they are made of."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _fill(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    def fill(path: Any, leaf: Any) -> Any:
        name = f"state{jax.tree_util.keystr(path)}"
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        shape = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        found = arrays.get(name)
        if found is None or found.shape != shape.shape or found.dtype != shape.dtype:
            what = "nothing" if found is None else f"{found.dtype}{found.shape}"
            raise ValueError(
                f"the checkpoint holds {what} for {name}, expected {shape.dtype}{shape.shape}; start anew."
            )
        return jax.random.wrap_key_data(jnp.asarray(found)) if is_key else jnp.asarray(found)

    return jax.tree_util.tree_map_with_path(fill, template)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path, "a checkpoint")
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(str(path)).strip(" :.")
        raise ValueError(f"{path}: not a checkpoint of a simulation ({reason}); remove it to start anew.") from error


def _compare(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names:
        differences = "; ".join(f"{name} was {shown(found.get(name))}, is {wanted.get(name)}" for name in names)
        raise ValueError(f"belongs to another run: {differences[:500]}. Choose another output, or remove it.")
