"""Timing that all sides share; without this project and JAX, because each side runs in an environment of its own."""

import json
import resource
import sys
import time


def measure(function, rounds):
    """Time the first call (compilation included) and ``rounds`` more; seconds and MB."""
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
    return {"wall": wall, "cpu": cpu, "first": first, "peak_MB": peak}


def timed(action):
    """Outcome of an action with its wall time, and the time of all its cores (which other load does not change)."""
    began, busy = time.perf_counter(), time.process_time()
    outcome = action()
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}
    return {**{name: round(value, 2) for name, value in spent.items()}, **outcome}


def ase_band(images, calculator, spring, fmax, max_steps):
    """ASE's climbing band by FIRE with the improved tangent; ``calculator()`` gives that of the next image."""
    from ase.mep import NEB
    from ase.optimize import FIRE

    for image in images:
        image.calc = calculator()
    shared = images[0].calc is images[1].calc
    band = NEB(images, k=spring, climb=True, method="improvedtangent", allow_shared_calculator=shared)
    optimizer = FIRE(band, logfile=None)
    converged = optimizer.run(fmax=fmax, steps=max_steps)
    energies = [float(image.get_potential_energy()) for image in images]
    return {"steps": optimizer.nsteps, "converged": bool(converged), "barrier_eV": max(energies) - energies[0]}


def main(tasks):
    """Time the task that the arguments name (TASK WEIGHTS STRUCTURE ROUNDS), and print one line of JSON."""
    import ase.io

    task, weights, structure, rounds = sys.argv[1:5]
    print(json.dumps(measure(tasks[task](weights, ase.io.read(structure, index=":")), int(rounds))))


def moving(atoms, evaluate):
    """``evaluate`` after a move: less than changes a neighbour list, so that ASE does not answer from its cache."""
    import numpy as np

    rng = np.random.default_rng(0)

    def run():
        atoms.positions += 1e-6 * rng.normal(size=atoms.positions.shape)
        return evaluate()

    return run
