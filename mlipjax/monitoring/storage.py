"""A fitted monitor as one ``.npz`` file: arrays, and everything else as JSON. No pickle."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.files import write_atomic
from mlipjax.monitoring.charts import FRAME_INDICES, MonitorState
from mlipjax.monitoring.fit import Monitor
from mlipjax.monitoring.limits import Conformal
from mlipjax.reading import parse_json, read_npz, shown
from mlipjax.tree import params_fingerprint
from mlipjax.typing import Params

FORMAT = "mlipjax monitor 1"
_HEADER = "header"
_MAX_CHART = 1e12
"""Largest absolute value in a chart: Q, its square, is still a float32."""
_RANGES = {
    "count": (0.0, _MAX_CHART),
    "eigenvalues": (0.0, _MAX_CHART),
    "residual": (0.0, _MAX_CHART**3),
    # indices are divided by them; one that was never set is infinite
    **dict.fromkeys(("q_limit", "t2_limit", "frame_limits"), (float(np.finfo(np.float32).tiny), np.inf)),
}


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
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(monitor.charts).items()}
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
    try:
        arrays = read_npz(path, "a monitor")
        header = parse_json(str(arrays.pop(_HEADER)), _HEADER)
        if header.pop("format") != FORMAT:
            raise ValueError(f"expected {FORMAT!r}")
        charts = MonitorState(**arrays)  # pyright: ignore[reportArgumentType]
        calibration = {name: Conformal(**found) for name, found in header.pop("frame_calibration").items()}
        monitor = Monitor(charts, tuple(header.pop("species")), frame_calibration=calibration, **header)
        _check(monitor)
    except FileNotFoundError:
        raise
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        text = " ".join(str(error).removeprefix(f"{path}").strip(" :.").split())
        raise ValueError(f"{path}: not a monitor saved by mlipjax, or damaged ({text}).") from error
    if params is not None and (found := params_fingerprint(params)) != monitor.model:
        raise ValueError(
            f"{path} was fitted to the features of another model ({monitor.model}, this one is {found}); "
            "fit it anew on frames (reference)."
        )
    return monitor


def _check(monitor: Monitor) -> None:
    """Refuse charts whose arrays do not fit together, or hold what no fit gives.

    Raises:
        ValueError: naming the first thing that is wrong.
    """
    charts, species = monitor.charts, monitor.species
    n, n_components, n_features = charts.components.shape if charts.components.ndim == 3 else (len(species), -1, -1)
    shapes = {
        "mean": (n, n_features),
        "components": (n, n_components, n_features),
        "eigenvalues": (n, n_components),
        "residual": (n, 3),
        "frame_limits": (len(FRAME_INDICES),),
        **{name: (n,) for name in ("count", "q_limit", "t2_limit")},
    }
    for name, shape in shapes.items():
        array = getattr(charts, name)
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, expected numbers {list(shape)}")
        low, high = _RANGES.get(name, (-_MAX_CHART, _MAX_CHART))
        if not ((array >= low) & (array <= high)).all():  # NaN is in no interval
            raise ValueError(f"{name} has values outside [{low:g}, {high:g}]")
    whole = all(type(z) is int and 1 <= z <= 118 for z in species)
    if len(species) != n or not whole or list(species) != sorted(set(species)):
        raise ValueError(f"elements {shown(species)} for {n} charts")
    if monitor.layers not in ("last", "all") or set(monitor.frame_calibration) != set(FRAME_INDICES):
        raise ValueError(f"layers {shown(monitor.layers)}, calibration of {shown(sorted(monitor.frame_calibration))}")
    numbers = [monitor.level, monitor.n_fit, monitor.n_calibration]
    numbers += [value for found in monitor.frame_calibration.values() for value in found]
    if not isinstance(monitor.model, str) or not all(type(value) in (int, float) for value in numbers):
        raise ValueError("a word where a number is expected")
    if not 0.0 < monitor.level < 1.0 or np.isnan(numbers).any():
        raise ValueError(f"a level of {monitor.level}, or a limit that is not a number")
