"""Time upstream Nequix: ``python nequix_peer.py WEIGHTS STRUCTURE ROUNDS`` prints one line of JSON.

Runs in an environment with nequix installed; times the calculator's own compiled function on its own padded graph.
"""

import json
import resource
import sys
import time

import ase.io
import numpy as np
from nequix.calculator import NequixCalculator


def main() -> None:
    """Evaluate energy, forces and stress repeatedly."""
    weights, structure, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    atoms = ase.io.read(structure)
    calculator = NequixCalculator(model_path=weights, use_kernel=False)
    atoms.calc = calculator
    began = time.perf_counter()
    energy = atoms.get_potential_energy()
    first = time.perf_counter() - began
    rng = np.random.default_rng(0)
    wall, cpu = [], []
    for _ in range(rounds):
        # moved by less than changes a neighbour list, so that ASE does not answer from its cache
        atoms.positions += 1e-6 * rng.normal(size=atoms.positions.shape)
        began, busy = time.perf_counter(), time.process_time()
        atoms.get_potential_energy()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "first": first, "peak_MB": peak, "energy": energy}))


main()
