"""Records of a periodic fine-tune, on disk as they are made, and what is read off them and off its state."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset, Example
from mlipjax.elements import symbols
from mlipjax.files import naming, write_atomic
from mlipjax.finetuning.pieces import Stopped, frame_at
from mlipjax.finetuning.setup import Setup, SystemSetup
from mlipjax.finetuning.state import FineTuneState, FrameErrors
from mlipjax.potential import Model, Potential
from mlipjax.settings.finetune import STEP_0_LIMIT
from mlipjax.system import Labels

HISTORY = "history.jsonl"
"""Name of the file in the folder of a run."""


class History:
    """Records by key, in a file with one JSON object per line; a later record replaces an earlier one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._records: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._records = {json.dumps(record["key"]): record for record in read_history(path)}
            write_atomic(path, "".join(json.dumps(record) + "\n" for record in self._records.values()))

    def add(self, record: dict[str, Any]) -> None:
        """Add a record, on the disk before this returns."""
        self._records[json.dumps(record["key"])] = record
        if self._path is not None:
            with naming(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All records, in the order in which their pieces were first done."""
        return list(self._records.values())


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the records of a file, in the order in which their pieces were first done."""
    records: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        # a kill may leave half a line at the end; its piece is done again
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[json.dumps(record["key"])] = record
    return list(records.values())


def record_labels(
    own: SystemSetup, errors: FrameErrors, good: np.ndarray, n_failed: int, shift: float, *, check_zero: bool
) -> dict[str, Any]:
    """Record of a system's labels of a round, with the errors of the model that sampled their frames.

    Args:
        own: the system.
        errors: of all frames.
        good: (R,) frames whose label counts.
        n_failed: frames that could not be labelled.
        shift: eV, the energy shift of these labels.
        check_zero: whether energies must be near the model's, as nothing is taken off them.

    Raises:
        Stopped: if they are not: the isolated atoms of labels and model have other energies.
    """
    energy, rmse, mae = (np.asarray(values, np.float64)[good] for values in errors[:3])
    elements = [np.asarray(values, np.float64)[good].tolist() for values in errors.element_force_rmse]
    if check_zero and len(energy) and (offset := abs(float(np.mean(energy))) / own.n_atoms) > STEP_0_LIMIT:
        raise Stopped(
            f"energies of the model and its first labels differ by {offset:.3g} eV/atom (limit {STEP_0_LIMIT:g}): "
            'their isolated atoms have other energies. Take the difference off with e0s="estimate"; frames from '
            "before, off which it has been taken already, must be of the oracle's level of theory."
        )
    names = symbols(z for z, _ in own.composition)
    return {
        "labels_made": int(good.sum()),
        "labels_failed": n_failed,
        "n_atoms": own.n_atoms,
        "energy_shift_eV": shift,
        "energy_error_eV_per_atom": (energy / own.n_atoms).tolist(),
        "force_rmse_eV_per_A": rmse.tolist(),
        "force_mae_eV_per_A": mae.tolist(),
        "element_force_rmse_eV_per_A": dict(zip(names, elements, strict=True)),
        "element_counts": dict(zip(names, (count for _, count in own.composition), strict=True)),
        "frames": np.flatnonzero(good).tolist(),
        "worst_atom": np.asarray(errors.worst_atom)[good].tolist(),
    }


def round_rows(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each round: its labels, the errors on them of the model that had not seen them, loss, alarms.

    Args:
        history: records of a run.

    Returns:
        JSON types. ``labels_before`` is what the model had seen; errors are model minus label, of the energy per atom.
        Those of all systems together give every frame the same weight for energies and every atom for forces; the
        standard deviation is about the mean of each system. ``systems`` has the same for each system by itself.
    """
    rows: list[dict[str, Any]] = []
    seen: dict[int, int] = {}
    for number in sorted({record["round"] for record in history if record["stage"] == "label"}):
        own = [record for record in history if record["round"] == number]
        labels = sorted((r for r in own if r["stage"] == "label"), key=lambda record: record.get("system", 0))
        losses = [loss for record in own if record["stage"] == "train" for loss in record["loss"]]
        parts = []
        for record in labels:
            system = record.get("system", 0)
            alarms = [len(r["alarms"]) for r in own if "alarms" in r and r.get("system", 0) == system]
            counts = {"labels_before": seen.get(system, 0), "labels": record["labels_made"]}
            parts.append({
                **counts,
                "failed": record["labels_failed"],
                **_errors([record]),
                "alarms": sum(alarms) if alarms else None,
            })  # fmt: skip
            seen[system] = seen.get(system, 0) + record["labels_made"]
        alarms = [part["alarms"] for part in parts if part["alarms"] is not None]
        # without waiting for labels the last training of the round may have had fewer than there are now
        trained = [record["labelled"] for record in own if "labelled" in record]
        seen |= dict(enumerate(trained[-1])) if trained else {}
        rows.append({
            "round": number + 1,
            **{name: sum(part[name] for part in parts) for name in ("labels_before", "labels", "failed")},
            **_errors(labels),
            "loss": losses[-1] if losses else None,
            "alarms": sum(alarms) if alarms else None,
            "systems": parts,
        })  # fmt: skip
    return rows


def _errors(labels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors on the labels of some records, one for each system."""
    energies = [1000.0 * np.array(record["energy_error_eV_per_atom"]) for record in labels]
    energy = np.concatenate(energies)
    spread = np.concatenate([error - error.mean() for error in energies if len(error)] or [energy])
    forces = [(record.get("n_atoms", 1), record["force_rmse_eV_per_A"]) for record in labels]
    found = sorted({symbol for record in labels for symbol in record.get("element_counts", {})})
    return {
        "energy_mean_meV_per_atom": _mean(energy),
        "energy_std_meV_per_atom": _mean(spread**2) ** 0.5,
        "energy_rmse_meV_per_atom": _mean(energy**2) ** 0.5,
        "force_rmse_meV_per_A": _pooled(forces),
        "elements": {
            symbol: {
                "force_rmse_meV_per_A": _pooled([
                    (record["element_counts"][symbol], record["element_force_rmse_eV_per_A"][symbol])
                    for record in labels
                    if symbol in record.get("element_counts", {})
                ])
            }
            for symbol in found
        },
    }  # fmt: skip


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _pooled(parts: Sequence[tuple[int, Sequence[float]]]) -> float:
    """Root mean square over atoms, meV/Å, of frames given as their numbers of atoms and root mean squares in eV/Å."""
    weights = np.concatenate([np.full(len(values), n) for n, values in parts])
    squares = np.concatenate([np.square(values) for _, values in parts])
    return 1000.0 * float(np.sqrt(np.sum(weights * squares) / np.sum(weights))) if len(squares) else float("nan")


def labelled_frames(setup: Setup, state: FineTuneState) -> Dataset:
    """The frames of a run that have labels, in the order of time; total energies, in the precision of the run.

    Each knows its ``round`` and ``system``, both from 1.
    """
    found = []
    for number, (own, system) in enumerate(zip(setup.systems, state.systems, strict=True), 1):
        system = dataclasses.replace(system, buffer=jax.device_get(system.buffer))
        reference = setup.potential.reference_energy(np.asarray(system.sim.atomic_numbers))
        for slot in np.flatnonzero(system.buffer.labelled):
            labels: Labels = jax.tree.map(
                lambda leaf, slot=slot: np.asarray(leaf[slot], np.float64), system.buffer.labels
            )
            labels = dataclasses.replace(labels, energy=labels.energy + reference)
            info = {"round": int(system.buffer.round[slot]) + 1, "system": number}
            found.append(Example(frame_at(own.spec, system, slot), labels, info))
    return Dataset.from_examples(sorted(found, key=lambda example: example.info["round"]))


def model_of(setup: Setup, state: FineTuneState) -> Model:
    """The model of a state, on the host: averaged parameters, and the energy zero of the labels."""
    shifts = [float(system.energy_shift) for system in state.systems]
    potential, params = setup.model(state.train.ema_params)
    return Model(with_energy_shifts(potential, setup.counts, np.array(shifts)), jax.device_get(params))


def with_energy_shifts(potential: Potential, counts: np.ndarray, shifts: np.ndarray) -> Potential:
    """Move the isolated-atom energies of the first head so that some compositions move by given energies.

    Of all moves that do so, the smallest (of those that do it best, if none does).

    Args:
        potential: whose energies are moved.
        counts: (S, E) atoms of each of its elements in each composition.
        shifts: (S,) eV.
    """
    moves, *_ = np.linalg.lstsq(counts.astype(np.float64), shifts, rcond=1e-3)
    moved = potential.e0s.copy()
    moved[0] += moves
    return potential.replace(e0s=moved)
