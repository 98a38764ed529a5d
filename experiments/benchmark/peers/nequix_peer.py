"""Time upstream Nequix: ``python nequix_peer.py {calculator,step} WEIGHTS STRUCTURE ROUNDS`` prints one line of JSON.

Runs in an environment with nequix installed. ``calculator`` times its ASE calculator, ``step`` one training step on
all frames of the file: a mean-squared loss of energies, forces and stress, and Adam, on its own padded graph.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import optax
from nequix.calculator import NequixCalculator
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import load_model
from timing import main, moving


def calculator(weights, frames):
    """Energy, forces and stress of the first frame, moved a little every time."""
    atoms = frames[0]
    atoms.calc = NequixCalculator(model_path=weights, use_kernel=False)
    return moving(atoms, atoms.get_potential_energy)


def step(weights, frames):
    """One optimiser step on all frames."""
    model, config = load_model(weights)
    indices = atomic_numbers_to_indices(config["atomic_numbers"])
    graphs = [dict_to_graphstuple(preprocess_graph(atoms, indices, config["cutoff"], False)) for atoms in frames]
    graph = jraph.batch(graphs)
    # padded as the calculator pads: to the next multiples
    n_node, n_edge = int(graph.n_node.sum()), int(graph.n_edge.sum())
    graph = jraph.pad_with_graphs(graph, (n_node + 8) // 8 * 8, (n_edge + 64) // 64 * 64, len(frames) + 1)
    graph = jax.tree.map(jnp.asarray, graph)
    optimizer = optax.adam(1e-4)

    @eqx.filter_jit
    def update(model, state, graph):
        def loss(model):
            energy, forces, stress = model(graph)
            return jnp.sum(energy**2) + jnp.sum(forces**2) + jnp.sum(stress**2)

        gradient = eqx.filter_grad(loss)(model)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    now = [model, optimizer.init(eqx.filter(model, eqx.is_array))]

    def run():
        now[:] = jax.block_until_ready(update(*now, graph))

    return run


if __name__ == "__main__":
    main({"calculator": calculator, "step": step})
