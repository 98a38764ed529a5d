"""Time upstream Nequix: ``python nequix_peer.py {calculator,step} WEIGHTS STRUCTURE ROUNDS`` prints one line of JSON.

Runs in an environment with nequix installed. ``calculator`` times its ASE calculator, ``step`` one training step on
all frames of the file: a mean-squared loss of energies, forces and stress, and Adam, on its own padded graph.
"""

import json
import resource
import sys
import time

import ase.io
import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from nequix.calculator import NequixCalculator
from nequix.data import atomic_numbers_to_indices, dict_to_graphstuple, preprocess_graph
from nequix.model import load_model


def calculator(weights, frames):
    """Energy, forces and stress of the first frame, moved a little every time."""
    atoms = frames[0]
    atoms.calc = NequixCalculator(model_path=weights, use_kernel=False)
    rng = np.random.default_rng(0)

    def evaluate():
        # moved by less than changes a neighbour list, so that ASE does not answer from its cache
        atoms.positions += 1e-6 * rng.normal(size=atoms.positions.shape)
        atoms.get_potential_energy()

    return evaluate


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


def main():
    """Time one task."""
    task, weights, structure, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    frames = ase.io.read(structure, index=":")
    function = {"calculator": calculator, "step": step}[task](weights, frames)
    began = time.perf_counter()
    function()
    first = time.perf_counter() - began
    wall, cpu = [], []
    for _ in range(rounds):
        began, busy = time.perf_counter(), time.process_time()
        function()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "first": first, "peak_MB": peak}))


if __name__ == "__main__":
    main()
