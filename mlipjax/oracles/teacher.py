"""A frozen potential as oracle: cheap labels of known origin, and the only realistic oracle inside a compiled loop."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.files import digest
from mlipjax.graph import GraphBatch, batch_graphs
from mlipjax.oracles.analytic import graph_labels, within
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.typing import Array, Float, Params


@dataclass(frozen=True, eq=False)
class Teacher:
    """Labels by a potential that does not change.

    Attributes:
        potential: the teacher.
        params: its parameters.
        head: index of the energy head that answers.
        dtype: precision of :meth:`label`, ``"float64"`` or ``"float32"``; :meth:`label_graph` follows its input.
    """

    potential: Potential
    params: Params
    head: int = 0
    dtype: str = "float64"

    jittable = True
    name = "teacher"

    def __post_init__(self) -> None:
        if not 0 <= self.head < len(self.potential.heads):
            raise ValueError(f"head {self.head} does not exist; the heads are {self.potential.heads}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {self.dtype!r}")

    @property
    def cutoff(self) -> float:
        """Cutoff of the teacher in Å."""
        return self.potential.cutoff

    @property
    def isolated_energies(self) -> Mapping[int, float]:
        """Isolated-atom energies of the answering head in eV."""
        return dict(zip(self.potential.species, self.potential.e0s[self.head].tolist(), strict=True))

    @property
    def identity(self) -> str:
        """SHA-256 over parameters, configuration, isolated-atom energies, head and precision."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        facts = repr((self.potential.config, self.potential.species, self.head))
        leaves = ((path, np.ascontiguousarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(self.params))
        named = ((f"{jax.tree_util.keystr(path)}{leaf.shape}{leaf.dtype.str}", leaf) for path, leaf in leaves)
        e0s = np.asarray(self.potential.e0s, np.float64)
        return f"teacher:{digest(facts, e0s, *itertools.chain.from_iterable(named))}:{self.dtype}"

    def label(self, system: System) -> Labels:
        """Total energy, forces and (fully periodic) stress of one structure.

        Raises:
            ValueError: an element is unknown to the teacher.
        """
        numbers = np.asarray(system.atomic_numbers)
        self.potential.check_elements(numbers.tolist())
        graph = batch_graphs([system], self.cutoff, heads=[self.head], dtype=np.dtype(self.dtype))
        with jax.enable_x64(self.dtype == "float64"):
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), self.params)
            labels = jax.device_get(_label(self.potential, self.head, params, graph))
        energy = float(labels.energy[0]) + self.potential.reference_energy(numbers, self.head)
        stress = labels.stress[0] if all(system.pbc) else None
        return Labels.create(system.n_atoms, energy, labels.forces[: system.n_atoms], stress)

    def label_graph(self, graph: GraphBatch, offsets: Float[Array, " elements"] | None = None) -> Labels:
        """Label a batch; see :class:`~mlipjax.oracles.protocol.JittableOracle`.

        The batch's own head indices (``graph.head``) belong to the student and are replaced by ``head``.
        """
        return label_with(self.potential, self.params, graph, offsets, self.head)


def label_with(
    potential: Potential,
    params: Params,
    graph: GraphBatch,
    offsets: Float[Array, " elements"] | None = None,
    head: int = 0,
) -> Labels:
    """:meth:`Teacher.label_graph` with the parameters as an argument, so that a loop need not close over them.

    Args:
        potential: the teacher.
        params: its parameters.
        graph: structures; its head indices belong to the student.
        offsets: (119,) eV by atomic number, added for every atom.
        head: that answers.
    """
    dtype = graph.positions.dtype
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    graph = within(replace(graph, head=jnp.full_like(graph.head, head)), potential.cutoff)
    prediction = potential.apply(params, graph)
    return graph_labels(graph, prediction.energy, prediction.forces, prediction.stress, offsets)


@partial(jax.jit, static_argnums=(0, 1))
def _label(potential: Potential, head: int, params: Params, graph: GraphBatch) -> Labels:
    return label_with(potential, params, graph, head=head)
