"""Guards of the programs for GPUs, compiled for an H200 that is not there: kernels, memory, traffic, faults.

They need the plugin of the same jax (``pip install "jax[cuda13]"`` in an environment of its own).
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)),
        reason='programs for GPUs are compiled with the plugin (pip install "jax[cuda13]")',
    ),
]

# of the embedded model: kernels, MB of temporaries, MB read and written; a change that needs more says so here
BOUNDS = {
    "force call, 64 atoms": (197, 7.4, 50.8),
    "force call, 1000 atoms": (205, 120.0, 800.0),
    "force call, 8000 atoms": (222, 1067.0, 6660.0),
    "NVE step, 64 atoms": (270, 7.5, 51.4),
    "NPT step, 64 atoms": (297, 7.5, 51.4),
    "Langevin step, 8 x 64 atoms": (276, 60.4, 410.0),
    "training step, 4 x 64 atoms": (1644, 95.2, 688.0),
}
# with kernels of our own, whose programs read some operands more than once: these count as often
BOUNDS_OF_KERNELS = {
    "force call, 64 atoms": (121, 3.4, 34.8),
    "force call, 8000 atoms": (127, 426.0, 4351.0),
    "NPT step, 64 atoms": (217, 3.4, 35.3),
}


@pytest.fixture(scope="module")
def rows():
    """Kernels, MB of temporaries, MB of traffic, floor in ms and faults of each program."""
    return compiled("universal", BOUNDS)


def compiled(model, programs):
    """The same, in a process without x64."""
    command = [sys.executable, "-m", "experiments.benchmark.compiled", model, *programs]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()[2:]]
    return {name: (int(kernels), *map(float, sizes), faults) for name, kernels, *sizes, faults in cells}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_program_needs_no_more_than_it_did(rows, name):
    kernels, temporaries, traffic, _, faults = rows[name]
    assert faults == "-"
    for found, bound in zip((kernels, temporaries, traffic), BOUNDS[name], strict=True):
        assert found <= 1.1 * bound


def test_programs_with_kernels_of_our_own_need_no_more_than_they_did():
    rows = compiled("universal:pallas", BOUNDS_OF_KERNELS)
    for name, bounds in BOUNDS_OF_KERNELS.items():
        *sizes, _, faults = rows[name]
        assert faults == "-"
        for found, bound in zip(sizes, bounds, strict=True):
            assert found <= 1.1 * bound, name


def test_memory_of_a_force_call_grows_as_the_number_of_atoms_or_less(rows):
    small, large = (rows[f"force call, {n} atoms"][1] for n in (1000, 8000))
    assert large < 1.2 * 8 * small
