"""A potential: parameters and a graph in; energy, forces, stress and features out.

Forces and stress come from one reverse pass: with the symmetrised strain ``e`` applied to positions and
cells, ``F = -dE/dr`` and ``stress = dE/de / volume`` at ``e = 0`` (tension positive, as in ASE;
Knuth et al., Comput. Phys. Commun. 190, 33 (2015)).

Energies inside JAX are *interaction* energies: the sum of isolated-atom energies (E0s) is kept out of the
compiled program and added on the host in float64, because float32 cannot hold a total energy of 10^4 eV or more
to a meV.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax import tree
from mlipjax.defaults import Backend, Precision
from mlipjax.dispersion import D3BJ
from mlipjax.elements import listed
from mlipjax.graph import GraphBatch, edge_vectors
from mlipjax.nn.primitives.senders import of_senders
from mlipjax.nn.readouts import VECTORS, PropertyHead, init_head, input_moments, read_scalar, read_vector
from mlipjax.precision import exact, products_in
from mlipjax.typing import Array, Energies, Features, Float, Forces, Int, Key, NodeEnergies, Params, Stress


@struct.dataclass
class Prediction:
    """Prediction for a batch.

    Attributes:
        energy: (G,) interaction energy in eV, isolated-atom energies not included.
        forces: (N, 3) eV/Å, zero for padding atoms.
        stress: (G, 3, 3) eV/Å^3, tension positive; zero where a structure has no volume.
        node_energy: (N,) eV, the part of ``energy`` given to each atom.
        features: (N, F) invariant features of all layers, side by side (``Potential.feature_slices``).
        properties: predictions (G,) of intensive and extensive property heads, by name, in their own units.
    """

    energy: Energies
    forces: Forces
    stress: Stress
    node_energy: NodeEnergies
    features: Features
    properties: dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Potential:
    """An interatomic potential as pure functions of its parameters.

    A potential is a value that holds only what never changes while training: it can be closed over or be a static
    argument of ``jax.jit``, and two loads of one model share their compiled programs. Isolated-atom energies are no
    part of any program and are left out of the comparison: ``a == b`` says that two potentials compute the same
    interaction energies from the same parameters. Parameters are an argument of every function.

    Attributes:
        module: network; ``module.apply({"params": params}, graph, vectors, species)`` returns per-atom head
            energies (N, H) in eV and invariant features (N, F).
        config: the typed configuration ``module`` was built from.
        cutoff: Å.
        species: atomic numbers the potential knows, ascending.
        heads: names of the energy heads; ``GraphBatch.head`` indexes them.
        e0s: (H, n_species) isolated-atom energies in eV, float64.
        properties: property heads; the parameters of each are a group of their own beside the module's.
        precision: of the network's float32 products, where a backend has a choice: a choice of the run, not saved with
            a model. Positions, cells and strains are multiplied in full in any case.
        backend: what sums the messages of the network: a choice of the run, not saved with a model. The kernels of
            "pallas" have been compiled for GPUs and never run on one; on CPUs they are interpreted, slowly.
        dispersion: added to what ``apply`` gives, and to nothing else; likewise not saved.
    """

    module: Any
    config: Any
    cutoff: float
    species: tuple[int, ...]
    heads: tuple[str, ...]
    e0s: np.ndarray = dataclasses.field(compare=False)
    properties: tuple[PropertyHead, ...] = ()
    precision: Precision = "highest"
    backend: Backend = "dense"
    dispersion: D3BJ | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is one of {', '.join(get_args(Precision))}; found {self.precision!r}.")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend is one of {', '.join(get_args(Backend))}; found {self.backend!r}.")
        if self.backend != "dense" and not hasattr(self.module, "backend"):
            raise ValueError(f"this architecture has no kernels of its own; found backend {self.backend!r}.")

    @classmethod
    def create(cls, module: Any, e0s: np.ndarray | None = None) -> Potential:
        """Build a potential around a module whose ``config`` names ``cutoff``, ``species`` and ``heads``.

        Args:
            module: network.
            e0s: (n_species,) or (n_heads, n_species) isolated-atom energies in eV; zero by default.

        Raises:
            ValueError: if ``e0s`` does not fit the species and heads.
        """
        config = module.config
        shape = (len(config.heads), len(config.species))
        e0s = np.zeros(shape) if e0s is None else np.asarray(e0s, np.float64)
        if e0s.shape not in (shape, shape[1:]):
            raise ValueError(f"e0s must have shape {shape} or {shape[1:]}, found {e0s.shape}")
        return cls(
            module=module,
            config=config,
            cutoff=config.cutoff,
            species=config.species,
            heads=config.heads,
            e0s=np.broadcast_to(e0s, shape).copy(),
        )

    def init(self, key: Key, dtype: Any = jnp.float32) -> Params:
        """Return freshly initialised parameters, all of them in ``dtype``."""
        return _init(self, key, np.dtype(dtype))

    def init_property(self, key: Key, name: str, dtype: Any = jnp.float32) -> Params:
        """Return freshly initialised parameters of one property head: the same as ``init`` gives it."""
        return _init_group(self, key, np.dtype(dtype), self.property_head(name).group)

    def apply(self, params: Params, graph: GraphBatch, *, stress: bool = True) -> Prediction:
        """Predict energy, forces, stress and features of a batch.

        Args:
            params: parameters, in the dtype of ``graph.positions``.
            graph: structures; elements outside ``species`` must have been refused before (``check_elements``).
            stress: whether to differentiate with respect to strain; without it stress is zero.
        """
        node_energy, features, d_positions, d_strain = _evaluate(
            self, stress, params, graph.positions, graph.cells, graph
        )
        volume = jnp.abs(jnp.linalg.det(graph.cells))
        has_volume = volume > 0.0
        per_volume = jnp.where(has_volume, 1.0 / jnp.where(has_volume, volume, 1.0), 0.0)
        found = Prediction(
            energy=sum_over_atoms(graph, node_energy),
            forces=-d_positions,
            stress=d_strain * per_volume[:, None, None],
            node_energy=node_energy,
            features=features,
            properties=self._scalar_properties(params, graph, features),
        )
        return found if self.dispersion is None else self.dispersion.added(found, graph, per_volume)

    def property_values(self, params: Params, graph: GraphBatch) -> dict[str, Array]:
        """Predict the properties of a batch: (G,) of scalar heads, (N, 3) of vector heads, by name.

        One forward pass without forces, to be differentiated with respect to parameters.
        """
        features, state = self._features(params, graph)
        values = self._scalar_properties(params, graph, features)
        for head in self.properties:
            if head.kind == "vector":
                mine = head.select(features, self.feature_slices[-1])
                vectors = _offered_vectors(state, head)
                with products_in(self.precision):
                    values[head.name] = read_vector(head, params[head.group], graph, mine, vectors)
        return values

    def property_inputs(self, params: Params, graph: GraphBatch, head: PropertyHead) -> tuple[Array, Array, Array]:
        """Moments of what a scalar head reads: see ``nn.readouts.input_moments``."""
        features, _ = self._features(params, graph)
        return input_moments(head, graph, head.select(features, self.feature_slices[-1]))

    def _features(self, params: Params, graph: GraphBatch) -> tuple[Features, Any]:
        """Invariant features, and the collections in which the module left others."""
        (_, features), state = self._network(params, graph, graph.positions, graph.cells, mutable=[VECTORS])
        return jnp.where(graph.atom_mask[:, None], features, 0.0), state

    def _network(self, params: Params, graph: GraphBatch, positions: Array, cells: Array, **options: Any) -> Any:
        """Apply the module at given positions (N, 3) and cells (G, 3, 3)."""
        module, sent = self.module, None
        if self.backend != "dense":
            module, sent = module.clone(backend=self.backend), of_senders(positions, (graph.neighbors, graph.reverse))
        vectors = edge_vectors(graph, positions, cells, sent)
        species = self.species_index(graph.atomic_numbers)
        with products_in(self.precision):
            return module.apply({"params": params}, graph, vectors, species, **options)

    def _scalar_properties(self, params: Params, graph: GraphBatch, features: Features) -> dict[str, Array]:
        with products_in(self.precision):
            return {
                head.name: read_scalar(head, params[head.group], graph, head.select(features, self.feature_slices[-1]))
                for head in self.properties
                if head.kind != "vector"
            }

    def property_head(self, name: str) -> PropertyHead:
        """Return a property head by name.

        Raises:
            ValueError: if there is none, saying which there are.
        """
        for head in self.properties:
            if head.name == name:
                return head
        known = ", ".join(head.name for head in self.properties) or "no property at all"
        raise ValueError(f"this model does not predict {name!r}; it predicts {known}.")

    @exact
    def node_energy(
        self, params: Params, graph: GraphBatch, positions: Array, strain: Array | None = None
    ) -> tuple[NodeEnergies, Features]:
        """Interaction energy per atom in eV and invariant features, at given positions and strain.

        Args:
            params: parameters.
            graph: table, elements and cells.
            positions: (N, 3) Å, before the strain.
            strain: (G, 3, 3) strain of each structure, symmetrised here; ``None`` for none.
        """
        cells = graph.cells
        if strain is not None:
            strain = 0.5 * (strain + jnp.swapaxes(strain, -1, -2))
            positions = positions + (positions[:, None, :] @ strain[graph.graph_index])[:, 0, :]
            cells = cells + cells @ strain
        head_energies, features = self._network(params, graph, positions, cells)
        head = graph.head[graph.graph_index]
        node_energy = jnp.take_along_axis(head_energies, head[:, None], axis=1)[:, 0]
        mask = graph.atom_mask
        return jnp.where(mask, node_energy, 0.0), jnp.where(mask[:, None], features, 0.0)

    def species_index(self, atomic_numbers: Int[Array, " N"]) -> Int[Array, " N"]:
        """Row of each atom's element in ``species``; padding and unknown elements map to row 0."""
        table = np.zeros(120, np.int32)
        table[list(self.species)] = np.arange(len(self.species))
        return jnp.asarray(table)[atomic_numbers]

    @property
    def feature_slices(self) -> tuple[slice, ...]:
        """Columns of ``Prediction.features`` that belong to each layer."""
        ends = np.cumsum(self.module.feature_sizes)
        return tuple(
            slice(int(end - size), int(end)) for size, end in zip(self.module.feature_sizes, ends, strict=True)
        )

    def reference_energy(self, atomic_numbers: Any, head: int = 0) -> float:
        """Sum of the isolated-atom energies of a structure, in eV and float64 (host)."""
        self.check_elements(atomic_numbers)
        return float(np.sum(self.e0s[head][np.searchsorted(self.species, np.asarray(atomic_numbers))]))

    def check_elements(self, atomic_numbers: Iterable[int]) -> None:
        """Raise ``ValueError`` naming the elements of a structure that the potential does not know."""
        unknown = sorted({int(z) for z in atomic_numbers} - set(self.species))
        if unknown:
            names, known = listed(unknown), listed(self.species)
            known = f"it knows {known}. Choose another model or structure."
            raise ValueError(f"this potential does not know {names}; {known}")

    def replace(self, **changes: Any) -> Potential:
        """Return a potential with some attributes changed (for instance other ``e0s``)."""
        return dataclasses.replace(self, **changes)


