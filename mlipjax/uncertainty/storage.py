"""Error bars in the folder of a model: one ``.npz`` file each, arrays and everything else as JSON. No pickle."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.files import write_atomic
from mlipjax.potential import Model
from mlipjax.reading import parse_json, read_npz, shown
from mlipjax.uncertainty.estimators import Ensemble, Rigidity, shallow_ensemble
from mlipjax.uncertainty.last_layer import last_layer_paths

FORMAT = "mlipjax uncertainty 1"
_HEADER = "header"
_MEMBER = "member/"
LIMIT = "largest_force_std"
MEMBERS = 16
"""Members of a shallow ensemble if nothing else is said."""
METHODS = "llpr, shallow, shallow:MEMBERS or committee"


def save_uncertainty(
    folder: str | os.PathLike[str], model: Model, estimator: Rigidity | Ensemble, facts: Mapping[str, Any]
) -> Path:
    """Write error bars beside a model, as ``llpr.npz`` or ``committee.npz``, and return the file.

    Args:
        folder: of the saved model.
        model: that they belong to, by the fingerprint of its parameters and its first head.
        estimator: calibrated.
        facts: how they came about, JSON types.
    """
    if isinstance(estimator, Rigidity):
        name, arrays = "llpr", {field: getattr(estimator, field) for field in ("basis", "eigenvalues", "ridge")}
    else:
        name, arrays = "committee", {_MEMBER + path: leaf for path, leaf in estimator.members.items()}
        arrays["e0s"] = estimator.e0s
    header = {
        "format": FORMAT,
        "model": tree.params_fingerprint(model.params),
        "head": model.potential.heads[0],
        "paths": list(getattr(estimator, "paths", ())),
        "facts": dict(facts),
    }
    found = {name: np.asarray(array) for name, array in {**arrays, "scale": estimator.scale}.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **found, **{_HEADER: np.asarray(json.dumps(header))})  # pyright: ignore[reportArgumentType]
    path = Path(folder) / f"{name}.npz"
    write_atomic(path, buffer.getvalue())
    return path


def load_uncertainty(folder: str | os.PathLike[str], model: Model, method: str = "llpr") -> Rigidity | Ensemble:
    """Read the error bars of a saved model.

    Args:
        folder: of the model; ``mlipjax.calibrate`` writes them there.
        model: that is loaded from it, its head first.
        method: "llpr" (exact), "shallow" or "shallow:MEMBERS" (draws from the same posterior) or "committee".

    Raises:
        FileNotFoundError: if there are none of this kind.
        ValueError: for an unknown method, a damaged file, or error bars of another model or head.
    """
    word, _, number = method.partition(":")
    members = int(number) if number.isdecimal() else MEMBERS
    if word not in ("llpr", "shallow", "committee") or (number and (word != "shallow" or not number.isdecimal())):
        raise ValueError(f"found uncertainty {method!r}; choose {METHODS}.")
    path = Path(folder) / f"{'committee' if word == 'committee' else 'llpr'}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: the model has no error bars of this kind; calibrate them first.")
    try:
        header, arrays = _read(path)
        estimator = _restored(header, arrays, model)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        text = " ".join(str(error).removeprefix(f"{path}").strip(" :.").split())
        raise ValueError(f"{path}: no error bars saved by mlipjax, or damaged ({text}).") from error
    if (found := tree.params_fingerprint(model.params)) != header["model"]:
        raise ValueError(f"{path} belongs to another model ({header['model']}, this one is {found}); calibrate anew.")
    if header["head"] != (name := model.potential.heads[0]):
        raise ValueError(f"{path} belongs to the head {shown(header['head'])}, {name!r} was chosen; calibrate anew.")
    if word != "shallow":
        return estimator
    assert isinstance(estimator, Rigidity)
    return shallow_ensemble(estimator, model.params, jax.random.key(0), members, len(model.potential.species))


def force_limit(folder: str | os.PathLike[str], method: str) -> float | None:
    """Largest standard deviation of an atom's force (eV/Å) on the structures that error bars were calibrated on.

    ``None`` of those of earlier versions, which do not say. Arguments as ``load_uncertainty``, which has checked them.
    """
    path = Path(folder) / f"{'committee' if method == 'committee' else 'llpr'}.npz"
    value = _read(path)[0]["facts"].get(LIMIT)
    return float(value) if isinstance(value, float) and np.isfinite(value) else None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = read_npz(path, "error bars")
    header = parse_json(str(arrays.pop(_HEADER)), _HEADER)
    if header["format"] != FORMAT:
        raise ValueError(f"expected {FORMAT!r}")
    return header, arrays


def _restored(header: dict[str, Any], arrays: dict[str, np.ndarray], model: Model) -> Rigidity | Ensemble:
    """The estimator in a file, if its arrays fit the model."""
    flat, scale = tree.flatten_paths(model.params), arrays.pop("scale")
    for name, array in {**arrays, "scale": scale}.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} is {array.dtype}, or holds values that are not finite")
    if scale.shape != (2,) or (scale < 0.0).any():
        raise ValueError(f"scales {shown(scale.tolist())}")
    if "basis" in arrays:
        paths = tuple(header["paths"])
        expected = last_layer_paths(model.params, header["head"])
        n = sum(int(np.size(flat[path])) for path in expected)
        shapes = {name: array.shape for name, array in arrays.items()}
        if paths != expected or shapes != {"basis": (n, n), "eigenvalues": (n,), "ridge": ()}:
            raise ValueError(f"a last layer of {shown(list(paths))} with arrays {shown(shapes)}")
        if arrays["eigenvalues"].min() < 0.0 or not arrays["ridge"] > 0.0:
            raise ValueError("variances that are not positive")
        return Rigidity(**arrays, scale=scale, paths=paths)  # pyright: ignore[reportArgumentType]
    e0s = arrays.pop("e0s")
    members = {name.removeprefix(_MEMBER): array for name, array in arrays.items()}
    count = len(e0s)
    shapes = {path: (count, *np.shape(leaf)) for path, leaf in flat.items()}
    if count < 2 or e0s.shape[1:] != (len(model.potential.species),):
        raise ValueError(f"{count} members with isolated-atom energies {shown(e0s.shape)}")
    if {path: array.shape for path, array in members.items()} != shapes:
        raise ValueError("members with other parameters than the model")
    return Ensemble(members, e0s, scale)  # pyright: ignore[reportArgumentType]
