"""Error bars of a model, calibrated on structures that it was not trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from mlipjax.data import Dataset
from mlipjax.defaults import Precision
from mlipjax.models import save
from mlipjax.models.storage import is_model_folder
from mlipjax.notices import notice
from mlipjax.train.evaluate import predict_dataset
from mlipjax.uncertainty import (
    Computed,
    Errors,
    Rigidity,
    calibrated,
    committee,
    fit_rigidity,
    largest_std,
    save_uncertainty,
    spreads_of,
)
from mlipjax.uncertainty.storage import LIMIT
from mlipjax.verbs.error_bars import errors_of
from mlipjax.verbs.inputs import ModelLike, NativeModel, Structures, in_dtype, is_nothing, open_native
from mlipjax.verbs.read import LabelNames, read, read_structures

_OFFSET = 3.0
MOST_HELD_OUT = 200
"""Structures that are used at most: each costs one backward pass per feature of the last layer."""


def calibrate(
    model: ModelLike,
    train: Structures = (),
    *,
    valid: Structures,
    members: Sequence[ModelLike] = (),
    moves: int = 4,
    seed: int = 0,
    head: str | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    batch_size: int = 8,
    max_slots: int | None = None,
    out: str | os.PathLike[str] | None = None,
    **labels: Unpack[LabelNames],
) -> dict[str, Any]:
    """Give a model error bars, and save them in its folder.

    From the posterior of the last layer (``uncertainty.Rigidity``), or from the disagreement of other models with it.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        train: structures that it was trained on, for the posterior; their labels are not looked at.
        valid: labelled structures that it was not trained on, best of several trajectories: each counts once.
        members: other models instead, fine-tuned like this one from other seeds: with it they are a committee.
        moves: random moves per training structure that stand for its forces in the posterior; 0 for energies alone.
        seed: of these moves.
        head: name of the energy head; by default the first.
        dtype: precision of the network, "float32" or "float64".
        precision: of the network's products (``mlipjax.precision``): "highest", "high" or "default".
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
        out: folder for the model and its error bars; by default that of the model.
        labels: names and units of the labels in the files of ``valid``, as for ``mlipjax.read``.

    Returns:
        JSON types: ``method``, the ``file``, ``energy_scale`` and ``force_scale`` (alpha), numbers of structures,
        groups, features or members, and ``largest_force_std`` (eV/Å) of an atom of ``valid``: a limit for MD.

    Raises:
        ValueError, FileNotFoundError: if models or data cannot be used, or there is no folder to save in.

    Examples:
        >>> import mlipjax, tempfile
        >>> from ase.build import bulk
        >>> cells = [bulk("MgO", "rocksalt", a=a) for a in (4.1, 4.2, 4.3)]
        >>> labelled = mlipjax.predict("universal", cells)
        >>> mlipjax.calibrate("universal", cells, valid=labelled, out=tempfile.mkdtemp())["method"]
        'llpr'
    """
    if is_nothing(train) == (not members):
        raise ValueError(
            'give either train="FILE" (structures that the model was trained on) or members="DIR" (other models).'
        )
    if moves < 0:
        raise ValueError(f"moves must be 0 or more, found {moves}.")
    folder = _folder(model, out)
    opened = open_native(model, head, precision)
    held_out = read(valid, **labels)
    if len(held_out) > MOST_HELD_OUT:
        held_out = held_out.subset(np.linspace(0, len(held_out) - 1, MOST_HELD_OUT).astype(int))
    how = Computed(dtype=dtype, batch_size=batch_size, max_slots=max_slots)
    own = opened.first
    with in_dtype(dtype):
        found = predict_dataset(own, held_out, dtype=dtype, batch_size=batch_size, max_slots=max_slots)
        errors = errors_of(held_out, found)
        _say_offset(errors, held_out)
        facts: dict[str, Any] = {"n_valid": len(held_out), "n_groups": len(set(errors.groups)), "dtype": dtype}
        if members:
            estimator = _committee(opened, members, held_out.systems, errors, how)
            facts = {"method": "committee", "members": len(members) + 1, **facts}
        else:
            frames = read_structures(train)
            estimator = fit_rigidity(own, frames.systems, held_out.systems, errors, moves=moves, seed=seed, how=how)
            facts = {"method": "llpr", "n_train": len(frames), "moves": moves, **facts, **_posterior(estimator)}
        facts |= {LIMIT: max(map(largest_std, spreads_of(estimator, own, held_out.systems, how=how)))}
    facts |= {"energy_scale": float(estimator.scale[0]), "force_scale": float(estimator.scale[1])}
    if out is not None or not is_model_folder(folder):
        save(folder, opened.potential, opened.params)
    return {**facts, "file": str(save_uncertainty(folder, own, estimator, facts))}


def _folder(model: ModelLike, out: str | os.PathLike[str] | None) -> Path:
    if out is not None:
        return Path(out)
    if isinstance(model, (str, os.PathLike)) and is_model_folder(model):
        return Path(model)
    raise ValueError("error bars are saved in the folder of a model; this one has none: say where to save both (out).")


def _say_offset(errors: Errors, dataset: Dataset) -> None:
    """Say where a constant makes up the errors of energies: error bars cannot tell it from what varies."""
    per_atom = errors.energy / [len(system.atomic_numbers) for system in dataset.systems]
    known = per_atom[np.isfinite(per_atom)]
    if len(known) > 2 and abs(known.mean()) > _OFFSET * known.std():
        notice(
            f"energies of the held-out structures are off by {1e3 * known.mean():.4g} meV/atom on average, and vary by "
            f"{1e3 * known.std():.3g}: the energy zero of the model is not that of the labels, and the error bars of "
            "energies hold this constant. Those of forces do not."
        )


def _committee(
    opened: NativeModel, members: Sequence[Any], systems: Sequence[Any], errors: Errors, how: Computed
) -> Any:
    """The model and others as one ensemble, calibrated."""
    others = [open_native(member, opened.potential.heads[opened.head]) for member in members]
    models = [opened.first, *(other.first for other in others)]
    for name, other in zip([other.name for other in others], models[1:], strict=True):
        if other.potential.replace(precision=opened.potential.precision) != models[0].potential:
            raise ValueError(
                f"{name} is another network than {opened.name}; a committee is of fine-tunes of one model."
            )
    e0s = np.stack([one.potential.e0s[0] for one in models])
    joined = committee(opened.params, [one.params for one in models[1:]], e0s)
    return calibrated(joined, spreads_of(joined, opened.first, systems, how=how), errors)


def _posterior(rigidity: Rigidity) -> dict[str, Any]:
    """Size of a last layer, and how many of its directions training said more of than ``s`` does."""
    eigenvalues = np.asarray(rigidity.eigenvalues)
    share = eigenvalues / (eigenvalues + float(rigidity.ridge))
    return {"n_features": len(eigenvalues), "n_determined": float(share.sum()), "ridge": float(rigidity.ridge)}
