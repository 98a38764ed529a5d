"""The label store: an ASE database in which every label is committed before anyone uses it.

``ase db labels.db`` and ``ase gui labels.db`` open it. One row is one attempt: a label, or a failure with its
reason. SQLite's own journal makes each row all or nothing, whenever the program is killed; ASE's additional
lock file is not used, because a killed program leaves it behind and the next one would wait for ever.

One process writes; others may read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax.system import Labels, System


def label_key(system: System, identity: str) -> str:
    """Name of a label: SHA-256 over the structure's exact float64 bytes and the oracle's identity.

    Nothing is rounded: positions that differ in the last bit are different structures. Elements and their order,
    positions, cell and periodicity count.
    """
    digest = hashlib.sha256(f"{identity}\n{tuple(map(bool, system.pbc))}\n".encode())
    digest.update(np.asarray(system.atomic_numbers, "<i4").tobytes())
    for array in (system.positions, system.cell):
        # adding zero turns -0.0 into 0.0, which is the same place
        digest.update((np.asarray(array, "<f8") + 0.0).tobytes())
    return f"sha256-{digest.hexdigest()}"


@dataclass(frozen=True)
class FailedAttempts:
    """What the store knows of a structure that could not be labelled so far."""

    count: int
    last_reason: str


class LabelStore:
    """Labels and failed attempts on disk, by :func:`label_key`.

    Args:
        path: the database, made (with its folder) if absent.

    Raises:
        ValueError: ``path`` exists and is not an ASE SQLite database.
    """

    def __init__(self, path: str | Path):
        from ase.db import connect

        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._database: Any = connect(str(self.path), type="db", use_lock_file=False)
        self._rows: dict[str, int] = {}
        self._failures: dict[str, FailedAttempts] = {}
        try:
            for row in self._database.select():
                self._index(row)
        except Exception as error:
            raise ValueError(f"{self.path} is not a label store ({error}); choose another path") from error

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def get(self, key: str) -> Labels | None:
        """Return the label stored under ``key``, bit for bit as it was added; ``None`` if there is none."""
        if key not in self._rows:
            return None
        row: Any = self._database.get(id=self._rows[key])
        stress: Any = row.get("stress")
        if stress is not None:
            stress = np.asarray(stress)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
        return Labels.create(row.natoms, row.get("energy"), row.get("forces"), stress)

    def failures(self, key: str) -> FailedAttempts | None:
        """Return the failed attempts recorded under ``key``."""
        return self._failures.get(key)

    def systems(self) -> list[tuple[System, Labels]]:
        """Every labelled structure, in the order of labelling."""
        return [
            (System.from_ase(self._database.get_atoms(id=row)), self._known(key)) for key, row in self._rows.items()
        ]

    def add(self, key: str, system: System, labels: Labels, *, oracle: str, seconds: float = 0.0) -> Labels:
        """Commit a label and return it as it will be read from now on.

        The symmetric part of the stress is kept (ASE stores six components).

        Raises:
            ValueError: the label exists already: computing it again was a mistake.
        """
        if key in self._rows:
            raise ValueError(f"{self.path} already holds a label under {key}")
        atoms = system.to_ase()
        known: dict[str, Any] = {}
        if labels.energy_weight > 0:
            known["energy"] = float(labels.energy)
        if labels.forces_weight > 0:
            known["forces"] = np.asarray(labels.forces, np.float64)
        if labels.stress_weight > 0:
            stress = np.asarray(labels.stress, np.float64)
            known["stress"] = (0.5 * (stress + stress.T))[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        atoms.calc = SinglePointCalculator(atoms, **known)
        self._rows[key] = self._database.write(
            atoms, label_key=key, status="done", oracle=oracle, seconds=float(seconds)
        )
        return self._known(key)

    def add_failure(self, key: str, system: System, reason: str, *, oracle: str, seconds: float = 0.0) -> None:
        """Record an attempt that gave no label."""
        # the reason goes into data: as a key-value pair ASE would refuse text that looks like a number
        row = self._database.write(
            system.to_ase(),
            label_key=key,
            status="failed",
            oracle=oracle,
            seconds=float(seconds),
            data={"reason": reason},
        )
        self._index(self._database.get(id=row))

    def forget_failures(self) -> int:
        """Delete all recorded failures, so that those structures are tried again; returns how many."""
        rows = [row.id for row in self._database.select(status="failed")]
        self._database.delete(rows)
        self._failures.clear()
        return len(rows)

    def _known(self, key: str) -> Labels:
        labels = self.get(key)
        assert labels is not None
        return labels

    def _index(self, row: Any) -> None:
        key = row.label_key
        if row.status == "done":
            self._rows[key] = row.id
        else:
            before = self._failures.get(key, FailedAttempts(0, ""))
            self._failures[key] = FailedAttempts(before.count + 1, row.data["reason"])
