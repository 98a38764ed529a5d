"""A fitted monitor as one ``.npz`` file: arrays, and everything else as JSON. No pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mlipjax import tree
from mlipjax.files import write_atomic
from mlipjax.monitor.charts import MonitorState
from mlipjax.monitor.fit import Monitor
from mlipjax.monitor.limits import Conformal
from mlipjax.typing import Params

FORMAT = "mlipjax monitor 1"
_HEADER = "header"


def params_fingerprint(params: Params) -> str:
    """Hash of a model's parameters, the same in float32 and float64 if they hold the same numbers."""
    digest = hashlib.sha256()
    for path, leaf in sorted(tree.flatten_paths(params).items()):
        array = np.ascontiguousarray(np.asarray(leaf), dtype=np.float64)
        digest.update(f"{path} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def save_monitor(path: str | os.PathLike[str], monitor: Monitor) -> None:
    """Write a monitor; ``load_monitor`` gives back the same bits.

    Raises:
        ValueError: if the file is not called ``.npz``.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: a monitor is saved as .npz")
    header = {
        "format": FORMAT,
        **{name: getattr(monitor, name) for name in ("layers", "level", "n_fit", "n_calibration", "model")},
        "species": list(monitor.species),
        "frame_calibration": {name: found._asdict() for name, found in monitor.frame_calibration.items()},
    }
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in _fields(monitor.charts).items()}
    arrays[_HEADER] = np.asarray(json.dumps(header))
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def load_monitor(path: str | os.PathLike[str], params: Params | None = None) -> Monitor:
    """Read a monitor.

    Args:
        path: file that ``save_monitor`` wrote.
        params: if given, those of the model to watch: they must be the ones whose features were charted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no monitor, is damaged, or belongs to another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop(_HEADER)))
        if header.pop("format") != FORMAT:
            raise ValueError(f"expected {FORMAT!r}")
        charts = MonitorState(**arrays)  # pyright: ignore[reportArgumentType]
        calibration = {name: Conformal(**found) for name, found in header.pop("frame_calibration").items()}
        monitor = Monitor(charts, tuple(header.pop("species")), frame_calibration=calibration, **header)
    except (OSError, KeyError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(f"{path}: not a monitor saved by mlipjax, or damaged ({error}).") from error
    if params is not None and (found := params_fingerprint(params)) != monitor.model:
        raise ValueError(
            f"{path} was fitted to the features of another model ({monitor.model}, this one is {found}); "
            "fit it anew with --reference on frames."
        )
    return monitor


def _fields(charts: MonitorState) -> dict[str, Any]:
    return {field.name: getattr(charts, field.name) for field in dataclasses.fields(charts)}  # pyright: ignore[reportArgumentType]
