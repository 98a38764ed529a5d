"""Settings and fixtures of the whole test suite."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# One thread per process: kernels this small only get slower with more, and test processes share the machine.
# Most of the time is compilation: code generation without optimisation takes a third less of it. `.ci/run` repeats the
# comparisons with published models with XLA_FLAGS="", as a user compiles.
# The same for OpenMP: of two processes with two threads each on two cores, most wait for the others and spin meanwhile.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0")

# a checkout may have reference data beside it; the package itself looks nowhere but where this says
os.environ.setdefault("MLIPJAX_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))

import jax
import pytest
from jaxtyping import install_import_hook

jax.config.update("jax_enable_x64", True)
# a sum of (N,) and (N, 1) is a mistake more often than it is meant: broadcasting between ranks is written out
jax.config.update("jax_numpy_rank_promotion", "raise")
# annotations of shapes are checked with every call and, by the letters of axes, against each other
install_import_hook("mlipjax", "shapes.checked")

# commands keep compiled programs; those of one run of the tests see each other's only
_CACHE = None if "MLIPJAX_CACHE" in os.environ else tempfile.mkdtemp(prefix="mlipjax-cache-")
os.environ.setdefault("MLIPJAX_CACHE", str(_CACHE))

ROOT = Path(__file__).resolve().parents[1]


def pytest_unconfigure() -> None:
    """Remove what the run kept."""
    if _CACHE is not None:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of public reference data, named by ``MLIPJAX_DATA``; without it the test is skipped."""
    folder = (ROOT / os.environ["MLIPJAX_DATA"]).resolve()
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder}; set MLIPJAX_DATA to the folder that holds them")
    return folder


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file() -> Iterator[None]:
    """Forget compiled programs after a file once they are many: jit keeps those of all potentials."""
    from mlipjax import runtime  # after the hook

    yield
    runtime.release_programs()
