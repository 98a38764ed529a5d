"""Readings of a periodic fine-tune on the host: records of labels, rows of rounds, labelled frames, models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset, Example
from mlipjax.finetuning.pieces import Stopped, frame_at
from mlipjax.finetuning.setup import Setup
from mlipjax.finetuning.state import FineTuneState, FrameErrors
from mlipjax.potential import Model, Potential
from mlipjax.settings.finetune import STEP_0_LIMIT
from mlipjax.system import Labels


def record_labels(
    errors: FrameErrors, good: np.ndarray, n_failed: int, state: FineTuneState, *, check_zero: bool
) -> dict[str, Any]:
    """Record of the labels of a round, with the errors of the model that sampled their frames.

    Args:
        errors: of all frames.
        good: (R,) frames whose label counts.
        n_failed: frames that could not be labelled.
        state: with the energy shift of these labels.
        check_zero: whether energies must be near the model's, as nothing is taken off them.

    Raises:
        Stopped: if they are not: the isolated atoms of labels and model have other energies.
    """
    n_atoms, shift = state.sim.atomic_numbers.shape[0], float(state.energy_shift)
    energy, rmse, mae = (np.asarray(values, np.float64)[good] for values in errors)
    if check_zero and (offset := abs(float(np.mean(energy))) / n_atoms) > STEP_0_LIMIT:
        raise Stopped(
            f"energies of the model and its first labels differ by {offset:.3g} eV/atom (limit {STEP_0_LIMIT:g}): "
            'their isolated atoms have other energies. Take the difference off with e0s="estimate"'
        )
    return {
        "labels_made": int(good.sum()),
        "labels_failed": n_failed,
        "energy_shift_eV": shift,
        "energy_error_eV_per_atom": (energy / n_atoms).tolist(),
        "force_rmse_eV_per_A": rmse.tolist(),
        "force_mae_eV_per_A": mae.tolist(),
    }


def round_rows(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each round: its labels, the errors on them of the model that had not seen them, loss, alarms.

    Args:
        history: records of a run.

    Returns:
        JSON types. ``labels_before`` is what the model had seen; errors are model minus label, of the energy per atom.
    """
    rows: list[dict[str, Any]] = []
    seen = 0
    for number in sorted({record["round"] for record in history if record["stage"] == "label"}):
        own = [record for record in history if record["round"] == number]
        label = next(record for record in own if record["stage"] == "label")
        error = 1000.0 * np.array(label["energy_error_eV_per_atom"])
        losses = [loss for record in own if record["stage"] == "train" for loss in record["loss"]]
        alarms = [len(record["alarms"]) for record in own if "alarms" in record]
        rows.append({
            "round": number + 1,
            "labels_before": seen,
            "labels": label["labels_made"],
            "failed": label["labels_failed"],
            "energy_mean_meV_per_atom": float(error.mean()),
            "energy_std_meV_per_atom": float(error.std()),
            "energy_rmse_meV_per_atom": float(np.sqrt(np.mean(error**2))),
            "force_rmse_meV_per_A": 1000.0 * float(np.sqrt(np.mean(np.square(label["force_rmse_eV_per_A"])))),
            "loss": losses[-1] if losses else None,
            "alarms": sum(alarms) if alarms else None,
        })  # fmt: skip
        seen += label["labels_made"]
    return rows


def labelled_frames(setup: Setup, state: FineTuneState) -> Dataset:
    """The frames of a run that have labels, in the order of time; total energies, in the precision of the run."""
    buffer = jax.device_get(state.buffer)
    reference = setup.potential.reference_energy(np.asarray(state.sim.atomic_numbers))
    examples = []
    for slot in np.flatnonzero(buffer.labelled):
        labels: Labels = jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot], np.float64), buffer.labels)
        labels = dataclasses.replace(labels, energy=labels.energy + reference)
        examples.append(Example(frame_at(setup, state, slot), labels, {"round": int(buffer.round[slot]) + 1}))
    return Dataset.from_examples(examples)


def model_of(setup: Setup, state: FineTuneState) -> Model:
    """The model of a state, on the host: averaged parameters, and the energy zero of the labels."""
    numbers = np.asarray(state.sim.atomic_numbers)
    potential = with_energy_shift(setup.potential, numbers, float(state.energy_shift))
    return Model(potential, jax.device_get(state.train.ema_params))


def with_energy_shift(potential: Potential, atomic_numbers: np.ndarray, shift: float) -> Potential:
    """Move the isolated-atom energies so that the energy of one composition moves by ``shift`` eV.

    Of all moves that do so, the smallest: in proportion to the number of atoms of each element.
    """
    counts = np.array([np.sum(np.asarray(atomic_numbers) == z) for z in potential.species], np.float64)
    return potential.replace(e0s=potential.e0s + shift * counts / np.sum(counts**2))
