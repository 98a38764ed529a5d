"""ASE's NEB with upstream Nequix: ``python neb_peer.py WEIGHTS PATH FMAX STEPS SPRING`` prints one line of JSON.

Runs in an environment with nequix installed; the two rows are with and without compilation.
"""

import json
import sys

import ase.io
from nequix.calculator import NequixCalculator
from timing import ase_band, timed

weights, file, fmax, steps, spring = sys.argv[1:]
calculator = NequixCalculator(model_path=weights, use_kernel=False)
rows = {
    f"ASE, upstream calculator (shared), {label}": timed(
        lambda: ase_band(ase.io.read(file, ":"), lambda: calculator, float(spring), float(fmax), int(steps))
    )
    for label in ("with compilation", "compiled")
}
print(json.dumps(rows))
