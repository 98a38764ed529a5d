"""Lennard-Jones and Stillinger-Weber: exactly known energies, for tests and for loops that must be compiled.

Both are sums over the edges of a graph, so periodic images are counted as often as they occur: any cell will do,
also one shorter than the cutoff, where the minimum-image form of jax-md would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph import GraphBatch, batch_graphs, edge_vectors
from mlipjax.potential import sum_over_atoms
from mlipjax.precision import exact
from mlipjax.system import Labels, System
from mlipjax.typing import Array, Float, NodeEnergies

_NO_ENERGIES: Mapping[int, float] = {}


@dataclass(frozen=True)
class LennardJones:
    """One kind of atom: ``4 epsilon ((sigma/r)^12 - (sigma/r)^6) S(r)``.

    ``S`` falls smoothly from 1 at ``onset`` to 0 at ``cutoff`` (``jax_md.energy.multiplicative_isotropic_cutoff``;
    the same as ASE's ``LennardJones(smooth=True)``).

    The defaults are argon's.

    Attributes:
        sigma: Å, where the bare pair energy is zero.
        epsilon: eV, depth of the bare well.
        cutoff: Å.
        onset: Å, where the switching function begins.
    """

    sigma: float = 3.4
    epsilon: float = 0.0103
    cutoff: float = 8.5
    onset: float = 6.0

    jittable = True
    name = "lj"
    isolated_energies = _NO_ENERGIES

    def __post_init__(self) -> None:
        if not (self.sigma > 0 and self.epsilon > 0 and 0 < self.onset < self.cutoff):
            raise ValueError(f"Lennard-Jones needs sigma > 0, epsilon > 0 and 0 < onset < cutoff; found {self}")

    @property
    def identity(self) -> str:
        """All parameters."""
        return f"lj:sigma={self.sigma!r}:epsilon={self.epsilon!r}:cutoff={self.cutoff!r}:onset={self.onset!r}"

    def node_energy(self, vectors: Float[Array, "N K 3"], mask: Array) -> NodeEnergies:
        """Half of every pair energy, in eV, for each atom."""
        # importing jax-md takes seconds, which every worker process would spend
        from jax_md import energy as jax_md_energy

        # jax-md computes its constants in the type of these: arrays keep them in that of the input
        onset, cutoff, sigma, epsilon = (
            jnp.asarray(value, vectors.dtype) for value in (self.onset, self.cutoff, self.sigma, self.epsilon)
        )
        pair = jax_md_energy.multiplicative_isotropic_cutoff(
            partial(jax_md_energy.lennard_jones, sigma=sigma, epsilon=epsilon),
            onset,  # pyright: ignore[reportArgumentType]
            cutoff,  # pyright: ignore[reportArgumentType]
        )
        distance = _distances(vectors, mask, self.cutoff)
        return 0.5 * jnp.sum(jnp.where(mask, pair(distance), 0.0), axis=1)

    def label(self, system: System) -> Labels:
        """Label one structure in float64; see :class:`~mlipjax.oracles.protocol.Oracle`."""
        return _label_one(self, system)

    def label_graph(self, graph: GraphBatch, offsets: Float[Array, " elements"] | None = None) -> Labels:
        """Label a batch; see :class:`~mlipjax.oracles.protocol.JittableOracle`."""
        return labels_from_edges(self.node_energy, self.cutoff, graph, offsets)


@dataclass(frozen=True)
class StillingerWeber:
    """Silicon by two- and three-body terms (Stillinger and Weber, Phys. Rev. B 31, 5262 (1985)).

    With ``x = r / sigma`` and ``a = cutoff / sigma``, atom ``i`` contributes

    - ``epsilon A / 2 sum_j (B x_ij^-4 - 1) exp(1 / (x_ij - a))`` and
    - ``epsilon lam sum_{j<k} (cos theta_jik + 1/3)^2 exp(gamma / (x_ij - a) + gamma / (x_ik - a))``.

    Defaults are the paper's, with ``epsilon`` in eV and ``sigma`` in Å as in ``jax_md.energy.stillinger_weber``.
    """

    sigma: float = 2.0951
    epsilon: float = 2.16826
    A: float = 7.049556277
    B: float = 0.6022245584
    lam: float = 21.0
    gamma: float = 1.2
    cutoff: float = 3.77118

    jittable = True
    name = "sw"
    isolated_energies = _NO_ENERGIES

    @property
    def identity(self) -> str:
        """All parameters."""
        values = (self.sigma, self.epsilon, self.A, self.B, self.lam, self.gamma, self.cutoff)
        return "sw:" + ",".join(repr(value) for value in values)

    def node_energy(self, vectors: Float[Array, "N K 3"], mask: Array) -> NodeEnergies:
        """Half of the pair energies and all of the angle energies around each atom, in eV."""
        # beyond the cutoff the exponent would be positive: masked edges get a harmless distance
        distance = _distances(vectors, mask, 0.5 * self.cutoff)
        x = distance / self.sigma
        # next to the cutoff exp(1 / -tiny) is zero, but its derivative would be 0 * inf
        gap = jnp.minimum(x - self.cutoff / self.sigma, -1e-3)
        pair = jnp.where(mask, (self.B * x**-4 - 1.0) * jnp.exp(1.0 / gap), 0.0)
        reach = jnp.where(mask, jnp.exp(self.gamma / gap), 0.0)
        unit = vectors / distance[..., None]
        cosine = unit @ jnp.swapaxes(unit, 1, 2)
        others = ~jnp.eye(mask.shape[1], dtype=bool)
        angle = jnp.where(others, (cosine + 1.0 / 3.0) ** 2, 0.0) * reach[:, :, None] * reach[:, None, :]
        # every angle occurs twice in the square table of edge pairs
        triple = 0.5 * self.lam * jnp.sum(angle, axis=(1, 2))
        return self.epsilon * (0.5 * self.A * jnp.sum(pair, axis=1) + triple)

    def label(self, system: System) -> Labels:
        """Label one structure in float64; see :class:`~mlipjax.oracles.protocol.Oracle`.

        Raises:
            ValueError: an atom is not silicon.
        """
        found = sorted(set(np.asarray(system.atomic_numbers).tolist()) - {14})
        if found:
            raise ValueError(f"the Stillinger-Weber oracle is for silicon (14); found atomic numbers {found}")
        return _label_one(self, system)

    def label_graph(self, graph: GraphBatch, offsets: Float[Array, " elements"] | None = None) -> Labels:
        """Label a batch (elements unchecked); see :class:`~mlipjax.oracles.protocol.JittableOracle`."""
        return labels_from_edges(self.node_energy, self.cutoff, graph, offsets)


def _distances(vectors: Float[Array, "N K 3"], mask: Array, fill: float) -> Float[Array, "N K"]:
    """Lengths of edges in Å; ``fill`` in unused slots, so that no derivative meets the root of zero."""
    return jnp.sqrt(jnp.where(mask, jnp.sum(vectors**2, axis=-1), fill**2))


def within(graph: GraphBatch, cutoff: float) -> GraphBatch:
    """Return the graph without its edges of length ``cutoff`` (Å) or more."""
    vectors = edge_vectors(graph, graph.positions, graph.cells)
    return replace(graph, edge_mask=graph.edge_mask & (jnp.sum(vectors**2, axis=-1) < cutoff**2))


def labels_from_edges(
    node_energy: Callable[[Array, Array], NodeEnergies],
    cutoff: float,
    graph: GraphBatch,
    offsets: Float[Array, " elements"] | None,
) -> Labels:
    """Energies, forces and stress of a function of edge vectors, by one reverse pass.

    Args:
        node_energy: (vectors (N, K, 3), mask (N, K)) -> (N,) eV.
        cutoff: Å.
        graph: structures.
        offsets: (119,) eV by atomic number, or ``None``.
    """
    graph = within(graph, cutoff)

    @exact
    def total(positions: Array, strain: Array) -> tuple[Array, Array]:
        strain = 0.5 * (strain + jnp.swapaxes(strain, -1, -2))
        positions = positions + (positions[:, None, :] @ strain[graph.graph_index])[:, 0, :]
        vectors = edge_vectors(graph, positions, graph.cells + graph.cells @ strain)
        energies = jnp.where(graph.atom_mask, node_energy(vectors, graph.edge_mask), 0.0)
        return jnp.sum(energies), energies

    (d_positions, d_strain), energies = jax.grad(total, argnums=(0, 1), has_aux=True)(
        graph.positions, jnp.zeros_like(graph.cells)
    )
    return graph_labels(graph, sum_over_atoms(graph, energies), -d_positions, d_strain / _volume(graph), offsets)


def _volume(graph: GraphBatch) -> Float[Array, "G 1 1"]:
    """Volumes in Å^3; infinite for structures without one, so that their stress is zero."""
    volume = jnp.abs(jnp.linalg.det(graph.cells))
    return jnp.where(volume > 0.0, volume, jnp.inf)[:, None, None]


def graph_labels(graph: GraphBatch, energy, forces, stress, offsets: Float[Array, " elements"] | None) -> Labels:
    """Put labels of a batch together: add ``offsets``, weigh padding and undefined stress with 0."""
    dtype = graph.positions.dtype
    if offsets is not None:
        energy = energy + sum_over_atoms(graph, jnp.asarray(offsets, dtype)[graph.atomic_numbers])
    real = graph.graph_mask.astype(dtype)
    has_volume = (jnp.abs(jnp.linalg.det(graph.cells)) > 0.0).astype(dtype)
    return Labels(
        energy=energy,
        forces=forces,
        stress=stress,
        energy_weight=real,
        forces_weight=real,
        stress_weight=real * has_volume,
    )


@partial(jax.jit, static_argnums=0)
def _label_graph(oracle: LennardJones | StillingerWeber, graph: GraphBatch) -> Labels:
    return oracle.label_graph(graph)


def _label_one(oracle: LennardJones | StillingerWeber, system: System) -> Labels:
    graph = batch_graphs([system], oracle.cutoff, dtype=np.float64)
    with jax.enable_x64(True):
        labels = jax.device_get(_label_graph(oracle, graph))
    stress = labels.stress[0] if all(system.pbc) else None
    return Labels.create(system.n_atoms, float(labels.energy[0]), labels.forces[: system.n_atoms], stress)