class Model(NamedTuple):
    """A potential and its parameters: what ``mlipjax.load`` returns and what a fine-tune gives back."""

    potential: Potential
    params: Params

    def cast(self, dtype: Any) -> Model:
        """The same in another precision."""
        return Model(self.potential, tree.cast(self.params, dtype))


apply = jax.jit(Potential.apply, static_argnums=0, static_argnames="stress")
"""``Potential.apply``, compiled: the one place where it is, so that equal potentials and shapes compile once."""

property_values = jax.jit(Potential.property_values, static_argnums=0)
property_inputs = jax.jit(Potential.property_inputs, static_argnums=(0, 3))
"""``Potential.property_values`` and ``property_inputs``, likewise."""


@exact
def _initial(potential: Potential, key: Key, dtype: np.dtype) -> Params:
    # compiled, the forward pass that flax runs to learn the shapes is dropped
    probe = _probe_graph(potential.species[0], dtype)
    vectors = edge_vectors(probe, probe.positions, probe.cells)
    variables = potential.module.init(key, probe, vectors, potential.species_index(probe.atomic_numbers))
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), dict(variables["params"]))
    sizes = potential.module.feature_sizes
    for number, head in enumerate(potential.properties):
        n_features = sizes[-1] if head.layers == "last" else sum(sizes)
        n_vectors = _offered_vectors(variables, head).shape[-1] if head.kind == "vector" else 0
        # a stream of its own: other heads, or none, leave the backbone's draw as it is
        params[head.group] = init_head(head, jax.random.fold_in(key, 1 + number), n_features, n_vectors, dtype)
    return params


