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

import json
import multiprocessing
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from experiments.lab.embedded import pack, unpack
from mlipjax.files import replace_on_success, write_atomic

if TYPE_CHECKING:
    from ase import Atoms

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
    parts = config.out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    settings = config.out / "config.json"
    identity = {"seed": config.seed, "tasks_per_part": TASKS_PER_PART, "families": FAMILIES}
    if settings.exists() and json.loads(settings.read_text()) != json.loads(json.dumps(identity)):
        sys.exit(f"{config.out} holds parts made with other settings; choose another --out or delete the folder")
    write_atomic(settings, json.dumps(identity))
    if not config.pack_only:
        _label_parts(config, parts)
    done = sorted(parts.glob("part_*.npz"))
    if not done:
        sys.exit(f"no part in {parts}: run without --pack-only first")
    summary = pack_parts(done, config.out / NAME, config)
    print(json.dumps(summary, indent=1))


def _label_parts(config: Config, folder: Path) -> None:
    """Run parts in order until enough frames exist; ``workers`` of them are under way at a time."""
    start, total, part = time.perf_counter(), 0, 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, mp_context=context, initializer=_one_thread) as pool:
        while total < config.n:
            batch = range(part, part + config.workers)
            futures = [pool.submit(_run_part, folder, config.seed, p) for p in batch]
            for future in futures:
                total += future.result()
            part += config.workers
            print(f"{part} parts, {total}/{config.n} frames, {time.perf_counter() - start:.0f} s", flush=True)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"


def _run_part(folder: Path, seed: int, part: int) -> int:
    """Label the tasks of one part, unless it exists; returns its number of frames."""
    path = folder / f"part_{part:05d}.npz"
    if path.exists():
        with np.load(path) as stored:
            return len(stored["energy"])
    frames: list[Atoms] = []
    failures: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    for task in range(part * TASKS_PER_PART, (part + 1) * TASKS_PER_PART):
        began = time.process_time()
        family, kept, dropped = run_task(seed, task)
        frames += kept
        failures.update(dropped)
        seconds[family] += time.process_time() - began
    _save(path, {**pack(frames), "failures": json.dumps(failures), "cpu_seconds": json.dumps(seconds)})
    return len(frames)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with replace_on_success(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def run_task(seed: int, task: int) -> tuple[str, list[Atoms], Counter[str]]:
    """Draw a family and its structures from ``(seed, task)``; returns family, labelled frames, and failures."""
    from experiments.pretrain import structures_liquid as liquid
    from experiments.pretrain import structures_molecular as molecular
    from experiments.pretrain import structures_solid as solid
    from experiments.pretrain.sampling import Labeller

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
    from ase import Atoms

    from mlipjax.oracles.xtb import Xtb

    energies = {}
    for z in numbers:
        atoms = Atoms(numbers=[z], positions=[[0.0, 0.0, 0.0]], calculator=Xtb().calculator())
        energies[int(z)] = float(atoms.get_potential_energy())
    return energies


def pack_parts(paths: Sequence[Path], out: Path, config: Config) -> dict[str, Any]:
    """Join parts into one compressed file (written under a temporary name, then renamed); returns a summary."""
    frames: list[Atoms] = []
    failures: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            frames += unpack(dict(file))
            failures.update(json.loads(str(file["failures"])))
            seconds.update(json.loads(str(file["cpu_seconds"])))
    arrays = pack(frames)
    e0s = isolated_atoms(np.unique(arrays["numbers"]).tolist())
    summary = _summary(frames, arrays, failures, seconds, config)
    e0_arrays = {"e0_numbers": np.array(list(e0s)), "e0_energies": np.array(list(e0s.values()))}
    _save(out, {**arrays, **e0_arrays, "provenance": json.dumps(summary)})
    return {**summary, "bytes": out.stat().st_size}


def _summary(frames, arrays, failures, seconds, config: Config) -> dict[str, Any]:
    from importlib.metadata import version

    from ase.data import chemical_symbols

    per_element = Counter(z for a in frames for z in set(a.numbers.tolist()))
    return {
        "method": "GFN1-xTB, Gamma point, 1000 K electronic temperature",
        "command": f"python -m experiments.pretrain.data --n {config.n} --seed {config.seed}",
        "versions": {name: version(name) for name in ("tblite", "ase")},
        "config": {k: str(v) for k, v in asdict(config).items() if k in ("n", "seed")},
        "frames": len(frames),
        "atoms": len(arrays["numbers"]),
        "groups": len(arrays["group_names"]),
        "frames_per_family": dict(Counter(a.info["family"] for a in frames)),
        "frames_per_element": {chemical_symbols[z]: n for z, n in sorted(per_element.items())},
        "dropped": dict(failures),
        "cpu_seconds_per_family": {k: round(v) for k, v in seconds.items()},
    }


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
