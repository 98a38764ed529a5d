"""Make the training set of the embedded model ``universal-pbe``: structures of 89 elements labelled by a teacher.

    python -m experiments.pretrain.distil --teacher nequix-oam-1-pft --out runs/universal_data --n 20000

The teacher, Nequix OAM-1-PFT (Koker et al., arXiv 2508.16067; weights CC-BY-4.0), has PBE labels of OMat24, sAlex and
MPtrj behind it. Tasks, groups, parts and what goes on after a kill are as in ``experiments.pretrain.data``; all tasks
of a part take their steps together, so that the teacher is asked for whole batches of four fixed shapes.

A task ends, and the reason is counted, where a force exceeds 30 eV/Å or an atom has more neighbours than the largest
shape has room for. Dimers have labels below the teacher's reach (``structures_pairs.dimers``).
"""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from experiments.pretrain.parts import Part, claim, join, make_parts, pack_joined
from experiments.pretrain.sampling import bare
from experiments.pretrain.structures_elements import FAMILIES, Family
from mlipjax import runtime
from mlipjax.graph import NeighborTable, batch_graphs, neighbor_table
from mlipjax.models import load
from mlipjax.potential import Model, apply
from mlipjax.probes.evaluator import Evaluation, unpacked
from mlipjax.system import System

TASKS_PER_PART = 64
NAME = "universal_pbe.npz"
MOST_FORCE = 30.0  # eV/Å
SHAPES = ((160, 48), (96, 80), (64, 128), (48, 224))
"""Atoms and neighbours of a batch."""
GRAPHS = 48


@dataclass(frozen=True)
class Config:
    """Make (or continue) a training set labelled by a teacher."""

    teacher: str = "nequix-oam-1-pft"
    """Model that labels, by name or file."""
    out: Path = Path("runs/universal_data")
    """Folder for parts and the packed data set."""
    n: int = 20000
    """Number of labelled frames to reach (the part that reaches it is completed)."""
    seed: int = 0
    """Seed of every structure."""
    pack_only: bool = field(default=False)
    """Only pack the parts that exist."""


def main(config: Config) -> None:
    """Label until ``n`` frames exist, then pack."""
    teacher = Path(config.teacher).stem
    shares = {name: share for name, (_, share) in FAMILIES.items()}
    identity = {"teacher": teacher, "seed": config.seed, "tasks_per_part": TASKS_PER_PART, "families": shares}
    folder = claim(config.out, identity)
    if not config.pack_only:
        make_parts(folder, config.n, 1, functools.partial(make_part, config.teacher, config.seed))
    provenance = {
        "method": f"{teacher} (CC-BY-4.0, Koker et al., arXiv 2508.16067), float32; dimers below its reach: ZBL",
        "command": f"python -m experiments.pretrain.distil --n {config.n} --seed {config.seed}",
    }
    print(json.dumps(pack_joined(config.out / NAME, join(folder), provenance), indent=1))


@functools.cache
def _ask(teacher: str) -> Asked:
    runtime.prepare_process()
    return Asked(load(teacher))


def make_part(teacher: str, seed: int, number: int) -> Part:
    """Take all tasks of one part to their ends, a step of each at a time."""
    tasks = [Task(seed, task) for task in range(number * TASKS_PER_PART, (number + 1) * TASKS_PER_PART)]
    ask = _ask(teacher)
    began = time.process_time()
    while asking := [task for task in tasks if task.wanted is not None]:
        for task, found in zip(asking, ask([task.wanted for task in asking]), strict=True):
            task.send(found)
    part = Part([], Counter(), Counter(all=time.process_time() - began))  # pyright: ignore[reportArgumentType]
    for task in tasks:
        part.frames.extend(task.frames)
        part.dropped.update(task.dropped)
    return part