_init = jax.jit(_initial, static_argnums=(0, 2))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _init_group(potential: Potential, key: Key, dtype: np.dtype, group: str) -> Params:
    # the compiler drops all other groups: for 89 elements they take half a minute to compile
    return _initial(potential, key, dtype)[group]


def _offered_vectors(variables: Any, head: PropertyHead) -> Array:
    """The polar vectors (N, 3, C) that a backbone left behind."""
    if VECTORS not in variables:
        raise ValueError(f"property {head.name!r} is a vector, and this architecture offers no equivariant features.")
    return variables[VECTORS]["vectors"][0]


def _evaluate_plainly(
    potential: Potential, stress: bool, params: Params, positions: Array, cells: Array, graph: GraphBatch
) -> tuple[Array, Array, Array, Array]:
    """Node energies, features, dE/dr and dE/de: one forward and one backward pass."""
    graph = dataclasses.replace(graph, cells=cells)

    def total_energy(positions: Array, strain: Array) -> tuple[Array, tuple[Array, Array]]:
        node_energy, features = potential.node_energy(params, graph, positions, strain if stress else None)
        return jnp.sum(node_energy), (node_energy, features)

    gradient, (node_energy, features) = jax.grad(total_energy, argnums=(0, 1), has_aux=True)(
        positions, jnp.zeros_like(cells)
    )
    return node_energy, features, *gradient


