"""Loading a potential by name or path, and saving it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp

from mlipjax.models import foreign, registry, storage
from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.models.importers import load_mace_torch, load_nqx, load_sevennet
from mlipjax.potential import Model, Potential
from mlipjax.typing import Params

_WAYS = "a model's name, a .nqx, .model or .pth file or a saved folder"


def load(name_or_path: str | Path) -> Model:
    """Load a potential.

    Args:
        name_or_path: a name from the registry (``"universal"`` is embedded, others are downloaded once), a Nequix
            ``.nqx`` file, a ``.model`` file of mace-torch, a ``.pth`` checkpoint of SevenNet, or a folder that ``save``
            wrote.

    Returns:
        ``Model(potential, params)``, which unpacks. Parameters are JAX arrays in the precision they were stored in
        (float64 only where JAX has it enabled).

    Raises:
        ValueError: if the name is unknown or that of a foreign calculator (``ase:module:factory``: it has no
            parameters), or the file is of an unknown kind or damaged.
        FileNotFoundError, ConnectionError: if a file is not there and cannot be had.
    """
    if isinstance(name_or_path, str) and foreign.is_foreign(name_or_path):
        raise foreign.refusal(name_or_path)
    if not str(name_or_path).strip():
        raise ValueError(f"the name of a model is empty; give {_WAYS}.")
    path = Path(name_or_path)
    # a user without a home folder has a folder called ~
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise FileNotFoundError(f"{path} does not exist; give {_WAYS}")
        path = registry.fetch(registry.find_entry(str(name_or_path)))
    potential, params = _read(path)
    return Model(potential, jax.tree.map(jnp.asarray, params))


def _read(path: Path) -> tuple[Potential, Params]:
    if path.is_dir():
        config, leaves = storage.read_model(path)
        try:
            potential = potential_from_config(config)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return potential, storage.fill_params(storage.shapes_of(potential, str(path)), leaves, str(path))
    if path.suffix == ".nqx":
        return load_nqx(path)
    if path.suffix == ".model":
        return load_mace_torch(path)
    if path.suffix == ".pth":
        return load_sevennet(path)
    raise ValueError(
        f"{path} is neither a .nqx file, a .model file of mace-torch, a .pth file of SevenNet, nor a folder saved by "
        "mlipjax"
    )


def save(folder: str | Path, potential: Potential, params: Params) -> None:
    """Save a potential as ``config.json`` and ``params.safetensors``; ``load`` gives back the same bits.

    Args:
        folder: made if need be.
        potential: an architecture of this package.
        params: its parameters.

    Raises:
        ValueError: if a parameter is NaN; nothing is written then.
    """
    storage.write_model(folder, potential_to_config(potential), params)
