"""A folder of numbered parts of a data set: made one after the other, gone on with after a kill, packed into one file.

A part depends on its number and the seed only. A finished one is renamed into place.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from experiments.lab.embedded import pack, unpack
from mlipjax.files import replace_on_success, write_atomic


class Part(NamedTuple):
    """What was labelled.

    Attributes:
        frames: with their labels as calculators, and family, group and config_type.
        dropped: reasons and how often.
        seconds: of processor time, by family.
    """

    frames: list[Atoms]
    dropped: Counter[str]
    seconds: Counter[str]


def claim(folder: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder of the parts, made for one identity; exits where there are parts of another."""
    parts = folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    settings = folder / "config.json"
    if settings.exists() and json.loads(settings.read_text()) != json.loads(json.dumps(identity)):
        sys.exit(f"{folder} holds parts made with other settings; choose another --out or delete the folder")
    write_atomic(settings, json.dumps(identity))
    return parts


def make_parts(folder: Path, n: int, workers: int, make: Callable[[int], Part]) -> None:
    """Make parts in order until they hold ``n`` frames; ``workers`` of them are under way at a time."""
    start, total, part = time.perf_counter(), 0, 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        while total < n:
            batch = range(part, part + workers)
            futures = [pool.submit(_make, folder, p, make) for p in batch]
            for future in futures:
                total += future.result()
            part += workers
            print(f"{part} parts, {total}/{n} frames, {time.perf_counter() - start:.0f} s", flush=True)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["PJRT_NPROC"] = "1"


def _make(folder: Path, number: int, make: Callable[[int], Part]) -> int:
    """Make one part, unless it exists; returns its number of frames."""
    path = folder / f"part_{number:05d}.npz"
    if path.exists():
        with np.load(path) as stored:
            return len(stored["energy"])
    part = make(number)
    save(path, {**pack(part.frames), "failures": json.dumps(part.dropped), "cpu_seconds": json.dumps(part.seconds)})
    return len(part.frames)


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays under a temporary name, then rename."""
    with replace_on_success(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def join(folder: Path) -> Part:
    """All parts of a folder in one; exits where there is none."""
    joined = Part([], Counter(), Counter())
    paths = sorted(folder.glob("part_*.npz"))
    if not paths:
        sys.exit(f"no part in {folder}: run without --pack-only first")
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            joined.frames.extend(unpack(dict(file)))
            joined.dropped.update(json.loads(str(file["failures"])))
            joined.seconds.update(json.loads(str(file["cpu_seconds"])))
    return joined


def pack_joined(out: Path, joined: Part, provenance: Mapping[str, Any], **more: np.ndarray) -> dict[str, Any]:
    """Write all parts as one file; returns what it says of itself.

    Args:
        out: file.
        joined: what goes into it.
        provenance: how it was made.
        **more: other arrays.
    """
    arrays = pack(joined.frames)
    per_element = Counter(z for atoms in joined.frames for z in set(atoms.numbers.tolist()))
    summary = {
        **provenance,
        "frames": len(joined.frames),
        "atoms": len(arrays["numbers"]),
        "groups": len(arrays["group_names"]),
        "frames_per_family": dict(Counter(atoms.info["family"] for atoms in joined.frames)),
        "frames_per_element": {chemical_symbols[z]: n for z, n in sorted(per_element.items())},
        "dropped": dict(joined.dropped),
        "cpu_seconds_per_family": {k: round(v) for k, v in joined.seconds.items()},
    }
    save(out, {**arrays, **more, "provenance": json.dumps(summary)})
    return {**summary, "bytes": out.stat().st_size}
