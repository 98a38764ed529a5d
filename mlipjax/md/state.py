"""The state of a simulation, and how one starts."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from mlipjax.devices import SHARE, WHOLE, bring_back, over_devices, put
from mlipjax.graph import DenseTable, VerletSpec, build_table, cells_away
from mlipjax.md.dynamics import Dynamics, maxwell_boltzmann
from mlipjax.md.ensembles import Ensemble
from mlipjax.md.evaluation import evaluate, observe
from mlipjax.md.freedom import Freedom, hold
from mlipjax.md.observables import masses_of
from mlipjax.md.start import Start
from mlipjax.potential import Model, Potential
from mlipjax.precision import exact
from mlipjax.typing import Array, AtomicNumbers, Float, Int, Key, Params


@struct.dataclass
class SimState:
    """Everything the next step of R replicas of one system depends on, besides parameters and ensemble.

    Attributes:
        dynamics: positions, momenta, cell, forces, thermostat, key, with a leading replica axis.
        table: candidate pairs of each replica and whether they fitted, with a leading replica axis.
        atomic_numbers: (N,), shared by the replicas.
        head: () index of the energy head, shared.
        step: () number of steps done.
        images: (R, N, 3) cells by which each atom was brought back since the start: ``position + images @ cell`` is
            its way.
    """

    dynamics: Dynamics
    table: DenseTable
    atomic_numbers: AtomicNumbers
    head: Int[Array, ""]
    step: Int[Array, ""]
    images: Int[Array, "R N 3"]

    @property
    def n_replicas(self) -> int:
        """Number of replicas R."""
        return self.dynamics.position.shape[0]

    @classmethod
    def specs(cls) -> SimState:
        """Parts to divide where replicas are divided over devices (``devices.over_devices``)."""
        specs: Any = {"dynamics": SHARE, "table": SHARE, "images": SHARE}
        specs |= dict.fromkeys(("atomic_numbers", "head", "step"), WHOLE)
        return cls(**specs)


def init(
    model: Model,
    spec: VerletSpec,
    start: Start,
    ensemble: Ensemble,
    key: Key,
    n_replicas: int = 1,
    *,
    head: int = 0,
) -> SimState:
    """Start replicas of one structure with velocities of their own; replica r is the same whatever their number.

    Args:
        model: what to simulate with; the dtype of its parameters is that of the simulation.
        spec: static sizes, from ``VerletSpec.for_systems([start.system], potential.cutoff)``.
        start: structure, what may move, and momenta if they are given; atomic numbers must be concrete.
        ensemble: thermostat and barostat; its temperature is that of drawn velocities.
        key: source of the velocities and of the thermostats' noise.
        n_replicas: number of replicas R.
        head: index of the energy head.

    Raises:
        ValueError: for elements the potential or the table of masses does not know, fewer than two atoms, or a
            moving cell for a system that is not periodic in all directions or holds fixed atoms.
    """
    (potential, params), system = model, start.system
    check_start(potential, spec, start, ensemble)
    dtype = _dtype(params)
    mass = jnp.asarray(masses_of(system), dtype)[:, None]
    position, cell = jnp.asarray(system.positions, dtype), jnp.asarray(system.cell, dtype)
    numbers = jnp.asarray(system.atomic_numbers, jnp.int32)
    head_index = jnp.asarray(head, jnp.int32)
    table = _search(spec, *(jnp.broadcast_to(x, (n_replicas, *x.shape)) for x in (position, cell)))
    # all replicas start alike: one evaluation serves them all
    first = jax.tree.map(lambda leaf: leaf[0], table)
    at_rest = _at_rest(position, cell, mass, key, start.freedom)
    at_rest = _evaluate(potential, spec, params, numbers, head_index, first, at_rest)
    momenta = start.momenta
    if momenta is not None:
        momenta = jnp.broadcast_to(jnp.asarray(momenta, dtype), (n_replicas, *momenta.shape))
    dynamics = _set_in_motion(at_rest, cast(ensemble, dtype), momenta, n_replicas, start.exact_temperature)
    images = jnp.zeros(dynamics.position.shape, jnp.int32)
    return SimState(dynamics, table, numbers, head_index, jnp.zeros((), jnp.int32), images)


@partial(jax.jit, static_argnums=(0, 3))
def _search(
    spec: VerletSpec, positions: Float[Array, "R N 3"], cells: Float[Array, "R 3 3"], mesh: Mesh | None = None
) -> DenseTable:
    def search(*replicas: Array) -> DenseTable:
        together = spec.searched_at_once(positions.shape[1])
        return jax.lax.map(lambda at: build_table(spec, *at), replicas, batch_size=together)

    return over_devices(search, mesh, (SHARE, SHARE), SHARE)(positions, cells)


@partial(jax.jit, static_argnums=(0, 1))
def _evaluate(
    potential: Potential,
    spec: VerletSpec,
    params: Params,
    numbers: AtomicNumbers,
    head: Int[Array, ""],
    table: DenseTable,
    dynamics: Dynamics,
) -> Dynamics:
    graph, _ = observe(spec, numbers, head, table, dynamics)
    graphs, replicas = jax.tree.map(lambda leaf: leaf[None], (graph, dynamics))
    return jax.tree.map(lambda leaf: leaf[0], evaluate(potential, params, graphs, replicas, spec.has_volume))


@partial(jax.jit, static_argnums=(3, 4))
def _set_in_motion(
    at_rest: Dynamics, ensemble: Ensemble, momenta: Array | None, n_replicas: int, exact_temperature: bool
) -> Dynamics:
    """Give every replica velocities, a key of its own and the ensemble's variables."""

    def replica(index: Array, momentum: Array | None) -> Dynamics:
        velocity_key, noise_key = jax.random.split(jax.random.fold_in(at_rest.rng, index))
        if momentum is None:
            momentum = maxwell_boltzmann(
                velocity_key,
                at_rest.mass,
                ensemble.temperature_K,
                exact=exact_temperature,
                freedom=at_rest.freedom,
            )
        momentum = hold(momentum, at_rest.freedom)
        return ensemble.start(at_rest.set(momentum=momentum, rng=noise_key))

    in_axes = (0, None if momenta is None else 0)
    return jax.vmap(replica, in_axes=in_axes)(jnp.arange(n_replicas), momenta)


