"""Speed of the potential, of training and of MD, as ratios measured side by side in one run.

    python -m experiments.benchmark                                            # this code alone
    python -m experiments.benchmark --peer-python PATH/bin/python              # against upstream nequix
    python -m experiments.benchmark --structures --replicas --mace-python PATH/bin/python --mlip-python PATH/bin/python
                                                                               # MACE against mace-torch and mlip
    python -m experiments.benchmark --structures --replicas --sizes 5 9 14     # 1 000 to 21 952 atoms

Every measurement is a process of its own, pinned to one core, float32, Eigen single-threaded. This code and the peer
take turns, and medians over all turns are compared; CPU time is given beside wall time, because a busy machine spoils
the latter first. Compilation is apart (``first_s``). Energy, forces and stress are timed through each side's ASE
calculator, neighbour list included. "default malloc" lets glibc return memory to the system after every call, as it
does unless told otherwise; the entry points of this project tell it otherwise (``runtime.setup_allocator``).

Expected (``expected.json``) of preset standard:

    CPU time, embedded model, 47 atoms: MD step, R = 1: 1.09 ± 0.15 (n = 1, 1 seed)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Config:
    """Measure.

    Attributes:
        model: weights for the comparison; must be a .nqx file or a registry name of one for a peer to read.
        peer_python: interpreter of an environment with nequix; without it only this code is measured.
        mace_python, mlip_python: interpreters of environments with mace-torch (needed to measure MACE: it makes the
            random weights, 128 scalar channels, 5 Å) and with InstaDeep's mlip.
        mace_structures: which systems for MACE.
        structures: which systems: si64, liquid (197 atoms); none skips nequix.
        batch: structures of a training step.
        rounds: evaluations per turn; training steps take a third of them.
        turns: turns of each side.
        replicas: numbers of replicas in MD with the embedded model; none skips MD.
        sizes: how often a cell of 8 atoms (NaCl) is repeated along each vector, for calls of the embedded model at many
            sizes; none skips them.
        memory_GB: limit of a process's address space; a peer that needs more is reported as such.
        core: number of the core to run on; by default the first one allowed.
        out: folder of the run.
    """

    model: str = "nequix-mp-1"
    peer_python: Path | None = None
    mace_python: Path | None = None
    mlip_python: Path | None = None
    mace_structures: tuple[Literal["si64", "cu108"], ...] = ("si64", "cu108")
    structures: tuple[Literal["si64", "liquid"], ...] = ("si64", "liquid")
    batch: int = 8
    rounds: int = 5
    turns: int = 2
    replicas: tuple[int, ...] = (1, 4, 16)
    sizes: tuple[int, ...] = ()
    memory_GB: float = 16.0
    core: int | None = None
    out: Path = Path("runs/benchmark")


PRESETS = {"standard": Config()}