_evaluate: Callable[..., tuple[Array, Array, Array, Array]] = jax.custom_vjp(_evaluate_plainly, nondiff_argnums=(0, 1))


def _evaluate_forward(potential, stress, params, positions, cells, graph):
    return _evaluate(potential, stress, params, positions, cells, graph), (params, positions, cells, graph)


def _evaluate_backward(potential, stress, residuals, cotangents):
    """Pull back through dE/dr as the gradient of a directional derivative of E.

    For a cotangent v of dE/dr, ``v . d(dE/dr) = d(D_v E)``: second derivatives commute. Differentiating D_v E, a
    forward-mode derivative, once backwards stores a fifth of what differentiating the backward pass itself stores
    (25 instead of 134 MB for 64 atoms of Nequix). The result is made of ordinary operations, so it can be
    differentiated again.
    """
    params, positions, cells, graph = residuals
    ct_node_energy, ct_features, ct_positions, ct_strain = cotangents

    def directional(params: Params, positions: Array, cells: Array) -> Array:
        def energy(positions: Array, strain: Array) -> tuple[Array, Array]:
            return potential.node_energy(
                params, dataclasses.replace(graph, cells=cells), positions, strain if stress else None
            )

        (node_energy, features), (slope, _) = jax.jvp(
            energy, (positions, jnp.zeros_like(cells)), (ct_positions, ct_strain)
        )
        return jnp.sum(slope) + jnp.sum(ct_node_energy * node_energy) + jnp.sum(ct_features * features)

    return *jax.grad(directional, argnums=(0, 1, 2))(params, positions, cells), None


_evaluate.defvjp(_evaluate_forward, _evaluate_backward)  # pyright: ignore[reportFunctionMemberAccess]


def sum_over_atoms(graph: GraphBatch, values: Float[Array, " N"]) -> Energies:
    """Sum per-atom values within each structure: (N,) -> (G,)."""
    n_graphs = graph.cells.shape[0]
    if n_graphs == 1:
        return jnp.sum(values)[None]
    return jax.ops.segment_sum(values, graph.graph_index, n_graphs, indices_are_sorted=True)


def _probe_graph(atomic_number: int, dtype: Any) -> GraphBatch:
    """Two atoms 1 Å apart: enough to fix every parameter's shape."""
    return GraphBatch(
        positions=jnp.asarray([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype),
        atomic_numbers=jnp.full((2,), atomic_number, jnp.int32),
        cells=jnp.zeros((1, 3, 3), dtype),
        neighbors=jnp.asarray([[1], [0]], jnp.int32),
        shifts=jnp.zeros((2, 1, 3), jnp.int32),
        edge_mask=jnp.ones((2, 1), bool),
        reverse=jnp.asarray([[1], [0]], jnp.int32),
        graph_index=jnp.zeros((2,), jnp.int32),
        atom_mask=jnp.ones((2,), bool),
        graph_mask=jnp.ones((1,), bool),
        n_atoms=jnp.asarray([2], jnp.int32),
        head=jnp.zeros((1,), jnp.int32),
    )
