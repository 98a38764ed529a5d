"""One way to ask any potential: structures in; energies, forces and stresses out, many structures at a time.

Probes that need no more than that take an ``Evaluator`` and work on native potentials (all structures in padded
batches of one shape, one compiled program) and on foreign ASE calculators (one after the other) alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.devices import WHOLE, default_slots, device_count, get, mesh_of_parts, put
from mlipjax.graph import batch_graphs, bucket_size, neighbor_bucket, neighbor_tables
from mlipjax.models.foreign import foreign_calculator, is_foreign
from mlipjax.models.heads import head_index
from mlipjax.potential import Model, Potential, Prediction
from mlipjax.system import System
from mlipjax.train.several import apply_each


class Evaluation(NamedTuple):
    """Prediction for one structure, float64.

    Attributes:
        energy: total energy in eV.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å^3, tension positive; ``None`` if the potential gives none for this structure.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray | None


class Evaluator(Protocol):
    """Structures in, evaluations out, in the same order."""

    def __call__(self, systems: Sequence[System], /) -> list[Evaluation]:
        """Evaluate structures, of any sizes."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class NativeEvaluator:
    """A potential of this package, through ``Potential.apply``.

    Attributes:
        model: its potential decides the compiled program: fine-tuned parameters may be given with the one they started
            from, and then nothing is compiled again (their isolated-atom energies shift energies only).
        dtype: ``"float64"`` (finite differences need it) or ``"float32"``.
        head: index of the energy head.
        max_slots: limit of padded atoms times neighbour slots per batch, for memory; by default
            ``devices.default_slots``.
    """

    model: Model
    dtype: str = "float64"
    head: int = 0
    max_slots: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {self.dtype!r}")

    def __call__(self, systems: Sequence[System], /) -> list[Evaluation]:
        """Evaluate structures in batches of one padded size.

        Raises:
            ValueError: for no structure, or elements the potential does not know.
        """
        if not systems:
            raise ValueError("nothing to evaluate: found no structure.")
        potential = self.model.potential
        for numbers in {tuple(np.unique(system.atomic_numbers).tolist()) for system in systems}:
            potential.check_elements(numbers)
        tables = list(neighbor_tables(systems, potential.cutoff))
        width = neighbor_bucket(max(table.max_count for table in tables))
        largest = max(system.n_atoms for system in systems)
        mesh = mesh_of_parts(len(systems))
        count = device_count(mesh)
        limit = (self.max_slots or default_slots(self.dtype)) // (largest * width)
        per_batch = max(1, min(-(-len(systems) // count), limit))
        parts = [range(i, min(i + per_batch, len(systems))) for i in range(0, len(systems), per_batch)]
        rows = bucket_size(max(sum(systems[i].n_atoms for i in part) for part in parts))
        results: list[Evaluation] = []
        with jax.enable_x64(self.dtype == "float64"):
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), self.model.params)
            params = put(params, mesh, WHOLE)
            for start in range(0, len(parts), count):
                group = parts[start : start + count]
                graphs = [
                    batch_graphs(
                        [systems[i] for i in part],
                        potential.cutoff,
                        n_atoms=rows,
                        n_neighbors=width,
                        n_graphs=per_batch,
                        heads=[self.head] * len(part),
                        tables=[tables[i] for i in part],
                        dtype=np.dtype(self.dtype),
                    )
                    for part in group
                ]
                found = apply_each(potential, params, graphs, mesh)
                for part, prediction in zip(group, found, strict=True):
                    results += unpacked(prediction, [systems[i] for i in part], potential, self.head)
        return results


def unpacked(
    prediction: Prediction, systems: Sequence[System], potential: Potential, head: int = 0
) -> list[Evaluation]:
    """Divide the prediction for a batch by structure.

    Args:
        prediction: of the potential.
        systems: in the batch, in its order.
        potential: with the isolated-atom energies that are added.
        head: index of the energy head.
    """
    # features are as large as all the rest together many times over and stay on the device
    found = get((prediction.node_energy, prediction.forces, prediction.stress))
    node_energy, forces, stresses = (np.asarray(part, np.float64) for part in found)
    results, start = [], 0
    for row, system in enumerate(systems):
        stop = start + system.n_atoms
        # summed in float64 on the host: float32 cannot hold the sum of many atoms to a meV
        energy = float(np.sum(node_energy[start:stop]))
        energy += potential.reference_energy(system.atomic_numbers, head)
        stress = stresses[row] if all(system.pbc) else None
        results.append(Evaluation(energy, forces[start:stop], stress))
        start = stop
    return results


@dataclasses.dataclass(frozen=True, eq=False)
class AseEvaluator:
    """Any ASE calculator, one structure after the other.

    Attributes:
        calculator: with energies and forces; stresses are asked for where the structure is periodic along all axes.
    """

    calculator: Any

    def __call__(self, systems: Sequence[System], /) -> list[Evaluation]:
        """Evaluate structures.

        Raises:
            ValueError: for no structure, or a result that is not finite.
            Exception: whatever the calculator raises.
        """
        if not systems:
            raise ValueError("nothing to evaluate: found no structure.")
        from mlipjax.oracles.ase_calculator import evaluate

        results = []
        for system in systems:
            labels = evaluate(self.calculator, system)
            stress = np.asarray(labels.stress) if labels.stress_weight > 0 else None
            results.append(Evaluation(float(labels.energy), np.asarray(labels.forces), stress))
        return results


def load_evaluator(name: str, dtype: str = "float64", head: str | None = None) -> NativeEvaluator | AseEvaluator:
    """Return the evaluator of a model by name: native as ``mlipjax.load`` takes it, or ``ase:module:factory``.

    Args:
        name: of the model.
        dtype: precision of a native one.
        head: name of a native one's energy head; by default its first.

    Raises:
        ValueError, FileNotFoundError: if it cannot be loaded, or has no such head.
    """
    if is_foreign(name):
        return AseEvaluator(foreign_calculator(name))
    from mlipjax.models import load

    model = load(name)
    return NativeEvaluator(model, dtype, head_index(model.potential, head))
