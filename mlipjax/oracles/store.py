"""The label store: an ASE database in which every label is committed before anyone uses it.

``ase db labels.db`` and ``ase gui labels.db`` open it. One row is one attempt: a label, or a failure with its
reason. SQLite's own journal makes each row all or nothing, whenever the program is killed; ASE's additional
lock file is not used, because a killed program leaves it behind and the next one would wait for ever. A new
database gets its name when it is complete.

One process writes, which ``LabelStore.hold`` sees to; others may read. What is read passes the check that every new
label passes, and rows carry a digest: one that was edited is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax.data.labels import BadLabelError, check_labels, make_labels
from mlipjax.files import digest, make_folder, replace_on_success
from mlipjax.locks import Lock
from mlipjax.system import Labels, System

_TABLES = {
    *("systems", "species", "keys", "text_key_values", "number_key_values", "information", "sqlite_sequence"),
}
"""Of an ASE database."""


def label_key(system: System, identity: str) -> str:
    """Name of a label: SHA-256 over the structure's exact float64 bytes and the oracle's identity.

    Nothing is rounded: positions that differ in the last bit are different structures. Elements and their order,
    positions, cell and periodicity count.
    """
    # adding zero turns -0.0 into 0.0, which is the same place
    places = (np.asarray(array, "<f8") + 0.0 for array in (system.positions, system.cell))
    facts = f"{identity}\n{tuple(map(bool, system.pbc))}\n"
    return f"sha256-{digest(facts, np.asarray(system.atomic_numbers, '<i4'), *places)}"


@dataclass(frozen=True)
class FailedAttempts:
    """Record of a structure that could not be labelled so far."""

    count: int
    last_reason: str


class LabelStore:
    """Labels and failed attempts on disk, by :func:`label_key`.

    Args:
        path: the database, made (with its folder) if absent.

    Raises:
        ValueError: ``path`` exists and is not an ASE SQLite database of labels, or a row is no label or was edited.
        OSError: it cannot be made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._lock: Lock | None = None
        if _is_missing(self.path):
            self._make()
        self._database: Any = _connect(self.path)
        self._rows: dict[str, int] = {}
        self._failures: dict[str, FailedAttempts] = {}
        try:
            for row in self._database.select():
                self._index(row)
                if row.status == "done":
                    self._check(row)
        except BadLabelError:
            raise
        except Exception as error:
            raise ValueError(f"{self.path} is not a label store ({error}); choose another path") from error

    def hold(self) -> None:
        """Keep other processes from writing, from now on until this object or this process is gone.

        Raises:
            InUseError: another process writes to this store.
        """
        if self._lock is None:
            make_folder(self.path.parent)
            self._lock = Lock(self.path)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def get(self, key: str) -> Labels | None:
        """Return the label stored under ``key``, bit for bit as it was added; ``None`` if there is none."""
        if key not in self._rows:
            return None
        return _labels_of(self._database.get(id=self._rows[key]))

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
            ValueError: the label exists already: computing it again was a mistake; or it is none of this structure.
            OSError: it cannot be written; the store is as it was.
        """
        if key in self._rows:
            raise ValueError(f"{self.path} already holds a label under {key}")
        self.hold()
        labels = check_labels(labels, system.n_atoms)
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
        digest = _digest(atoms, known)
        with self._writing():
            self._rows[key] = self._database.write(
                atoms, label_key=key, status="done", oracle=oracle, seconds=float(seconds), digest=digest
            )
        return self._known(key)

    def add_failure(self, key: str, system: System, reason: str, *, oracle: str, seconds: float = 0.0) -> None:
        """Record an attempt that gave no label."""
        # the reason goes into data: as a key-value pair ASE would refuse text that looks like a number
        self.hold()
        with self._writing():
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
        self.hold()
        rows = [row.id for row in self._database.select(status="failed")]
        with self._writing():
            self._database.delete(rows)
        self._failures.clear()
        return len(rows)

    def _make(self) -> None:
        """Put an empty database in place, under its name when it is complete."""
        make_folder(self.path.parent)
        with Lock(self.path):
            if not _is_missing(self.path):
                return
            with self._writing(), replace_on_success(self.path) as temporary:
                # what a kill left of an earlier try; a journal would be applied to the new database
                for left in (temporary, *(path.with_name(f"{path.name}-journal") for path in (temporary, self.path))):
                    left.unlink(missing_ok=True)
                with _connect(temporary) as database:
                    database.count()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OSError(f"{self.path}: cannot be written: {error}") from error

    def _check(self, row: Any) -> None:
        """Refuse a row that is no label, or not the one that was stored."""
        where = f"{self.path}, row {row.id}"
        cure = f"delete it (ase db {self.path} id={row.id} --delete) and it is computed again"
        try:
            labels = _labels_of(row)
        except BadLabelError as error:
            raise BadLabelError(f"{where}: {error}; {cure}") from error
        if not labels.energy_weight + labels.forces_weight:
            raise BadLabelError(f"{where}: neither energy nor forces; {cure}")
        # stores of earlier versions have no digests
        if "digest" in row and row.digest != _digest(row, _present(row)):
            raise BadLabelError(f"{where}: not the label that was stored, it was edited; {cure}")

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


def _connect(path: Path) -> Any:
    from ase.db import connect

    return connect(str(path), type="db", use_lock_file=False)


def _is_missing(path: Path) -> bool:
    """Return whether there is no database, or one that a kill left without all of its tables and without a row.

    Raises:
        ValueError: it is another program's database, to which ASE would add its tables.
    """
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        return True
    try:
        connection = sqlite3.connect(path)
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            if "systems" not in tables and not tables <= _TABLES:
                raise ValueError(f"{path} is not a label store (it has the table {min(tables)}); choose another path")
            if not tables <= _TABLES or (
                "systems" in tables and connection.execute("SELECT 1 FROM systems LIMIT 1").fetchone()
            ):
                return False
            return "information" not in tables or not connection.execute("SELECT * FROM information").fetchall()
        finally:
            connection.close()
    except sqlite3.Error:
        return False  # whoever opens it says what is wrong


def _labels_of(row: Any) -> Labels:
    return make_labels(row.natoms, row.get("energy"), row.get("forces"), row.get("stress"))


def _present(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in ("energy", "forces", "stress") if name in row}


def _digest(structure: Any, known: dict[str, Any]) -> str:
    """SHA-256 over a structure (of ASE, or a row) and its labels, as they are read."""
    arrays = (structure.numbers, structure.positions, structure.cell, structure.pbc, *known.values())
    return f"sha256-{digest(repr(list(known)), *(np.asarray(array, '<f8') for array in arrays))}"
