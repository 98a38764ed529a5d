"""Error bars of energies and forces: from the last layer's posterior, or from members that disagree.

Both are pytrees with one method, ``spread``: pure, to be jitted, mapped and put into loops.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax import tree
from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential, sum_over_atoms
from mlipjax.precision import exact
from mlipjax.typing import Array, Energies, Float, Forces, Key, NodeEnergies, Params
from mlipjax.uncertainty.last_layer import Paths, atom_features, force_features, sum_features


@struct.dataclass
class Spread:
    """Standard deviations of a prediction for a batch.

    Attributes:
        energy: (G,) eV, of whole structures.
        energies: (N,) eV, of the energies of atoms.
        forces: (N, 3) eV/Å, of each component; zero where forces were not asked for.
    """

    energy: Energies
    energies: NodeEnergies
    forces: Forces


class Estimator(Protocol):
    """Source of error bars.

    Attributes:
        scale: (2,) factors of the standard deviations of energies and forces, from held-out groups.
    """

    scale: Any

    def spread(self, potential: Potential, params: Params, graph: GraphBatch) -> Spread:
        """Standard deviations for a batch."""
        ...


@struct.dataclass
class Rigidity:
    """Posterior of the last layer (LLPR; Bigi, Chong, Ceriotti, Grasselli, MLST 5, 045018 (2024)).

    With the Gauss-Newton matrix ``H = sum_rows f f^T`` of the training set, a prediction with the features ``f`` has
    the variance ``alpha^2 f^T (H + s^2 1)^-1 f``: Bayesian linear regression in the features of the last layer.
    Features of a structure are sums over its atoms, those of a force their derivatives by the position of the atom.

    Attributes:
        basis: (F, F) eigenvectors of H, in columns.
        eigenvalues: (F,) of H.
        ridge: () ``s^2``.
        scale: (2,) ``alpha`` of energies and of forces.
        paths: of the last layer's parameters.
    """

    basis: Float[Array, "F F"]
    eigenvalues: Float[Array, " F"]
    ridge: Float[Array, ""]
    scale: Float[Array, " 2"]
    paths: Paths = struct.field(pytree_node=False, default=())

    @property
    def root(self) -> Float[Array, "F F"]:
        """Matrix ``R`` with ``R R^T = (H + s^2 1)^-1``."""
        return self.basis * jax.lax.rsqrt(self.eigenvalues + self.ridge)[None, :]

    @exact
    def variance(self, features: Float[Array, "n F"]) -> Float[Array, " n"]:
        """``f^T (H + s^2 1)^-1 f`` of rows of features, without ``alpha``."""
        return jnp.sum((features @ self.root) ** 2, axis=-1)

    def spread(self, potential: Potential, params: Params, graph: GraphBatch) -> Spread:
        """Standard deviations for a batch: one forward pass, and F backward passes for forces."""
        features = atom_features(potential, params, graph, graph.positions, self.paths)
        slopes = force_features(potential, params, graph, self.paths, self.root)
        return Spread(
            energy=self.scale[0] * jnp.sqrt(self.variance(sum_features(graph, features))),
            energies=self.scale[0] * jnp.sqrt(self.variance(features)),
            forces=self.scale[1] * jnp.sqrt(jnp.sum(slopes**2, axis=0)),
        )


@struct.dataclass
class Ensemble:
    """Members that differ in some of the parameters: in all (a committee) or in the last layer (a shallow ensemble).

    A shallow ensemble (Kellner & Ceriotti, Mach. Learn.: Sci. Technol. 5, 035006 (2024)) shares one backbone: mapped
    over, what no member has of its own is computed once. The spread is that of the members around their mean.

    Attributes:
        members: (K, ...) values of the parameters that differ, by path.
        e0s: (K, n_species) isolated-atom energies of the members in eV, less those of the model.
        scale: (2,) factors of the standard deviations of energies and forces.
    """

    members: dict[str, Array]
    e0s: Float[Array, "K S"]
    scale: Float[Array, " 2"]

    def spread(self, potential: Potential, params: Params, graph: GraphBatch) -> Spread:
        """Standard deviations for a batch, from K predictions."""
        flat = tree.flatten_paths(params)
        species = potential.species_index(graph.atomic_numbers)

        def member(values: dict[str, Array], e0s: Array) -> tuple[Array, ...]:
            own = tree.unflatten_paths({**flat, **values})
            found = potential.apply(own, graph, stress=False)
            # of small differences, so that float32 holds them
            energies = found.node_energy + jnp.where(graph.atom_mask, e0s[species], 0.0)
            return sum_over_atoms(graph, energies), energies, found.forces

        energy, energies, slopes = (
            jnp.std(values, axis=0, ddof=1) for values in jax.vmap(member)(self.members, self.e0s)
        )
        return Spread(self.scale[0] * energy, self.scale[0] * energies, self.scale[1] * slopes)


def committee(params: Params, others: list[Params], e0s: np.ndarray) -> Ensemble:
    """Join fine-tunes of one architecture, the model itself the first, into an ensemble that is not calibrated.

    Args:
        params: of the model.
        others: of the other members, at least one.
        e0s: (K, n_species) isolated-atom energies in eV, of the same members.

    Raises:
        ValueError: without another member, or if the shapes of parameters differ.
    """
    if not others:
        raise ValueError("a committee has two members at least; name one more model.")
    flat = [tree.flatten_paths(member) for member in (params, *others)]
    shapes = [{path: np.shape(leaf) for path, leaf in member.items()} for member in flat]
    for number, own in enumerate(shapes):
        if own != shapes[0]:
            raise ValueError(f"member {number} of the committee has other parameters than the model: another network.")
    members = {path: jnp.stack([jnp.asarray(member[path]) for member in flat]) for path in flat[0]}
    dtype = next(iter(members.values())).dtype
    return Ensemble(members, jnp.asarray(e0s - e0s[:1], dtype), jnp.ones(2, dtype))


@exact
def shallow_ensemble(rigidity: Rigidity, params: Params, key: Key, n_members: int, n_species: int) -> Ensemble:
    """Draw last layers from the posterior: ``n_members`` backward passes instead of one per feature.

    A standard deviation from K draws is itself uncertain by ``1 / sqrt(2 (K - 1))``: 18 % with 16.

    Args:
        rigidity: the posterior.
        params: of the model.
        key: of the draws.
        n_members: K, 2 at least.
        n_species: of the potential.

    Raises:
        ValueError: for fewer than two members.
    """
    if n_members < 2:
        raise ValueError(f"a shallow ensemble has two members at least, found {n_members}.")
    flat = tree.flatten_paths(params)
    root = rigidity.root
    drawn = jax.random.normal(key, (n_members, root.shape[1]), root.dtype) @ root.T
    sizes = np.cumsum([np.size(flat[path]) for path in rigidity.paths])[:-1]
    parts = zip(rigidity.paths, jnp.split(drawn, sizes, axis=1), strict=True)
    members = {path: flat[path][None] + part.reshape(n_members, *np.shape(flat[path])) for path, part in parts}
    return Ensemble(members, jnp.zeros((n_members, n_species), root.dtype), rigidity.scale)


@functools.partial(jax.jit, static_argnames="potential")
def spread(estimator: Any, potential: Potential, params: Params, graph: GraphBatch) -> Spread:
    """Compute standard deviations; ``estimator.spread``, compiled: the one place where it is.

    Args:
        estimator: calibrated, in the precision of the graph.
        potential: of the model.
        params: its parameters.
        graph: structures.
    """
    return estimator.spread(potential, params, graph)


def largest_std(found: Spread) -> float:
    """Largest standard deviation of an atom's force in eV/Å: the norm of those of its components."""
    return float(np.max(np.linalg.norm(np.asarray(found.forces, np.float64), axis=1)))


def cast(estimator: Any, dtype: Any) -> Any:
    """The same estimator in another precision."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), estimator)