def rebuild(spec: VerletSpec, state: SimState, mesh: Mesh | None = None) -> SimState:
    """Find the candidates of every replica anew, where its atoms are now; once before every chunk, never within.

    Atoms that left the cell are brought back first: positions far from the origin would lose digits.

    Args:
        spec: static sizes.
        state: of R replicas.
        mesh: devices that the replicas are divided over.
    """
    position, moved = _brought_back(spec.pbc, state.dynamics.position, state.dynamics.cell)
    state = replace(state, dynamics=state.dynamics.set(position=position), images=state.images + moved)
    return rebuild_at(spec, state, position, state.dynamics.cell, mesh)


@partial(jax.jit, static_argnums=0)
@exact
def _brought_back(
    pbc: tuple[bool, bool, bool], positions: Float[Array, "R N 3"], cells: Float[Array, "R 3 3"]
) -> tuple[Float[Array, "R N 3"], Int[Array, "R N 3"]]:
    moved = jax.vmap(partial(cells_away, pbc=pbc))(positions, cells)
    taken_off = jnp.einsum("rni,rix->rnx", moved, cells)
    return positions - taken_off, moved.astype(jnp.int32)


def rebuild_at(
    spec: VerletSpec,
    state: SimState,
    positions: Float[Array, "R N 3"],
    cells: Float[Array, "R 3 3"],
    mesh: Mesh | None = None,
) -> SimState:
    """Find the candidates of every replica where its atoms were, to repeat a search with other sizes.

    Args:
        spec: static sizes.
        state: of R replicas.
        positions, cells: Å, where they were.
        mesh: devices that the replicas are divided over.
    """
    where = put((positions, cells), mesh, SHARE)
    return replace(state, table=bring_back(_search(spec, *where, mesh), mesh))


def refresh(potential: Potential, spec: VerletSpec, params: Params, state: SimState) -> SimState:
    """Energy, forces and stress of every replica by the edges in its table, after parameters or table changed.

    Args:
        potential: what to simulate with.
        spec: static sizes.
        params: its parameters.
        state: whose positions, cells and tables are kept.
    """
    look = jax.vmap(partial(observe, spec, state.atomic_numbers, state.head))
    graphs, _ = look(state.table, state.dynamics)
    return replace(state, dynamics=evaluate(potential, params, graphs, state.dynamics, spec.has_volume))


def check_start(potential: Potential, spec: VerletSpec, start: Start, ensemble: Ensemble) -> None:
    """Raise ``ValueError`` if a structure cannot be simulated by this potential in this ensemble."""
    system, freedom = start.system, start.freedom
    potential.check_elements(np.asarray(system.atomic_numbers))
    if freedom is not None:
        if len(freedom.free) != system.n_atoms:
            raise ValueError(f"the constraints are for {len(freedom.free)} atoms, the structure has {system.n_atoms}.")
        if ensemble.moves_cell:
            raise ValueError(
                f"{int((~freedom.free).any(axis=1).sum())} atoms are fixed, which a cell that moves would carry along; "
                "choose a constant volume (NVT or NVE) or free them."
            )
    elif system.n_atoms < 2:
        raise ValueError(
            f"found {system.n_atoms} atom; dynamics with the centre of mass at rest needs 2 or more. Repeat the cell."
        )
    if ensemble.moves_cell and not (all(system.pbc) and spec.has_volume):
        raise ValueError(
            f"constant pressure needs a cell periodic in three directions, found pbc={system.pbc}. Choose NVT or NVE."
        )


def cast(ensemble: Any, dtype: Any) -> Any:
    """The same numbers in the dtype of a simulation, so that none of them promotes its arrays."""
    return jax.tree.map(lambda number: jnp.asarray(number, dtype), ensemble)


def _at_rest(position: Array, cell: Array, mass: Array, key: Key, freedom: Freedom | None) -> Dynamics:
    """A replica without motion, not evaluated yet."""
    dtype = position.dtype
    return Dynamics(
        position=position,
        momentum=jnp.zeros_like(position),
        mass=mass,
        cell=cell,
        force=jnp.zeros_like(position),
        energy=jnp.zeros((), dtype),
        stress=jnp.zeros((3, 3), dtype),
        rng=key,
        freedom=freedom,
    )


def _dtype(params: Params) -> Any:
    return jnp.result_type(*(leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)))
