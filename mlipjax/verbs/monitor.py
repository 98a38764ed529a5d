"""Judgement by charts of a model's own features: does it know structures like these?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mlipjax.data import runs_of
from mlipjax.defaults import COMPONENTS
from mlipjax.elements import listed
from mlipjax.locks import folder_alone
from mlipjax.monitoring import (
    FRAME_INDICES,
    Monitor,
    cross_fit_monitor,
    fit_monitor,
    frame_features,
    load_monitor,
    params_fingerprint,
    read_frames,
)
from mlipjax.monitoring.features import Layers
from mlipjax.verbs.inputs import ModelLike, Structures, in_dtype, name_of, open_for_features, paths_in
from mlipjax.verbs.monitored import Monitored
from mlipjax.verbs.read import read_structures


def monitor(
    model: ModelLike,
    data: Structures,
    *,
    reference: Structures | Monitor,
    level: float = 0.01,
    components: int = COMPONENTS,
    layers: Layers = "last",
    calibration: str = "split",
    index: str = "combined",
    dtype: str = "float32",
    batch_size: int = 16,
    out: str | os.PathLike[str] | None = None,
) -> Monitored:
    """Fit control charts to reference frames, and say which frames of other data are out of control.

    Frames that carry "run" (as those of a simulation) or another group in their information are taken as trajectories.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        data: frames to judge: ``Atoms``, a list of them, a data set, or files.
        reference: frames the model can be trusted on, best several runs of equilibrium MD, likewise; or charts that
            are fitted already: a monitor, or its file monitor.npz.
        level: probability of a false alarm, 0.01 for one frame in a hundred.
        components: principal components per element.
        layers: features of the "last" layer, which the energy is read from, or of "all" layers.
        calibration: "split": charts from the first half of the reference runs, limits from the second, with the level
            guaranteed; "cross": every run is judged by charts of the others, which scatters less where there are few
            runs, for a weaker guarantee (twice the level).
        index: the number of a frame that decides: "q", "t2", "combined" or "worst".
        dtype: precision of the network, "float32" or "float64".
        batch_size: structures computed together.
        out: also save the fitted monitor and a figure in this folder.

    Returns:
        The verdict, the readings, and the charts as ``monitor``, which ``mlipjax.simulate`` takes.

    Raises:
        ValueError, FileNotFoundError: if model, reference or data cannot be used.
        InUseError: if another process works in the folder to write.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> water = [molecule("H2O") for _ in range(60)]
        >>> for number, atoms in enumerate(water):
        ...     atoms.rattle(0.05 if number < 58 else 0.5, seed=number)
        >>> found = mlipjax.monitor("universal", water[50:], reference=water[:50], level=0.05, components=1)
        >>> found.in_control, found.verdict.worst >= 8
        (False, True)
    """
    if index not in FRAME_INDICES:
        raise ValueError(f"found index={index!r}; choose one of {', '.join(FRAME_INDICES)}.")
    if calibration not in ("split", "cross"):
        raise ValueError(f'calibration must be "split" or "cross", found {calibration!r}.')
    with folder_alone(None if out is None else Path(out)), in_dtype(dtype):
        dataset = read_structures(data)
        opened = open_for_features(model)
        dataset.check_elements(opened.potential.check_elements)
        options: Any = {"dtype": dtype, "batch_size": batch_size}
        charts = _charts(reference, opened.params)
        if charts is None:
            home = read_structures(reference)  # pyright: ignore[reportArgumentType]
            if missing := sorted(set(dataset.elements) - set(home.elements)):
                names = listed(missing)
                raise ValueError(f"{name_of(data)} holds {names}, which no frame of {name_of(reference)} holds.")
            home.check_elements(opened.potential.check_elements)
            fit = cross_fit_monitor if calibration == "cross" else fit_monitor
            charts = fit(
                frame_features(opened, home.systems, layers=layers, **options),
                runs_of(home),
                level=level,
                n_components=components,
                layers=layers,
                model=params_fingerprint(opened.params),
            )
        charts.check_elements(dataset.elements)
        features = frame_features(opened, dataset.systems, layers=charts.layers, **options)
        found = Monitored.judged(charts, read_frames(charts, features), index, dataset)
        if out is not None:
            found.save(out)
    return found


def _charts(reference: Any, params: Any) -> Monitor | None:
    """Charts that are fitted already; ``None`` for frames to fit them to."""
    if isinstance(reference, Monitor):
        return reference
    files = paths_in(reference)
    if len(files) == 1 and Path(files[0]).suffix == ".npz":
        return load_monitor(files[0], params)
    return None
