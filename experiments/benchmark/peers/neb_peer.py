"""ASE's NEB with upstream Nequix: ``python neb_peer.py WEIGHTS PATH FMAX STEPS SPRING`` prints one line of JSON.

Runs in an environment with nequix installed; the two rows are with and without compilation.
"""

import json
import sys
import time

import ase.io
from ase.mep import NEB
from ase.optimize import FIRE
from nequix.calculator import NequixCalculator

weights, file, fmax, steps, spring = sys.argv[1:]
calculator = NequixCalculator(model_path=weights, use_kernel=False)
rows = {}
for label in ("with compilation", "compiled"):
    images = ase.io.read(file, ":")
    for image in images:
        image.calc = calculator
    band = NEB(images, k=float(spring), climb=True, method="improvedtangent", allow_shared_calculator=True)
    begin, cpu = time.perf_counter(), time.process_time()
    optimizer = FIRE(band, logfile=None)
    converged = optimizer.run(fmax=float(fmax), steps=int(steps))
    energies = [image.get_potential_energy() for image in images]
    rows[f"ASE, upstream calculator (shared), {label}"] = {
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "steps": optimizer.nsteps,
        "converged": bool(converged),
        "barrier_eV": max(energies) - energies[0],
    }
print(json.dumps(rows))
