"""Options of ``mlipjax monitor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from mlipjax.cli.options.common import Computes
from mlipjax.defaults import COMPONENTS


@dataclasses.dataclass(frozen=True)
class MonitorCommand(Computes):
    """Fit control charts to reference frames, and say which frames of other data are out of control.

    Frames of a file that carry "run" (as those of mlipjax md) or another group are taken as trajectories.

    Attributes:
        model: name, .nqx file or saved folder.
        reference: frames the model can be trusted on, best several runs of equilibrium MD; or a monitor.npz that this
            command saved.
        data: frames to judge.
        level: probability of a false alarm, 0.01 for one frame in a hundred.
        components: principal components per element.
        layers: features of the last layer, which the energy is read from, or of all layers.
        calibration: "split": charts from the first half of the reference runs, limits from the second, with the
            level guaranteed; "cross": every run is judged by charts of the others, which scatters less where there
            are few runs, for a weaker guarantee (twice the level).
        index: the number of a frame that decides.
        dtype: precision of the network.
        batch_size: structures computed together.
        out: also save the fitted monitor and a figure in this folder.
    """

    model: str
    reference: tuple[Path, ...]
    data: tuple[Path, ...]
    level: float = 0.01
    components: int = COMPONENTS
    layers: Literal["last", "all"] = "last"
    calibration: Literal["split", "cross"] = "split"
    index: Literal["q", "t2", "combined", "worst"] = "combined"
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 16
    out: Path | None = None
