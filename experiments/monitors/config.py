"""Quality of the monitor's charts: false alarms, detection, lead time, and what they cost inside MD.

    python -m experiments.monitors                                   # embedded model, GFN1-xTB: about 40 minutes
    python -m experiments.monitors --oracle teacher:nequix-mp-1 --structure liquid.extxyz

1. Equilibrium MD of a model: charts are fitted to some runs and calibrated on others; the false-alarm rate is that of
   held-out runs, for the conformal limits and for parametric ones.
2. Departures: trajectories that are heated or compressed step by step. Every frame is labelled; a frame is bad if its
   force error (RMSE over its components) exceeds twice that of the reference frames. For every index: the area under
   the ROC curve (held-out and departing frames together), and how long before the first bad frame it raises the alarm.
3. The time that reading the charts adds to MD.

``results.json`` in ``--out`` has all numbers; the same command again resumes trajectories and labels.

Expected (``expected.json``) of preset standard:

    false alarms, combined: 0.83 ± 1 % (n = 76, 1 seed)
    false alarms, q: 0.5 ± 1 % (n = 142, 1 seed)
    AUROC, combined: 0.98 ± 0.04 (n = 132, 1 seed)
    time of the charts in MD: 1.5 ± 1 % (n = 3, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.lab.paths import ELECTROLYTE
from mlipjax import monitoring


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure the monitoring.

    Attributes:
        model: whose features are charted and who drives MD.
        oracle: true forces: xtb, teacher:MODEL or ase:module:factory.
        structure: start of all trajectories; by default the embedded LiCl solution.
        reference_runs, held_out_runs: equilibrium trajectories for the charts, and to judge them by.
        steps: MD steps of each; the first seventh is dropped.
        every: steps between frames.
        departures: trajectories that are heated, and as many that are compressed.
        stages: steps in which a departure is heated or compressed.
        temperature: K.
        timestep: fs.
        level: nominal probability of a false alarm.
        components: principal components per element.
        layers: which features are charted.
        descriptor: "soap" adds the reference this follows: SOAP of all elements pooled, five components, Q, and the
            paper's band of two standard deviations (needs the extra "soap").
        labelled: frames of the reference, and of the held-out runs, that are labelled.
        timing_steps: MD steps of the timing, of each kind and turn; 0 for no timing.
        workers: processes that label.
        seed: of velocities and noise.
        out: folder of the run.
    """

    model: str = "universal"
    oracle: str = "xtb"
    structure: Path = ELECTROLYTE
    reference_runs: int = 6
    held_out_runs: int = 4
    steps: int = 14_000
    every: int = 40
    departures: int = 2
    stages: int = 14
    temperature: float = 300.0
    timestep: float = 0.5
    level: float = 0.01
    components: int = monitoring.COMPONENTS
    layers: monitoring.Layers = "last"
    descriptor: Literal["model", "soap"] = "model"
    labelled: int = 30
    timing_steps: int = 1000
    workers: int = 1
    seed: int = 0
    out: Path = Path("runs/monitors")


PRESETS = {"standard": Config()}
