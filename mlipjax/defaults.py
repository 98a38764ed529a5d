"""Values that functions of the library and options of commands share: numbers by default, and names of choices."""

from typing import Literal

MAX_SLOTS = 65_536
"""Neighbour slots (padded atoms times ``K``) computed at once on CPUs: four frames of a 170-atom liquid at 6 Å. About
1 GB for predictions of Nequix in float64; the training gradient of nequix-mp-1 (700 000 parameters) took 1.0 GB for
half of them. Accelerators compute as many as their memory holds (``devices.default_slots``)."""

BYTES_PER_SLOT = 150_000
"""Memory of a neighbour slot in a training step on accelerators, which keep what the backward pass needs: 142 kB in
the float32 program of nequix-mp-1 for an H200, 13 kB in that of the embedded model; in a force call 51 and 5 kB
(``experiments.benchmark.compiled``)."""

BOND_FACTOR = 1.2
"""Atoms closer than 1.2 times the sum of their covalent radii are bonded (Sb-Te in Sb2Te3: 1.08 and 1.14; Te-Te
across its gap: 1.35)."""

SPRING = 1.0
"""Spring constant of a band in eV/Å^2."""

COMPONENTS = 5
"""Principal components of charts: as many as the paper they follow (arXiv 2603.10159) keeps."""

FRICTION_PER_PS = 10.0
"""Velocities forget within 100 fs: quick equilibration; for transport coefficients choose 1/ps, CSVR or NVE."""

DAMPING_FS = 100.0
"""As the friction: several periods of a bond vibration, so that no mode is driven off resonance."""

BAROSTAT_DAMPING_FS = 1000.0
"""Slower than the thermostat by the usual factor of ten, so that the cell does not follow single vibrations."""

ATMOSPHERE_BAR = 1.01325

BY_MUON = frozenset({"naive", "freeze", "llrd", "l2sp", "ewc"})
"""Strategies that take Muon's steps unless told otherwise; the others were not measured with it."""

Precision = Literal["highest", "high", "default"]
"""Of a network's products of float32 numbers, where a device has a choice (``mlipjax.precision``)."""

Backend = Literal["dense", "pallas"]
"""What sums messages: XLA's programs, or kernels of this package's own (``mlipjax.nn.primitives.messages``)."""
