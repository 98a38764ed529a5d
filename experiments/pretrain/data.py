"""Make the training set of the embedded universal model: diverse structures labelled with GFN1-xTB.

    python -m experiments.pretrain.data --out runs/pretrain_data --n 6000

A task is one starting structure and all that is derived from it: a few rattled, strained, relaxed or heated
frames, which share a ``group``, so that a split by group never puts relatives on both sides. Task ``t`` depends
on ``(seed, t)`` only, whatever the number of workers. Tasks are done in numbered parts; every finished part is
renamed into place, and the same command run again continues after the last one. ``universal_xtb.npz`` in the
output folder is rewritten from the parts at the end (and, with ``--pack-only``, at any time).

Frames are dropped, and counted by reason, when the self-consistent cycle does not converge or a force exceeds
50 eV/Å. Positions, cells and forces are stored in single precision: rounding moves an atom by less than 1e-6 Å.
"""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from ase import Atoms

from experiments.pretrain import structures_liquid as liquid
from experiments.pretrain import structures_molecular as molecular
from experiments.pretrain import structures_solid as solid
from experiments.pretrain.parts import Part, claim, join, make_parts, pack_joined
from experiments.pretrain.sampling import Labeller
from mlipjax.oracles.xtb import Xtb

TASKS_PER_PART = 24
NAME = "universal_xtb.npz"

# family of structures -> (share of all frames, frames one task yields on average)
FAMILIES = {
    "molecules": (0.17, 8.5), "dimers": (0.09, 4), "contacts": (0.10, 3), "droplets": (0.14, 6),
    "electrolytes": (0.22, 7.5), "organics": (0.07, 5.5), "melts": (0.02, 3), "crystals": (0.035, 3),
    "metals": (0.008, 2), "clusters": (0.07, 5), "surfaces": (0.022, 2.7), "packings": (0.055, 2.4),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Make (or continue) the GFN1-xTB training set."""

    out: Path = Path("runs/pretrain_data")
    """Folder for parts and the packed data set."""
    n: int = 6000
    """Number of labelled frames to reach (the part that reaches it is completed)."""
    seed: int = 0
    """Seed of every structure."""
    workers: int = 1
    """Worker processes, each with one thread. The result does not depend on it."""
    pack_only: bool = field(default=False)
    """Only pack the parts that exist."""


def main(config: Config) -> None:
    """Label until ``n`` frames exist, then pack."""
    identity = {"seed": config.seed, "tasks_per_part": TASKS_PER_PART, "families": FAMILIES}
    folder = claim(config.out, identity)
    if not config.pack_only:
        make_parts(folder, config.n, config.workers, functools.partial(make_part, config.seed))
    joined = join(folder)
    e0s = isolated_atoms(sorted({z for atoms in joined.frames for z in atoms.numbers.tolist()}))
    e0_arrays = {"e0_numbers": np.array(list(e0s)), "e0_energies": np.array(list(e0s.values()))}
    summary = pack_joined(config.out / NAME, joined, _provenance(config), **e0_arrays)
    print(json.dumps(summary, indent=1))


def make_part(seed: int, number: int) -> Part:
    """Label the tasks of one part."""
    part = Part([], Counter(), Counter())
    for task in range(number * TASKS_PER_PART, (number + 1) * TASKS_PER_PART):
        began = time.process_time()
        family, kept, dropped = run_task(seed, task)
        part.frames.extend(kept)
        part.dropped.update(dropped)
        part.seconds[family] += time.process_time() - began  # pyright: ignore[reportArgumentType]
    return part


def run_task(seed: int, task: int) -> tuple[str, list[Atoms], Counter[str]]:
    """Draw a family and its structures from ``(seed, task)``; returns family, labelled frames, and failures."""
    rng = np.random.default_rng([seed, task])
    weights = np.array([share / frames for share, frames in FAMILIES.values()])
    family = str(rng.choice(list(FAMILIES), p=weights / weights.sum()))
    make = next(getattr(module, family) for module in (liquid, molecular, solid) if hasattr(module, family))
    lab = Labeller(rng, family, f"{family}-{task}")
    try:
        make(lab)
    except Exception as error:  # a draft that cannot be made costs its task, not the run
        lab.failures[f"no structure: {type(error).__name__}"] += 1
    return family, lab.frames, Counter({f"{family}: {k}": v for k, v in lab.failures.items()})


def isolated_atoms(numbers: Sequence[int]) -> dict[int, float]:
    """Compute energies of isolated neutral atoms in eV."""
    energies = {}
    for z in numbers:
        atoms = Atoms(numbers=[z], positions=[[0.0, 0.0, 0.0]], calculator=Xtb().calculator())
        energies[int(z)] = float(atoms.get_potential_energy())
    return energies


def _provenance(config: Config) -> dict[str, Any]:
    return {
        "method": "GFN1-xTB, Gamma point, 1000 K electronic temperature",
        "command": f"python -m experiments.pretrain.data --n {config.n} --seed {config.seed}",
        "versions": {name: version(name) for name in ("tblite", "ase")},
        "config": {k: str(v) for k, v in asdict(config).items() if k in ("n", "seed")},
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