class Task:
    """One starting structure and all that follows from it: a function of seed and number.

    Attributes:
        wanted: structure to be labelled, ``None`` at the end.
        frames: labelled ones.
        dropped: reason why it ended early, if it did.
    """

    def __init__(self, seed: int, number: int) -> None:
        rng = np.random.default_rng([seed, number])
        shares = np.array([share for _, share in FAMILIES.values()])
        self.family = str(rng.choice(list(FAMILIES), p=shares / shares.sum()))
        self.group = f"{self.family}-{number}"
        self.frames: list[Atoms] = []
        self.dropped: Counter[str] = Counter()
        self._steps: Family = FAMILIES[self.family][0](rng)
        self.wanted: Atoms | None = None
        self._advance(None)

    def send(self, found: Evaluation | str) -> None:
        """Go on with what the teacher says of the structure that is wanted, or the reason why it says nothing."""
        reason = found if isinstance(found, str) else _unusable(found)
        if reason or isinstance(found, str) or (asked := self.wanted) is None:
            self._end(reason)
            return
        labels: dict[str, Any] = {"energy": found.energy, "forces": found.forces}
        if found.stress is not None:
            labels["stress"] = found.stress[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]
        self._keep(asked, labels)
        self._advance(found)

    def _advance(self, found: Evaluation | None) -> None:
        try:
            atoms = self._steps.send(found)  # pyright: ignore[reportArgumentType]
            while atoms.calc is not None:
                self._keep(atoms, atoms.calc.results)
                atoms = next(self._steps)
            self.wanted = atoms
        except StopIteration:
            self.wanted = None
        except Exception as error:  # a draft that cannot be made costs its task, not the run
            self._end(f"no structure: {type(error).__name__}")

    def _keep(self, atoms: Atoms, labels: dict[str, Any]) -> None:
        frame = bare(atoms)
        frame.calc = SinglePointCalculator(frame, **labels)
        frame.info = {"family": self.family, "group": self.group, "config_type": self.family}
        self.frames.append(frame)

    def _end(self, reason: str) -> None:
        self.dropped[f"{self.family}: {reason}"] += 1
        self.wanted = None


def _unusable(found: Evaluation) -> str:
    if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
        return "not finite"
    return f"force above {MOST_FORCE:g} eV/Å" if np.abs(found.forces).max() > MOST_FORCE else ""


class Asked:
    """A model asked for many structures, in batches of fixed shapes: each is compiled once.

    Attributes:
        model: which.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, structures: Sequence[Any]) -> list[Evaluation | str]:
        """Evaluate structures, or say why not."""
        systems = [System.from_ase(atoms) for atoms in structures]
        tables = [neighbor_table(system, self.model.potential.cutoff) for system in systems]
        found: list[Evaluation | str] = ["too many neighbours"] * len(systems)
        for shape, indices in batches(tables):
            part = [systems[i] for i in indices]
            for i, evaluation in zip(indices, self._batch(part, [tables[i] for i in indices], shape), strict=True):
                found[i] = evaluation
        return found

    def _batch(
        self, systems: Sequence[System], tables: Sequence[NeighborTable], shape: tuple[int, int]
    ) -> list[Evaluation]:
        potential, params = self.model
        rows, width = shape
        graph = batch_graphs(systems, potential.cutoff, tables=tables, n_atoms=rows, n_neighbors=width, n_graphs=GRAPHS)
        return unpacked(apply(potential, params, graph), systems, potential)


def batches(tables: Sequence[NeighborTable]) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Fill batches of the narrowest shape that every structure fits; one that fits none is in none."""
    waiting: dict[tuple[int, int], list[int]] = {shape: [] for shape in SHAPES}
    for index, table in enumerate(tables):
        shape = next((s for s in SHAPES if table.max_count <= s[1] and table.n_atoms <= s[0]), None)
        if shape is not None:
            waiting[shape].append(index)
    for shape, indices in waiting.items():
        batch: list[int] = []
        for index in indices:
            if batch and (sum(tables[i].n_atoms for i in [*batch, index]) > shape[0] or len(batch) == GRAPHS):
                yield shape, batch
                batch = []
            batch.append(index)
        if batch:
            yield shape, batch


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
