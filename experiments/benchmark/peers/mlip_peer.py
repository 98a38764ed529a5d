"""Time InstaDeep's mlip: ``python mlip_peer.py {calculator,step} WEIGHTS STRUCTURE ROUNDS`` prints one line of JSON.

Runs in an environment with mlip. WEIGHTS is not read: its MACE is made anew with random parameters and the sizes of
``mace_peer.py`` (128 scalar channels, 5 Å, two layers, correlation 3). ``calculator`` times its program for energy,
forces and stress behind its own neighbour list and padding (its ASE calculator has no stress), ``step`` one training
step on all frames: a mean-squared loss of energies, forces and stress, and Adam.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from mlip.data.chemical_system import ChemicalSystem
from mlip.data.dataset_info import DatasetInfo
from mlip.data.helpers.dynamically_batch import dynamically_batch
from mlip.graph import Graph
from mlip.graph.edge_ordering import DEFAULT_EDGE_ORDERING
from mlip.models import ForceField
from mlip.models.mace.config import MaceConfig
from mlip.models.mace.network import Mace
from mlip.typing.properties import Properties
from timing import main, moving

SPECIES = (1, 6, 8, 14, 29)
CUTOFF = 5.0


def make():
    """The force field with random parameters."""
    info = DatasetInfo(
        atomic_energies_map=dict.fromkeys(SPECIES, 0.0),
        graph_cutoff_angstrom=CUTOFF,
        avg_num_neighbors=30.0,
        avg_r_min_angstrom=1.5,
    )
    config = MaceConfig(num_channels=128, node_symmetry=0, residual_connection_first_layer=True)
    return ForceField.from_mlip_network(Mace(config, info), Properties(energy=True, forces=True, stress=True), seed=0)


def batch_of(frames, n_edges):
    """All frames as one padded graph, as its own calculator pads."""
    graphs = [
        Graph.from_chemical_system(
            ChemicalSystem.from_ase_atoms(atoms, get_property_fields=False), CUTOFF, ordering=DEFAULT_EDGE_ORDERING
        )
        for atoms in frames
    ]
    n_edges = n_edges or int(1.05 * sum(len(graph.senders) for graph in graphs)) + 1
    n_atoms = sum(map(len, frames)) + 1
    return next(dynamically_batch(graphs, n_node=n_atoms, n_edge=n_edges, n_graph=len(frames) + 1)), n_edges


def calculator(_, frames):
    """Energy, forces and stress of the first frame, moved a little every time."""
    field, atoms = make(), frames[0]
    run = jax.jit(field.calculate)
    n_edges = batch_of([atoms], None)[1]

    def evaluate():
        found = run(batch_of([atoms], n_edges)[0]).to_prediction()
        if not all(np.isfinite(np.asarray(x)).all() for x in (found.energy, found.forces, found.stress)):
            raise RuntimeError("not finite")

    return moving(atoms, evaluate)


def step(_, frames):
    """One optimiser step on all frames."""
    field = make()
    graph = jax.tree.map(jnp.asarray, batch_of(frames, None)[0])
    optimizer = optax.adam(1e-4)

    @jax.jit
    def update(params, state, graph):
        def loss(params):
            found = field.predictor.apply(params, graph).to_prediction()
            return sum(jnp.sum(x**2) for x in (found.energy, found.forces, found.stress))

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    now = [field.params, optimizer.init(field.params)]

    def run():
        now[:] = jax.block_until_ready(update(*now, graph))

    return run


if __name__ == "__main__":
    main({"calculator": calculator, "step": step})
